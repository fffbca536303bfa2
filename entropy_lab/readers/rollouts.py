"""Rollouts as token-level sources give them, and the frame that they make: masked tokens, totals, groups, verdicts."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from entropy_lab.prompt_names import prompt_ids
from entropy_lab.readers.columns import frame_of, series, with_kept
from entropy_lab.readers.groups import group_numbers, ordered_groups, sample_numbers
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.verdicts import as_verdict, explicit_verdict

Tokens = Mapping[str, NDArray[Any] | None]
"""``token_ids``, ``token_logp``, ``token_sampler_logp``, ``token_entropy``, ``token_advantage`` -> one value a token of
the response; ``prompt_token_ids`` -> the prompt's ids."""

_IDS: Final = ("token_ids", "prompt_token_ids")

_TOTALS: Final = {"token_logp": "logp", "token_sampler_logp": "sampler_logp"}
_MEANS: Final = {"token_entropy": "entropy", "token_advantage": "advantage"}


@dataclass
class Rollout:
    """One rollout of a source.

    Parameters
    ----------
    prompt
        What tells its prompt from others: the text, or the token ids as text.
    group
        What tells its group from others of the step; None when the source does not say.
    tokens
        Of the response, without padding and without tokens that the policy did not sample; and the prompt's ids.
    ours
        Columns of ``schema.ROLLOUTS``: ``reward``, ``truncated``, ``completion``, …; None is null.
    theirs
        What else the source has.
    """

    prompt: str
    group: Hashable | None = None
    tokens: Tokens = field(default_factory=dict)
    ours: Mapping[str, Any] = field(default_factory=dict)
    theirs: Mapping[str, Any] = field(default_factory=dict)


def token_text(ids: NDArray[np.int64]) -> str:
    """Name a prompt by its token ids.

    Examples
    --------
    >>> token_text(np.array([11, 13, 10]))
    '11 13 10'
    """
    return " ".join(map(str, ids.tolist()))


def masked(values: NDArray[Any] | None, mask: NDArray[np.bool_]) -> NDArray[Any] | None:
    """Keep the values where the mask is on; None stays None.

    Examples
    --------
    >>> masked(np.array([0.0, -1.5]), np.array([False, True])).tolist()
    [-1.5]
    """
    return None if values is None else values[mask]


def prompt_of(ids: NDArray[np.int64], mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], bool]:
    """Tell what stood before the first sampled token, and whether others stand between the sampled ones.

    Parameters
    ----------
    ids
        A whole sequence, shape (tokens,).
    mask
        Tokens that the policy sampled, shape (tokens,).

    Returns
    -------
    tuple of (ndarray, bool)
        Ids of the prompt; True when the response was interrupted, as by the output of a tool.

    Examples
    --------
    >>> ids, mask = np.array([7, 8, 9, 5]), np.array([False, True, False, True])
    >>> prompt_of(ids, mask)[0].tolist(), prompt_of(ids, mask)[1]
    ([7], True)
    """
    places = np.flatnonzero(mask)
    if not len(places):
        return ids, False
    return ids[: places[0]], len(places) <= int(places[-1] - places[0])


def token_columns(rows: Sequence[Tokens]) -> list[pl.Series]:
    """Hold per-token values as lists, with their totals a rollout.

    The sum of log-probabilities and the mean of entropies and advantages are null where a token has no finite value.
    Advantages that are equal over every rollout's tokens are not kept as lists.

    Parameters
    ----------
    rows
        One a rollout.

    Returns
    -------
    list of polars.Series
        The lists that any rollout has, ``n_tokens``, ``logp``, ``sampler_logp``, ``entropy``, ``advantage``.

    Examples
    --------
    >>> rows = [{"token_ids": np.array([5, 6]), "token_logp": np.array([-1.0, -0.5])}]
    >>> [(column.name, column.to_list()) for column in token_columns(rows)]
    [('token_ids', [[5, 6]]), ('n_tokens', [2]), ('token_logp', [[-1.0, -0.5]]), ('logp', [-1.5])]
    """
    columns: list[pl.Series] = []
    for name in (*_IDS, *_TOTALS, *_MEANS):
        values = [row.get(name) for row in rows]
        if all(value is None for value in values):
            continue
        if name in _IDS:
            columns.append(_lists(name, values, pl.Int64()))
            if name == "token_ids":
                columns.append(pl.Series("n_tokens", [None if value is None else len(value) for value in values]))
            continue
        if name != "token_advantage" or any(value is not None and (value != value[:1]).any() for value in values):
            columns.append(_lists(name, values, pl.Float32()))
        total = [_total(value, name) for value in values]
        columns.append(pl.Series({**_TOTALS, **_MEANS}[name], total, dtype=pl.Float64))
    return columns


def _lists(name: str, values: Sequence[NDArray[Any] | None], dtype: pl.DataType) -> pl.Series:
    """Hold arrays as lists, NaN as null; None stays None, apart from the empty list."""
    n_values = np.array([0 if value is None else len(value) for value in values])
    flat = np.concatenate([value for value in values if value is not None])
    rows = np.repeat(np.arange(len(values)), n_values)
    tokens = pl.DataFrame({"row": rows, "values": pl.Series(flat, nan_to_null=True, dtype=dtype)})
    held = tokens.group_by("row", maintain_order=True).agg("values")
    frame = pl.DataFrame({"row": np.arange(len(values)), "there": [value is not None for value in values]})
    whole = frame.join(held, on="row", how="left", maintain_order="left")
    lists = pl.when("there").then(pl.col("values").fill_null(pl.lit([], pl.List(dtype)))).alias(name)
    return whole.select(lists).to_series()


def _total(values: NDArray[Any] | None, name: str) -> float | None:
    """Give the sum or mean; None when there are no values, one is missing, or it would be the mean over no token."""
    if values is None or (not len(values) and name in _MEANS) or not np.isfinite(values).all():
        return None
    return float(np.sum(values) if name in _TOTALS else np.mean(values))


def all_zero(rollouts: Sequence[Rollout], name: str) -> bool:
    """Tell whether a field was never filled: every value of every rollout is exactly zero.

    Examples
    --------
    >>> all_zero([Rollout("a", tokens={"token_logp": np.zeros(3)})], "token_logp")
    True
    """
    values = [value for rollout in rollouts if (value := rollout.tokens.get(name)) is not None and len(value)]
    return bool(values) and not any(value.any() for value in values)


def without(rollouts: Sequence[Rollout], name: str) -> list[Rollout]:
    """Leave a token-level field out of every rollout.

    Examples
    --------
    >>> without([Rollout("a", tokens={"token_logp": np.zeros(3)})], "token_logp")[0].tokens
    {}
    """
    return [
        Rollout(
            one.prompt,
            one.group,
            {key: value for key, value in one.tokens.items() if key != name},
            one.ours,
            one.theirs,
        )
        for one in rollouts
    ]


def write_rollouts(sink: Sink, step: int, rollouts: Sequence[Rollout], where: str, size: int = 0) -> None:
    """Give the sink the rollouts of a step.

    Where no row names its group, groups are ``size`` rows in order, or what equal prompts suggest. Without any reward
    the column is absent, and ``correct`` is null.

    Parameters
    ----------
    sink
        Takes the step.
    step
        The source's.
    rollouts
        In the order of the source's rows.
    where
        Names the source in messages.
    size
        Group size that the source's settings state; 0 when they do not.
    """
    if not rollouts:
        sink.warn(f"{where}: is empty: step {step} has no rollouts")
        return
    prompts = [rollout.prompt for rollout in rollouts]
    labels = [rollout.group for rollout in rollouts]
    groups = ordered_groups(prompts, size) if None in labels else group_numbers(labels)
    raw = frame_of([rollout.theirs for rollout in rollouts])
    sink.meet(raw.columns)
    names = dict.fromkeys(name for rollout in rollouts for name in rollout.ours)
    columns = {name: series(name, [rollout.ours.get(name) for rollout in rollouts]) for name in names}
    columns |= {column.name: column for column in token_columns([rollout.tokens for rollout in rollouts])}
    columns |= {
        "prompt_id": pl.Series("prompt_id", prompt_ids(prompts)),
        "group_id": pl.Series("group_id", groups),
        "sample": pl.Series("sample", sample_numbers(groups)),
    }
    sink.rollouts(step, _judged(columns, raw, sink), where)


def _judged(columns: dict[str, pl.Series], raw: pl.DataFrame, sink: Sink) -> pl.DataFrame:
    """Add reward, verdict and the source's own columns."""
    theirs = sink.options.theirs("reward")
    if theirs != "reward" and theirs in raw.columns:
        columns["reward"] = raw[theirs].alias("reward")
    if verdict := explicit_verdict(raw, sink.options):
        columns["correct"] = as_verdict(raw[verdict]).alias("correct")
        sink.note(f"`correct` is the column {verdict}")
    height = len(columns["prompt_id"])
    if "reward" in columns and columns["reward"].null_count() == height:
        del columns["reward"]
    if "reward" not in columns and "correct" not in columns:
        columns["correct"] = pl.Series("correct", [None] * height, dtype=pl.Boolean)
    return with_kept(columns, raw, sink.framework)
