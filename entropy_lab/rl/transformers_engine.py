"""The embedded rollout engine: a sampling loop over transformers' own model and key-value cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from entropy_lab.rl.engine import Rollouts, require_possible
from entropy_lab.rl.precision import autocast, device_of
from entropy_lab.tasks.task import EOS, PAD


class TransformersEngine:
    """Samples with the trainer's own model object, so its log-probabilities are those of the trainer.

    The prompt is read once for all its responses; responses that have ended leave the batch, so that a step costs as
    much as the responses still open.

    Parameters
    ----------
    model
        A causal language model of transformers with a dynamic key-value cache.
    stop_ids
        Tokens that end a response.
    batch_size
        Most rows that are sampled side by side; the default keeps the key-value cache of a tiny model in the
        processor's cache.

    Examples
    --------
    >>> from entropy_lab.rl.model import ModelSizes, build_model
    >>> engine = TransformersEngine(build_model(ModelSizes(), vocabulary_size=20, seed=0))
    >>> drawn = engine.generate([[5, 6]], 3, temperature=1.0, max_new_tokens=4, generator=torch.Generator())
    >>> drawn.token_ids_BT.shape[0], bool((drawn.logp_BT <= 0).all())
    (3, True)
    """

    def __init__(self, model: nn.Module, *, stop_ids: Sequence[int] = (EOS,), batch_size: int = 512) -> None:
        self._model: Any = model
        self._stop_S = torch.tensor(stop_ids)
        self._batch_size = batch_size

    def update_weights(self, model: nn.Module) -> None:
        """Sample from `model` from now on.

        Parameters
        ----------
        model
            The policy. Nothing is copied: updates made to this object in place are seen at once.
        """
        self._model = model

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        n: int,
        *,
        temperature: float,
        max_new_tokens: int,
        generator: torch.Generator | None = None,
        greedy: bool = False,
    ) -> Rollouts:
        """Answer each prompt `n` times.

        Parameters
        ----------
        prompts
            Token ids of P prompts, of any lengths above 0.
        n
            Responses to each prompt.
        temperature
            Divides the logits before sampling, above 0; `logp_BT` is at this temperature.
        max_new_tokens
            Length limit of a response, end-of-sequence included.
        generator
            Source of randomness; the global one when left out.
        greedy
            Take the most probable token instead of sampling.

        Returns
        -------
        Rollouts
            P * n rows; rows ``i * n`` to ``(i + 1) * n - 1`` answer prompt i.

        Raises
        ------
        ParameterError
            When there is no prompt, a prompt is empty, or `n`, `temperature` or `max_new_tokens` is not positive.
        """
        require_possible(prompts, n, temperature, max_new_tokens)
        n_rows, at_once = len(prompts) * n, max(1, self._batch_size // n)
        token_ids_BT = torch.full((n_rows, max_new_tokens), PAD)
        logp_BT, entropy_BT = torch.zeros(n_rows, max_new_tokens), torch.zeros(n_rows, max_new_tokens)
        n_tokens_B = torch.full((n_rows,), max_new_tokens)
        truncated_B = torch.ones(n_rows, dtype=torch.bool)
        generator = _on(device_of(self._model), generator)
        for first in range(0, len(prompts), at_once):
            open_rows = _OpenRows(self._model, prompts[first : first + at_once], n, first * n)
            for t in range(max_new_tokens):
                distribution_BV = torch.log_softmax(open_rows.logits_BV.float() / temperature, dim=-1)
                chosen_B = _choose(distribution_BV, generator, greedy)
                logp_BT[open_rows.index_B, t] = distribution_BV.gather(1, chosen_B[:, None])[:, 0].cpu()
                entropy_BT[open_rows.index_B, t] = -(distribution_BV.exp() * distribution_BV).sum(-1).cpu()
                token_B = chosen_B.cpu()
                token_ids_BT[open_rows.index_B, t] = token_B
                ends_B = torch.isin(token_B, self._stop_S)
                ended = open_rows.index_B[ends_B]
                n_tokens_B[ended], truncated_B[ended] = t + 1, False
                if t + 1 == max_new_tokens or bool(ends_B.all()):
                    break
                open_rows.go_on(token_B, ~ends_B)
        width = int(n_tokens_B.max())
        scores = [logp_BT[:, :width], entropy_BT[:, :width]]
        return Rollouts(token_ids_BT[:, :width], scores[0], n_tokens_B, truncated_B, scores[1])


def _choose(distribution_BV: torch.Tensor, generator: torch.Generator | None, greedy: bool) -> torch.Tensor:
    if greedy:
        return distribution_BV.argmax(dim=-1)
    return torch.multinomial(distribution_BV.exp(), 1, generator=generator)[:, 0]


def _on(device: torch.device, generator: torch.Generator | None) -> torch.Generator | None:
    """Give a generator of the device that follows from one of the processor."""
    if generator is None or generator.device.type == device.type:
        return generator
    return torch.Generator(device).manual_seed(int(torch.randint(2**62, (1,), generator=generator)))


class _OpenRows:
    """The responses of a chunk that have not ended: their row numbers, next-token logits and key-value cache."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], n: int, first_row: int) -> None:  # noqa: ANN401
        """Read the prompts once, padded on the left, and repeat what was read for `n` responses to each."""
        length_P = torch.tensor([len(prompt) for prompt in prompts])
        width = int(length_P.max())
        ids_PS = torch.tensor([[PAD] * (width - len(prompt)) + list(prompt) for prompt in prompts])
        attention_PS = (torch.arange(width) >= width - length_P[:, None]).long()
        # Without padding there is no mask: the attention kernel is faster without one.
        padded = not bool(attention_PS.all())
        self._model, self._cache, self._device = model, DynamicCache(config=model.config), device_of(model)
        with autocast(model):
            output = model(
                input_ids=ids_PS.to(self._device),
                attention_mask=attention_PS.to(self._device) if padded else None,
                position_ids=(attention_PS.cumsum(1) - 1).clamp(min=0).to(self._device),
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        self._cache.batch_repeat_interleave(n)
        self._attention_BS = attention_PS.repeat_interleave(n, 0) if padded else None
        self._position_B = length_P.repeat_interleave(n)
        self.logits_BV: torch.Tensor = output.logits[:, -1].repeat_interleave(n, 0)
        self.index_B = torch.arange(first_row, first_row + len(self._position_B))

    def go_on(self, token_B: torch.Tensor, open_B: torch.Tensor) -> None:
        """Append a token to each row, drop the rows that are not open, and predict the next token of the others."""
        stay = open_B.nonzero()[:, 0]
        if len(stay) < len(token_B):
            token_B, self.index_B, self._position_B = token_B[stay], self.index_B[stay], self._position_B[stay]
            self._cache.batch_select_indices(stay.to(self._device))
            self._attention_BS = None if self._attention_BS is None else self._attention_BS[stay]
        if self._attention_BS is not None:
            self._attention_BS = torch.nn.functional.pad(self._attention_BS, (0, 1), value=1)
        mask_BS = self._attention_BS
        with autocast(self._model):
            output = self._model(
                input_ids=token_B[:, None].to(self._device),
                attention_mask=None if mask_BS is None else mask_BS.to(self._device),
                position_ids=self._position_B[:, None].to(self._device),
                past_key_values=self._cache,
                use_cache=True,
            )
        self._position_B = self._position_B + 1
        self.logits_BV = output.logits[:, -1]
