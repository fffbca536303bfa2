"""Log-probability and exact entropy straight from hidden states and the output matrix, a block of logits at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from entropy_lab.errors import ParameterError

BLOCK_MIB: Final = {"cpu": 8.0, "cuda": 256.0}
"""On a processor a block stays in its cache; on a GPU it is large enough for its matrix units."""
_DTYPES: Final = (torch.float32, torch.bfloat16, torch.float64)


class LogpEntropy(NamedTuple):
    """Values of N tokens, each of shape (N,): float32, or float64 for float64 inputs."""

    logp_N: torch.Tensor
    """Log-probability of each token in nats, at most 0."""
    entropy_N: torch.Tensor
    """Entropy of the distribution each token was drawn from, in nats, 0 to log V."""


def linear_logp_entropy(
    hidden_ND: torch.Tensor,
    weight_VD: torch.Tensor,
    token_N: torch.Tensor,
    temperature: float = 1.0,
    *,
    block_mib: float | None = None,
) -> LogpEntropy:
    """Log-probability of each token and entropy of its distribution, in nats, without the N x V logits.

    With ``z = hidden weight^T / temperature`` and ``p = softmax(z)`` over the whole vocabulary,
    ``logp[n] = z[n, token[n]] - logsumexp(z[n])`` and ``entropy[n] = -sum_v p[n, v] log p[n, v]``. Both have gradients:

        d logp[n] / d z[n, v] = [v = token[n]] - p[n, v]
        d entropy[n] / d z[n, v] = -p[n, v] (log p[n, v] + entropy[n])

    Blocks of logits (some tokens x some of the vocabulary) are made one after another; a running maximum, sum and
    first moment of ``exp(z)`` are all that is kept (online softmax). The backward pass makes each block again, which
    costs a fourth matrix product beside the three of any implementation, and only for tokens whose gradient is not
    zero. Memory beside the results is the blocks and, in the backward pass, a float32 gradient of `hidden_ND`.

    Parameters
    ----------
    hidden_ND
        Last hidden states of N tokens, D wide; float32, bfloat16 or float64.
    weight_VD
        Output matrix, of the same type and device. Its gradient and that of `hidden_ND` have that type too, but are
        summed in float32 (float64 for float64).
    token_N
        The token whose probability is asked for, 0 to V - 1; int64.
    temperature
        Divides the logits, above 0.
    block_mib
        Memory for the two buffers of a block, in MiB; 8 on a processor and 256 on a GPU when left out. It changes
        speed, and results in the last bits.

    Returns
    -------
    LogpEntropy
        Empty without tokens. Logits are float32 even for bfloat16 inputs: no rounding to bfloat16 in between.

    Raises
    ------
    ParameterError
        When shapes or types do not fit together, a token is outside the vocabulary, or `temperature` or `block_mib`
        is not positive.

    References
    ----------
    Online softmax: arXiv 1805.02867, Algorithm 3. Cross-entropy without logits: arXiv 2411.09009.

    Examples
    --------
    >>> hidden_ND = torch.tensor([[0.0, 0.0], [0.0, 1.0]], requires_grad=True)
    >>> weight_VD = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [-1.0, 0.0]])
    >>> logp_N, entropy_N = linear_logp_entropy(hidden_ND, weight_VD, torch.tensor([2, 1]))
    >>> torch.allclose(logp_N[0], -torch.tensor(4.0).log()), torch.allclose(entropy_N[0], torch.tensor(4.0).log())
    (True, True)
    >>> logp_N.sum().backward()
    >>> hidden_ND.grad[0].tolist()
    [0.0, -1.0]
    """
    block_mib = BLOCK_MIB.get(hidden_ND.device.type, 256.0) if block_mib is None else block_mib
    for name, value in (("temperature", temperature), ("block_mib", block_mib)):
        if not 0 < value < math.inf:
            raise ParameterError(name, f"is {value}", "above 0 and finite")
    _check(hidden_ND, weight_VD, token_N)
    logp_N, entropy_N = _LinearLogp.apply(  # type: ignore[no-untyped-call]
        hidden_ND, weight_VD, token_N, 1 / temperature, int(block_mib * 2**20)
    )
    return LogpEntropy(logp_N, entropy_N)


def _check(hidden_ND: torch.Tensor, weight_VD: torch.Tensor, token_N: torch.Tensor) -> None:
    if hidden_ND.ndim != 2 or weight_VD.ndim != 2 or hidden_ND.shape[1] != weight_VD.shape[1]:
        shapes = f"have shapes {tuple(hidden_ND.shape)} and {tuple(weight_VD.shape)}"
        raise ParameterError("hidden_ND, weight_VD", shapes, "(N, D) and (V, D)")
    if hidden_ND.dtype not in _DTYPES or weight_VD.dtype != hidden_ND.dtype:
        types = f"are {hidden_ND.dtype} and {weight_VD.dtype}"
        raise ParameterError("hidden_ND, weight_VD", types, "both float32, both bfloat16 or both float64")
    if token_N.shape != hidden_ND.shape[:1]:
        raise ParameterError("token_N", f"has shape {tuple(token_N.shape)}", f"({len(hidden_ND)},)")
    if len(token_N) and bool(((token_N < 0) | (token_N >= len(weight_VD))).any()):
        span = f"has tokens from {int(token_N.min())} to {int(token_N.max())}"
        raise ParameterError("token_N", span, f"0 to {len(weight_VD) - 1}")


class _LinearLogp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's context
        hidden_ND: torch.Tensor,
        weight_VD: torch.Tensor,
        token_N: torch.Tensor,
        scale: float,
        n_bytes: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        logp_N, entropy_N, *normaliser = _forward(_Logits(hidden_ND, weight_VD, n_bytes), token_N, scale)
        ctx.save_for_backward(hidden_ND, weight_VD, token_N, *normaliser, entropy_N)
        ctx.scale, ctx.n_bytes = scale, n_bytes
        ctx.set_materialize_grads(False)
        return logp_N, entropy_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        hidden_ND, weight_VD, *values, entropy_N = ctx.saved_tensors
        # The temperature's share of every slope goes into the N factors, not into the N x V slopes.
        by_logp_N, by_entropy_N = (
            torch.zeros_like(entropy_N) if gradient is None else gradient * ctx.scale for gradient in gradients
        )
        # M tokens have a gradient: the others, clipped or masked, need no second look.
        index_M = ((by_logp_N != 0) | (by_entropy_N != 0)).nonzero()[:, 0]
        tokens = _Tokens(*(each[index_M] for each in (*values, entropy_N, by_logp_N, by_entropy_N)))
        if gradients[1] is None:
            tokens = tokens._replace(by_entropy_N=None)
        some = len(index_M) < len(hidden_ND)
        logits = _Logits(hidden_ND[index_M] if some else hidden_ND, weight_VD, ctx.n_bytes)
        needs_hidden, needs_weight, *_ = ctx.needs_input_grad
        grad_ND, grad_VD = _backward(logits, tokens, ctx.scale, needs_hidden, needs_weight)
        if grad_ND is not None:
            grad_ND = grad_ND.to(hidden_ND.dtype)
            grad_ND = torch.zeros_like(hidden_ND).index_copy_(0, index_M, grad_ND) if some else grad_ND
        return grad_ND, grad_VD, None, None, None


class _Logits:
    """Blocks of ``hidden weight^T``, n tokens x v of the vocabulary, in two buffers that every block uses again."""

    def __init__(self, hidden_ND: torch.Tensor, weight_VD: torch.Tensor, n_bytes: int) -> None:
        self.dtype = torch.float64 if hidden_ND.dtype == torch.float64 else torch.float32
        # CUDA multiplies bfloat16 into float32; elsewhere the factors themselves are made float32 first.
        self._mixed = hidden_ND.dtype != self.dtype and hidden_ND.is_cuda
        self.hidden_ND = hidden_ND if self._mixed else hidden_ND.to(self.dtype)
        self.weight_VD = weight_VD
        n_values = n_bytes // (2 * self.dtype.itemsize)
        self._n_rows, self._n_columns = _block_shape(len(hidden_ND), len(weight_VD), n_values)
        size = self._n_rows * self._n_columns
        self._buffers = [torch.empty(size, dtype=self.dtype, device=hidden_ND.device) for _ in range(2)]

    def vocabulary(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield each part of the vocabulary with its rows of the output matrix, in the type that is multiplied."""
        for start in range(0, len(self.weight_VD), self._n_columns):
            part = slice(start, min(start + self._n_columns, len(self.weight_VD)))
            yield part, self.weight_VD[part] if self._mixed else self.weight_VD[part].to(self.dtype)

    def tokens(self) -> Iterator[slice]:
        """Yield each part of the tokens."""
        for start in range(0, len(self.hidden_ND), self._n_rows):
            yield slice(start, min(start + self._n_rows, len(self.hidden_ND)))

    def block(self, rows: slice, weight_vD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Multiply, and return the logits before any temperature with a free buffer of their shape."""
        shape = (rows.stop - rows.start, len(weight_vD))
        logits_nv, free_nv = (buffer[: shape[0] * shape[1]].view(shape) for buffer in self._buffers)
        if self._mixed:
            torch.mm(self.hidden_ND[rows], weight_vD.t(), out_dtype=self.dtype, out=logits_nv)
        else:
            torch.mm(self.hidden_ND[rows], weight_vD.t(), out=logits_nv)
        return logits_nv, free_nv

    def factor(self, values: torch.Tensor) -> torch.Tensor:
        """Give float32 values the type that hidden states and matrix are multiplied in."""
        return values.to(self.hidden_ND.dtype)

    def add_product(self, total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
        """Add ``left right``, two factors, to `total`."""
        if self._mixed:
            total += torch.mm(left, right, out_dtype=self.dtype)
        else:
            total.addmm_(left, right)


def _block_shape(n_tokens: int, n_vocabulary: int, n_values: int) -> tuple[int, int]:
    """Near a square, whose products have the least traffic, as far as both sides are long enough."""
    rows = max(1, min(n_tokens, math.isqrt(n_values)))
    columns = max(1, min(n_vocabulary, n_values // rows))
    rows = max(1, min(n_tokens, n_values // columns))
    columns = _even_part(n_vocabulary, columns)
    if columns > 1024:
        columns = min(n_vocabulary, 64 * math.ceil(columns / 64))  # GPUs multiply aligned rows faster
    return _even_part(n_tokens, rows), columns


def _even_part(n: int, most: int) -> int:
    """Cut n into parts of like size, so that the last one is no splinter."""
    return math.ceil(n / math.ceil(n / most)) if n else 1


class _Tokens(NamedTuple):
    """What the backward pass knows of each token."""

    token_N: torch.Tensor
    top_N: torch.Tensor
    """Highest logit over the temperature."""
    sum_N: torch.Tensor
    """sum_v exp(z_v - top)."""
    entropy_N: torch.Tensor
    by_logp_N: torch.Tensor
    """Slope of the loss by the log-probability, over the temperature."""
    by_entropy_N: torch.Tensor | None
    """The same by the entropy; None when nobody asked for it."""

    def part(self, rows: slice) -> _Tokens:
        """Take some of the tokens."""
        return _Tokens(*(None if each is None else each[rows] for each in self))  # type: ignore[arg-type]


def _within(token_n: torch.Tensor, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Which tokens are of this part of the vocabulary, and their columns (any column for the others)."""
    column_n = token_n - part.start
    inside_n = (column_n >= 0) & (column_n < part.stop - part.start)
    return inside_n, column_n.where(inside_n, 0)[:, None]


def _forward(logits: _Logits, token_N: torch.Tensor, scale: float) -> tuple[torch.Tensor, ...]:
    def column(value: float) -> torch.Tensor:
        return torch.full(token_N.shape, value, dtype=logits.dtype, device=token_N.device)

    # Of exp(z - top): its sum, and its sum weighted with z - top. The lowest number, not -inf: -inf times 0 is NaN.
    top_N, sum_N, moment_N, chosen_N = column(torch.finfo(logits.dtype).min), column(0), column(0), column(0)
    for part, weight_vD in logits.vocabulary():
        for rows in logits.tokens():
            z_nv, exp_nv = logits.block(rows, weight_vD)
            inside_n, column_n1 = _within(token_N[rows], part)
            chosen_N[rows] += torch.where(inside_n, z_nv.gather(1, column_n1)[:, 0] * scale, 0)
            top_n = torch.maximum(top_N[rows], z_nv.amax(1) * scale)
            torch.add(-top_n[:, None], z_nv, alpha=scale, out=z_nv)
            torch.exp(z_nv, out=exp_nv)
            lower_n = top_N[rows] - top_n
            moment_N[rows] = lower_n.exp() * (moment_N[rows] + lower_n * sum_N[rows])
            sum_N[rows] = lower_n.exp() * sum_N[rows] + exp_nv.sum(1)
            moment_N[rows] += exp_nv.mul_(z_nv).sum(1)
            top_N[rows] = top_n
    # Never top + log sum, which would round the logarithm to the digits of the top. Rounding must not make a
    # probability above 1 or an entropy below 0 either.
    logp_N = (chosen_N - top_N - sum_N.log()).clamp_(max=0)
    return logp_N, (sum_N.log() - moment_N / sum_N).clamp_(min=0), top_N, sum_N


def _backward(
    logits: _Logits, tokens: _Tokens, scale: float, needs_hidden: bool, needs_weight: bool
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    hidden_ND, weight_VD = logits.hidden_ND, logits.weight_VD
    grad_ND = torch.zeros(hidden_ND.shape, dtype=logits.dtype, device=hidden_ND.device) if needs_hidden else None
    grad_VD = torch.zeros_like(weight_VD) if needs_weight else None
    for part, weight_vD in logits.vocabulary():
        # The rows themselves, or float32 rows that are rounded once all tokens are in them.
        grad_vD = None if grad_VD is None else grad_VD[part].to(logits.dtype)
        for rows in logits.tokens():
            slope_nv = logits.factor(_slope(*logits.block(rows, weight_vD), tokens.part(rows), part, scale))
            if grad_ND is not None:
                logits.add_product(grad_ND[rows], slope_nv, weight_vD)
            if grad_vD is not None:
                logits.add_product(grad_vD, slope_nv.t(), hidden_ND[rows])
        if grad_VD is not None and grad_vD is not None and grad_vD.dtype != grad_VD.dtype:
            grad_VD[part] = grad_vD
    return grad_ND, grad_VD


def _slope(z_nv: torch.Tensor, free_nv: torch.Tensor, tokens: _Tokens, part: slice, scale: float) -> torch.Tensor:
    """Slope of the loss by each logit, in one of the two buffers."""
    below_nv = torch.add(-tokens.top_N[:, None], z_nv, alpha=scale, out=z_nv)
    exp_nv = torch.exp(below_nv, out=free_nv)
    # With p = exp / sum and log p = below - log sum, all that is of one token goes into a factor and a constant.
    if tokens.by_entropy_N is None:
        slope_nv = exp_nv.mul_((-tokens.by_logp_N / tokens.sum_N)[:, None])
    else:
        constant_n = tokens.by_logp_N + tokens.by_entropy_N * (tokens.entropy_N - tokens.sum_N.log())
        slope_nv = below_nv.mul_((-tokens.by_entropy_N / tokens.sum_N)[:, None])
        slope_nv.sub_((constant_n / tokens.sum_N)[:, None]).mul_(exp_nv)
    inside_n, column_n1 = _within(tokens.token_N, part)
    return slope_nv.scatter_add_(1, column_n1, torch.where(inside_n, tokens.by_logp_N, 0)[:, None])
