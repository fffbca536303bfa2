"""What one update leaves behind: the rows of the run format's rollouts table, and the numbers of the step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from entropy_lab.rl.engine import Rollouts
from entropy_lab.rl.engine_agreement import sampler_agreement
from entropy_lab.rl.logprobs import TokenScores
from entropy_lab.rl.sequences import Sequences
from entropy_lab.rl.tokens import Tokens
from entropy_lab.rl.update import LossStatistics, Objective
from entropy_lab.solve_rates import solve_rates
from entropy_lab.tasks.task import Problem, Task, verify_all


@dataclass(frozen=True)
class Batch:
    """B = prompts x G verified rollouts of one update, those of a prompt side by side."""

    epoch: int
    """Pass over the training prompts, from 0."""
    source: str
    """Name of the task."""
    problems: list[Problem]
    """The problem of each rollout."""
    rollouts: Rollouts
    """What the engine sampled."""
    sequences: Sequences
    """Prompts and responses together."""
    completions: list[str]
    """Texts of the responses."""
    correct: list[bool | None]
    """The verifier's verdicts."""
    rewards: NDArray[np.float64]
    """Shape (prompts, G): 1 for correct, else 0."""

    @classmethod
    def verified(cls, epoch: int, task: Task, tokens: Tokens, asked: Sequence[Problem], rollouts: Rollouts) -> Batch:
        """Verify the responses to some problems, and put all together that is known of them.

        Parameters
        ----------
        epoch
            Pass over the training prompts.
        task
            Verifies.
        tokens
            Of the policy.
        asked
            The problems, one for each prompt.
        rollouts
            As many responses to each.
        """
        group_size = len(rollouts.n_tokens_B) // len(asked)
        problems = [problem for problem in asked for _ in range(group_size)]
        prompts = [prompt for problem in asked for prompt in [tokens.encode(problem.prompt)] * group_size]
        responses = rollouts.responses()
        completions = [tokens.decode(response) for response in responses]
        correct = verify_all(task, problems, completions, rollouts.truncated_B.tolist())
        rewards = np.array([float(verdict is True) for verdict in correct]).reshape(-1, group_size)
        sequences = Sequences.join(prompts, responses)
        return cls(epoch, task.name, problems, rollouts, sequences, completions, correct, rewards)


def rollout_columns(
    batch: Batch, before: TokenScores, after: TokenScores | None, advantage_B: torch.Tensor
) -> dict[str, Any]:
    """Lay out every column of the rollouts table that the writer does not fill.

    Parameters
    ----------
    batch
        B rollouts.
    before, after
        Scores of their tokens under the policy before and after the update; None leaves the latter's columns null.
    advantage_B
        Rollout-level advantages.

    Returns
    -------
    dict of str to array or list
        One entry a rollout. Sums over tokens are accumulated in float64.
    """
    n_rollouts, group_size = len(batch.problems), batch.rewards.shape[1]
    n_tokens_B = batch.rollouts.n_tokens_B.numpy()

    def summed(value_BT: torch.Tensor) -> NDArray[np.float64]:
        return value_BT.double().sum(1).numpy()

    def by_token(value_BT: torch.Tensor) -> list[NDArray[np.float32]]:
        return [row[:n] for row, n in zip(value_BT.numpy(), n_tokens_B, strict=True)]

    return {
        "epoch": np.full(n_rollouts, batch.epoch),
        "prompt_id": [problem.id for problem in batch.problems],
        "group_id": np.arange(n_rollouts) // group_size,
        "sample": np.arange(n_rollouts) % group_size,
        "reward": batch.rewards.reshape(-1),
        "correct": batch.correct,
        "advantage": advantage_B.numpy(),
        "n_tokens": n_tokens_B,
        "logp": summed(before.logp_BT),
        "logp_after": [None] * n_rollouts if after is None else summed(after.logp_BT),
        "sampler_logp": summed(batch.rollouts.logp_BT),
        "entropy": summed(before.entropy_BT) / n_tokens_B,
        "truncated": batch.rollouts.truncated_B.numpy(),
        "source": [batch.source] * n_rollouts,
        "prompt": [problem.prompt for problem in batch.problems],
        "completion": batch.completions,
        "answer": [problem.answer for problem in batch.problems],
        "token_ids": batch.rollouts.responses(),
        "token_logp": by_token(before.logp_BT),
        "token_logp_after": [None] * n_rollouts if after is None else by_token(after.logp_BT),
        "token_entropy": by_token(before.entropy_BT),
    }


def step_metrics(batch: Batch, before: TokenScores) -> dict[str, float]:
    """Reduce a step's rollouts to the numbers of ``metrics.jsonl``.

    Parameters
    ----------
    batch
        B rollouts.
    before
        Scores of their tokens under the policy before the update.

    Returns
    -------
    dict of str to float
        ``entropy`` is the mean over tokens; ``n_tokens`` a sum; ``all_solved`` and ``none_solved`` are shares of the
        groups with a verdict whose verdicts are all right or all wrong, null without such a group; the agreement of
        engine and trainer as `sampler_agreement` has it; the others are means over rollouts.
    """
    n_tokens_B = batch.rollouts.n_tokens_B.double()
    verified = np.array([verdict is not None for verdict in batch.correct], np.float64).reshape(batch.rewards.shape)
    rates = solve_rates(batch.rewards.sum(1), verified.sum(1))
    return {
        "entropy": float(before.entropy_BT.double().sum() / n_tokens_B.sum()),
        "reward": float(batch.rewards.mean()),
        "n_tokens": int(n_tokens_B.sum()),
        "mean_length": float(n_tokens_B.mean()),
        "truncated": float(batch.rollouts.truncated_B.double().mean()),
        "all_solved": rates.all_solved,
        "none_solved": rates.none_solved,
        "unverified": sum(verdict is None for verdict in batch.correct) / len(batch.correct),
        **sampler_agreement(batch.rollouts.logp_BT, before.logp_BT, batch.sequences.mask_BT),
    }


def update_metrics(taken: Sequence[LossStatistics], norms: Sequence[float], objective: Objective) -> dict[str, float]:
    """Reduce an update's gradient steps to the numbers of ``metrics.jsonl``.

    Parameters
    ----------
    taken
        Of each mini-batch.
    norms
        Norm of each mini-batch's gradient.
    objective
        What was maximised: options that are off have no numbers.

    Returns
    -------
    dict of str to float
        Extremes over the mini-batches for the ratio, and means over the mini-batches for the others; ``skipped`` is a
        share of the rollouts.

    Examples
    --------
    >>> taken = [LossStatistics(1.0, 0.0, 0.1, 0.9, 1.1, 0.5), LossStatistics(3.0, 0.0, 0.3, 0.5, 1.0, 0.0)]
    >>> found = update_metrics(taken, [1.0, 2.0], Objective("token-mean", 26))
    >>> found["loss"], found["grad_norm"], found["ratio_min"], found["ratio_max"], found["skipped"]
    (2.0, 1.5, 0.5, 1.1, 0.25)
    """
    optional = {
        "clip_fraction_dual": objective.dual_clip is not None,
        "chosen_fraction": objective.clip_cov is not None or objective.kl_cov is not None,
        "reference_kl": objective.kl_coef > 0,
    }
    return {
        "loss": float(np.mean([each.loss for each in taken])),
        "grad_norm": float(np.mean(norms)),
        "clip_fraction_low": float(np.mean([each.clip_fraction_low for each in taken])),
        "clip_fraction_high": float(np.mean([each.clip_fraction_high for each in taken])),
        "ratio_min": min(each.ratio_min for each in taken),
        "ratio_max": max(each.ratio_max for each in taken),
        "skipped": float(np.mean([each.skipped for each in taken])),
        **{name: float(np.mean([getattr(each, name) for each in taken])) for name, on in optional.items() if on},
    }
