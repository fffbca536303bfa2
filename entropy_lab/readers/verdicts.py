"""Which rollouts are correct: an explicit verdict, a threshold, or rewards that can only be verdicts."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from entropy_lab.errors import ParameterError, UnknownNameError
from entropy_lab.readers.reader import Options
from entropy_lab.validation import numbers

VERDICTS: Final = ("acc", "correct", "is_correct", "accuracy")
"""Columns that hold a verdict when all their values are 0 or 1."""


def is_verdict(values: pl.Series) -> bool:
    """Tell whether a column holds nothing but 0, 1, true, false and null, and not null alone.

    Examples
    --------
    >>> is_verdict(pl.Series([0.0, None, 1.0])), is_verdict(pl.Series([0.5])), is_verdict(pl.Series([None]))
    (True, False, False)
    """
    if not (values.dtype.is_numeric() or values.dtype == pl.Boolean) or values.null_count() == len(values):
        return False
    return set(np.unique(numbers(values.drop_nulls())).tolist()) <= {0.0, 1.0}


def explicit_verdict(frame: pl.DataFrame, options: Options) -> str | None:
    """Name the column that holds a verdict; a threshold of the user's makes any other verdict void.

    Parameters
    ----------
    frame
        The source's columns.
    options
        ``columns["correct"]`` is taken on the user's word; else it is the first of `VERDICTS` that holds 0 and 1 only.

    Raises
    ------
    UnknownNameError
        The user's column is not there.
    ParameterError
        It holds other values than 0, 1, true, false and null.

    Examples
    --------
    >>> explicit_verdict(pl.DataFrame({"score": [0.3], "acc": [1.0]}), Options())
    'acc'
    """
    if named := options.columns.get("correct"):
        if named not in frame.columns:
            raise UnknownNameError(f"--map correct={named}", "names no column", f"one of {', '.join(frame.columns)}")
        if not is_verdict(frame[named]) and frame[named].null_count() < frame.height:
            raise ParameterError(f"--map correct={named}", "holds other values than 0 and 1", "a column of verdicts")
        return named
    if options.correct_above is not None:
        return None
    return next((name for name in VERDICTS if name in frame.columns and is_verdict(frame[name])), None)


def as_verdict(values: pl.Series) -> pl.Series:
    """Give a column of 0 and 1 as Booleans.

    Examples
    --------
    >>> as_verdict(pl.Series([1.0, None, 0.0])).to_list()
    [True, None, False]
    """
    return values if values.dtype == pl.Boolean else values != 0


class VerdictRule:
    """Judges each step as it comes, and says at the end whether the judgement holds for the whole run.

    Without a threshold, a rollout is taken as correct when its reward is 1: right when all rewards of the run are 0 or
    1, or all are -1 or 1. Any other reward withdraws it.

    Parameters
    ----------
    above
        Threshold that the user gave: correct means a reward above it.

    Examples
    --------
    >>> rule = VerdictRule(None)
    >>> rule.judge(pl.Series([1.0, -1.0])).to_list(), rule.holds
    ([True, False], True)
    >>> _ = rule.judge(pl.Series([0.0]))
    >>> rule.holds, rule.note
    (False, 'rewards take the values -1, 0, 1: `correct` is null; --correct-above X sets a threshold')
    """

    def __init__(self, above: float | None) -> None:
        self.above = above
        self.used = False
        self._values: set[float] = set()

    def judge(self, rewards: pl.Series) -> pl.Series:
        """Judge the rewards of one step, shape (rollouts,)."""
        self.used = True
        if self.above is not None:
            return rewards > self.above
        if len(self._values) <= 12:
            known = numbers(rewards.drop_nulls())  # others are invalid rows, refused or left out behind this
            self._values |= set(np.unique(known[np.isfinite(known)]).tolist())
        return rewards == 1.0

    @property
    def holds(self) -> bool:
        """Whether the verdicts given so far may stand."""
        return self.above is not None or self._values <= {0.0, 1.0} or self._values <= {-1.0, 1.0}

    @property
    def note(self) -> str:
        """What was done, in words."""
        if self.above is not None:
            return f"`correct` means a reward above {self.above:g}, as --correct-above says"
        values = sorted(self._values)
        shown = ", ".join(f"{value:g}" for value in values[:5]) + (", …" if values[5:] else "")
        if self.holds:
            return f"`correct` means a reward of 1: rewards take the values {shown}"
        return f"rewards take the values {shown}: `correct` is null; --correct-above X sets a threshold"
