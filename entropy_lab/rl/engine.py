"""What the trainer asks of a rollout engine, so that another one can take the place of the embedded one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from entropy_lab.errors import ParameterError


@dataclass(frozen=True)
class Rollouts:
    """Responses to B = P * n prompts, the n responses to one prompt side by side.

    Parameters
    ----------
    token_ids_BT
        Response tokens, int64, padded on the right.
    logp_BT
        Log-probability of each token at the sampling temperature as the engine saw it, float32, 0 at padding.
    n_tokens_B
        Response tokens of each row, end-of-sequence included when sampled, int64.
    truncated_B
        True where the length limit came before end-of-sequence.
    entropy_BT
        Entropy in nats of the distribution that each token was drawn from, over the whole vocabulary at the sampling
        temperature, 0 at padding; None from an engine that does not tell.

    Examples
    --------
    >>> two = Rollouts(torch.tensor([[5, 1], [1, 0]]), torch.zeros(2, 2), torch.tensor([2, 1]), torch.zeros(2).bool())
    >>> two.responses()
    [[5, 1], [1]]
    """

    token_ids_BT: torch.Tensor
    logp_BT: torch.Tensor
    n_tokens_B: torch.Tensor
    truncated_B: torch.Tensor
    entropy_BT: torch.Tensor | None = None

    def responses(self) -> list[list[int]]:
        """Token ids of each response, without padding."""
        rows = zip(self.token_ids_BT.tolist(), self.n_tokens_B.tolist(), strict=True)
        return [ids[:n_tokens] for ids, n_tokens in rows]


def require_possible(prompts: Sequence[Sequence[int]], n: int, temperature: float, max_new_tokens: int) -> None:
    """Refuse what no engine can answer.

    Parameters
    ----------
    prompts, n, temperature, max_new_tokens
        As in `RolloutEngine.generate`.

    Raises
    ------
    ParameterError
        When there is no prompt, a prompt is empty, or `n`, `temperature` or `max_new_tokens` is not positive.
    """
    if not prompts or not all(prompts):
        raise ParameterError("prompts", "are missing or have an empty one", "one token or more in each")
    for name, value in (("n", n), ("temperature", temperature), ("max_new_tokens", max_new_tokens)):
        if not value > 0:
            raise ParameterError(name, f"is {value}", "above 0")


class RolloutEngine(Protocol):
    """Samples responses from the policy whose weights it was last given."""

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
        """Answer each prompt `n` times; equal `generator` states give equal rollouts."""
        ...

    def update_weights(self, model: nn.Module) -> None:
        """Take over the policy's weights: everything generated from now on comes from them."""
        ...
