"""slime's scalars: of rollouts and of gradient steps, which slime counts apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from entropy_lab.readers.scalars import Dialect, Scalars
from entropy_lab.readers.sink import Sink

DIALECT: Final = Dialect(
    signature=frozenset(
        {
            "rollout/raw_reward",
            "rollout/truncated_ratio",
            "rollout/response_len/mean",
            "train/train_rollout_logprob_abs_diff",
            "train/lr-pg_0",
        }
    ),
    # rollout/entropy and train/entropy_loss are means over responses of means over tokens: not our mean over tokens.
    names={
        "rollout/raw_reward": "reward",
        "rollout/response_len/mean": "mean_length",
        "rollout/truncated_ratio": "truncated",
        "train/grad_norm": "grad_norm",
        "train/lr-pg_0": "lr",
    },
)

_OLDER: Final = {
    "rollout/response_lengths": "rollout/response_len/mean",
    "rollout/truncated": "rollout/truncated_ratio",
}
"""Name of older releases -> the one that counts where both are logged: it leaves out what a tool wrote."""

_COUNTERS: Final = ("rollout/step", "train/step", "eval/step")


def names_of(rows: Scalars) -> Mapping[str, str]:
    """Give the names that mean the same as ours, those of older releases where there are no others.

    Examples
    --------
    >>> names_of({0: {"rollout/truncated": 0.1}})["rollout/truncated"]
    'truncated'
    """
    known = {name for row in rows.values() for name in row}
    older = {old: DIALECT.names[new] for old, new in _OLDER.items() if old in known and new not in known}
    return {**DIALECT.names, **older}


def by_rollout(rows: Scalars, settings: Mapping[str, Any], sink: Sink) -> Scalars:
    """Put the scalars of gradient steps to the rollouts that they used.

    slime counts gradient steps through the whole run: of k a rollout, those of rollout r are r·k, …, r·k + k - 1.
    Rollouts are counted one by one or, with ``wandb_always_use_train_step``, by their first gradient step.

    Parameters
    ----------
    rows
        The source's step -> name -> value.
    settings
        slime's arguments, as far as a log holds them: ``num_steps_per_rollout``.
    sink
        Takes a note when k is above 1.

    Returns
    -------
    dict
        Rollout -> name -> value; of several gradient steps the mean.
    """
    gradient: Scalars = {}
    others: Scalars = {}
    for step, row in rows.items():
        for name, value in row.items():
            if name not in _COUNTERS:
                (gradient if name.startswith("train/") else others).setdefault(step, {})[name] = value
    drawn = sorted(step for step, row in others.items() if any(name.startswith(("rollout/", "perf/")) for name in row))
    size, stride = _steps_a_rollout(sorted(gradient), drawn, settings)
    if size == 1:
        return {step: {**others.get(step, {}), **gradient.get(step, {})} for step in sorted({*others, *gradient})}
    sink.note(f"{size} gradient steps a rollout: scalars of train/ are the mean over those of each rollout")
    out = {step // stride: dict(row) for step, row in others.items()}
    parts: dict[int, dict[str, list[float]]] = {}
    for step, row in gradient.items():
        for name, value in row.items():
            parts.setdefault(step // size, {}).setdefault(name, []).append(value)
    for rollout, values in parts.items():
        out.setdefault(rollout, {}).update({name: sum(part) / len(part) for name, part in values.items()})
    return dict(sorted(out.items()))


def _steps_a_rollout(gradient: Sequence[int], drawn: Sequence[int], settings: Mapping[str, Any]) -> tuple[int, int]:
    """Give the gradient steps a rollout, and the distance of the rollouts' numbers: from settings, else as they are."""
    if not gradient or not drawn:
        return 1, 1
    stride = min((later - earlier for earlier, later in pairwise(drawn)), default=1)
    dense = min((later - earlier for earlier, later in pairwise(gradient)), default=1)
    if stride > 1 and dense == 1 and all(step % stride == 0 for step in drawn):
        return stride, stride
    stated = settings.get("num_steps_per_rollout")
    if isinstance(stated, int) and stated > 0:
        return stated, 1
    n_gradient, n_drawn = gradient[-1] + 1, drawn[-1] + 1
    if n_gradient <= 1.5 * n_drawn:  # a log that was cut off may lack the last rollout
        return 1, 1
    return next(size for size in range(2, n_gradient + 1) if gradient[-1] // size < n_drawn), 1
