"""Which rollouts of a step are a group, and what their verdicts are."""

from __future__ import annotations

import polars as pl

from entropy_lab.errors import ParameterError


def require_one_prompt(frame: pl.DataFrame) -> None:
    """Refuse a group's name that stands beside two prompts.

    Parameters
    ----------
    frame
        Rollouts of one process: two ranks may use the same name for groups of their own.

    Raises
    ------
    ParameterError
        It does.

    Examples
    --------
    >>> require_one_prompt(pl.DataFrame({"_group": ["0", "0"], "prompt_id": ["a", "b"]}))
    Traceback (most recent call last):
    entropy_lab.errors.ParameterError: groups: '0' has rollouts of 2 prompts; one prompt a group
    """
    if "_group" in frame.columns:
        prompts = frame.group_by("_group", maintain_order=True).agg(pl.col("prompt_id").n_unique())
        several = prompts.filter(pl.col("prompt_id") > 1)
        if several.height:
            name, n = several.row(0)
            raise ParameterError("groups", f"{name!r} has rollouts of {n} prompts", "one prompt a group")


def with_groups(frame: pl.DataFrame, group_size: int | None) -> pl.DataFrame:
    """Give numbers to the groups of a whole step, in the order in which they begin, and to the rollouts in each.

    Parameters
    ----------
    frame
        All rollouts of the step, with ``prompt_id`` and, where the loop named them, ``group``.
    group_size
        Rollouts of a group; None when it may differ.

    Returns
    -------
    DataFrame
        With ``group_id`` and ``sample``, without ``group``. Groups are rows of one prompt that share their name; else
        `group_size` neighbours; else all rollouts of a prompt.

    Raises
    ------
    ParameterError
        Neighbours are of several prompts, or a group is larger than `group_size`.

    Examples
    --------
    >>> frame = pl.DataFrame({"prompt_id": ["b", "a", "b", "a"]})
    >>> with_groups(frame, None).select("group_id", "sample").rows()
    [(0, 0), (1, 0), (0, 1), (1, 1)]
    """
    frame = frame.with_row_index("_row")
    if group_size and "_group" not in frame.columns:
        if frame.height % group_size:
            wrong = f"is {group_size}, and the step has {frame.height} rollouts"
            raise ParameterError("group_size", wrong, "a divisor", "name groups that differ in size with groups=")
        frame = frame.with_columns((pl.col("_row") // group_size).cast(pl.Int64).alias("group_id"))
        mixed = frame.group_by("group_id").agg(pl.col("prompt_id").n_unique()).filter(pl.col("prompt_id") > 1)
        if mixed.height:
            first = int(mixed["group_id"].min()) * group_size  # type: ignore[arg-type]
            wrong = f"is {group_size}, and rollouts {first} to {first + group_size - 1} are of several prompts"
            hint = "name the groups with groups=, or leave group_size out"
            raise ParameterError("group_size", wrong, "neighbours of one prompt", hint)
    else:
        key = pl.struct("_group", "prompt_id") if "_group" in frame.columns else pl.col("prompt_id")
        begins = pl.col("_row").min().over(key)
        frame = frame.with_columns((begins.rank("dense") - 1).cast(pl.Int64).alias("group_id"))
    frame = frame.with_columns(pl.int_range(pl.len(), dtype=pl.Int32).over("group_id").alias("sample"))
    largest = frame["sample"].max()
    if group_size and isinstance(largest, int) and largest >= group_size:
        wrong = f"is {group_size}, and a group has {largest + 1} rollouts"
        raise ParameterError("group_size", wrong, "at most group_size", "do ranks share names of groups by chance?")
    return frame.drop("_group", "_row", strict=False)


def are_verdicts(rewards: pl.Series) -> bool:
    """Tell whether all rewards are 0 or 1.

    Examples
    --------
    >>> are_verdicts(pl.Series([0.0, 1.0])), are_verdicts(pl.Series([0.0, 1.1]))
    (True, False)
    """
    return bool(rewards.is_in([0.0, 1.0]).all())
