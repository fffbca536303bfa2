"""Matrix products through oneDNN, where PyTorch has it: on some processors its own choice is half as fast."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import nn


def use_onednn(model: nn.Module) -> bool:
    """Send the linear layers' products, forward and backward, through oneDNN.

    PyTorch multiplies float32 matrices with MKL, which reaches 100 GFLOP/s a core on AMD processors with AVX-512 where
    oneDNN reaches 240; a training step of the tiny policy takes a third less time. Results differ in the last bits.

    Parameters
    ----------
    model
        Changed in place: its linear layers without bias. The weights stay the same objects.

    Returns
    -------
    bool
        False, with nothing changed, when this PyTorch was built without oneDNN.

    Examples
    --------
    >>> layer = nn.Sequential(nn.Linear(4, 3, bias=False))
    >>> inputs = torch.ones(2, 4)
    >>> before = layer(inputs)
    >>> _ = use_onednn(layer)
    >>> torch.allclose(layer(inputs), before)
    True
    """
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not (has_onednn and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return False
    for module in model.modules():
        if type(module) is nn.Linear and module.bias is None:
            module.__class__ = _OneDnnLinear
    return True


_ROWS: Final = 64
"""oneDNN takes a millisecond to prepare for each new number of rows: it pays for those that recur, whole blocks."""


class _OneDnnLinear(nn.Linear):
    """A linear layer without bias; the class of an existing layer is changed to it, so weights and names stay."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        # Autocast knows nothing of this operator: under it, types would not match, or stay float32 unnoticed.
        if input[..., 0].numel() % _ROWS or torch.is_autocast_enabled(input.device.type):
            return super().forward(input)
        product: torch.Tensor = _Product.apply(input, self.weight)  # type: ignore[no-untyped-call]
        return product


class _Product(torch.autograd.Function):
    """``x @ weight.T`` with its two gradients, each one oneDNN call (the operator itself has no gradient)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - torch's context
        ctx.save_for_backward(x, weight)
        return _multiply(x, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: ANN401
        x, weight = ctx.saved_tensors
        gradient = gradients[0]
        rows = gradient.reshape(-1, gradient.shape[-1])
        return _multiply(gradient, weight.t()), _multiply(rows.t(), x.reshape(-1, x.shape[-1]).t())


def _multiply(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return product
