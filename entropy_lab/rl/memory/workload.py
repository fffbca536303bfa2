"""The settings of a training run that its memory and its number of tokens depend on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Settings of a trainer that memory and the number of tokens depend on, by the names that they have there."""

    steps: int
    """Policy updates."""
    prompts_per_step: int
    """Prompts sampled for an update."""
    group_size: int
    """Rollouts of each prompt."""
    prompt_tokens: int
    """Tokens of the longest prompt."""
    max_new_tokens: int
    """Length limit of a response."""
    micro_batch: int
    """Most rollouts of one backward pass."""
    micro_tokens: int = 0
    """Most tokens of one such pass; 0 for no limit."""
    rollout_batch: int = 512
    """Most responses that the embedded engine samples side by side."""
    held_out: int = 0
    """Problems of a validation pass; 0 for none."""
    eval_samples: int = 0
    """Sampled answers to each of them, beside the greedy one."""
    ppo_epochs: int = 1
    """Passes over an update's rollouts."""
    gradient_checkpointing: bool = False
    """Whether blocks are computed again in the backward pass."""
    kl_coef: float = 0.0
    """Not 0: there is a frozen reference."""
    checkpoint_every: int = 0
    """Not 0: checkpoints are written, the last update's at least."""
    engine: str = "transformers"
    """The embedded engine, or vllm."""
    gpu_memory_utilization: float = 0.0
    """Share of a GPU for vLLM."""
    kv_cache_memory_bytes: int | None = None
    """Of vLLM, in place of a share."""

    @classmethod
    def of(cls, config: Any, prompt_tokens: int, held_out: int = 0) -> Workload:  # noqa: ANN401 - a trainer's own
        """Take the settings from a trainer's configuration.

        Parameters
        ----------
        config
            With settings of these names, those of ``model`` and ``vllm`` in parts of these names.
        prompt_tokens
            Tokens of the longest prompt.
        held_out
            Problems of a validation pass.
        """
        known: dict[str, Any] = {}
        for part in (getattr(config, "vllm", None), getattr(config, "model", None), config):
            known |= {each.name: getattr(part, each.name) for each in fields(cls) if hasattr(part, each.name)}
        return cls(**known | {"prompt_tokens": prompt_tokens, "held_out": held_out})

    @property
    def width(self) -> int:
        """Tokens of the longest sequence."""
        return self.prompt_tokens + self.max_new_tokens

    @property
    def rollouts(self) -> int:
        """Rollouts of an update."""
        return self.prompts_per_step * self.group_size

    @property
    def micro_width(self) -> int:
        """Tokens of the largest backward pass: a sequence that is longer than `micro_tokens` has one of its own."""
        whole = min(self.micro_batch, self.rollouts) * self.width
        return max(self.width, min(whole, self.micro_tokens)) if self.micro_tokens else whole

    @property
    def side_by_side(self) -> int:
        """Most responses that the embedded engine samples together, in training or validation; whole groups."""
        asked = ((self.prompts_per_step, self.group_size), (self.held_out, 1), (self.held_out, self.eval_samples))
        return max(min(prompts, max(1, self.rollout_batch // n)) * n for prompts, n in asked if n)


def tokens_of(load: Workload) -> Iterator[str]:
    """Say how many rollouts and tokens a run has.

    Parameters
    ----------
    load
        The settings.

    Yields
    ------
    str
        A line on an update, and one on the whole run; validation is not counted.

    Examples
    --------
    >>> load = Workload(
    ...     steps=10, prompts_per_step=4, group_size=8, prompt_tokens=20, max_new_tokens=80, micro_batch=8
    ... )
    >>> print(*tokens_of(load), sep=chr(10))
    an update: 4 prompts x 8 = 32 rollouts, at most 2,560 response tokens
    10 updates: 320 rollouts, at most 25,600 response tokens
    """
    rollouts = load.rollouts
    tokens = rollouts * load.max_new_tokens
    each = f"{load.prompts_per_step:,} prompts x {load.group_size} = {rollouts:,} rollouts"
    passes = f", {load.ppo_epochs} times each" if load.ppo_epochs > 1 else ""
    yield f"an update: {each}{passes}, at most {tokens:,} response tokens"
    yield f"{load.steps:,} updates: {load.steps * rollouts:,} rollouts, at most {load.steps * tokens:,} response tokens"
