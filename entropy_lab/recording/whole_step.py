"""From the parts of a step to the table of the run format."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import polars as pl

from entropy_lab.errors import ParameterError
from entropy_lab.recording.columns import IDLE
from entropy_lab.recording.groups import are_verdicts, with_groups
from entropy_lab.run import RunWarning


class WholeStep:
    """Puts the rollouts of a step together; remembers what was said about the steps before.

    Parameters
    ----------
    group_size
        Rollouts of a group; None when it differs.

    Examples
    --------
    >>> part = pl.DataFrame({"prompt_id": ["a"], "reward": [1.0]})
    >>> WholeStep(2).put_together([part, part]).select("group_id", "sample", "correct").rows()
    [(0, 0, True), (0, 1, True)]
    """

    def __init__(self, group_size: int | None) -> None:
        self._group_size = group_size
        self._rewards_are_verdicts = True
        self._said_means = False

    def put_together(self, parts: Sequence[pl.DataFrame], n_recorded: int = 0) -> pl.DataFrame:
        """Join parts, number groups, and fill in verdicts.

        Parameters
        ----------
        parts
            Of the ranks, in their order; those without columns have no rollouts.
        n_recorded
            Steps recorded before.

        Returns
        -------
        DataFrame
            What `RunWriter.write_rollouts` takes.

        Raises
        ------
        ParameterError
            There is no rollout, parts differ in their columns, or groups cannot be made.
        """
        filled = [part for part in parts if part.height]
        if not filled:
            raise ParameterError("step", "has no rollouts on any rank", "rollouts on one rank or more")
        for part in filled[1:]:
            if odd := set(part.columns) ^ set(filled[0].columns):
                wrong = f"have different columns ({', '.join(sorted(odd))})"
                raise ParameterError("parts of the step", wrong, "the same on every rank")
        frame = pl.concat([part.select(filled[0].columns) for part in filled], how="vertical_relaxed")
        return self._verified(self._without_idle(with_groups(frame, self._group_size)), n_recorded)

    def _without_idle(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Leave out columns that say nothing in this step."""
        for name, idle in IDLE.items():
            if name in frame.columns and (frame[name].drop_nulls() == idle).all():
                frame = frame.drop(name)
        if "advantage_spread" not in frame.columns:
            return frame.drop("token_advantage", strict=False)
        if not self._said_means:
            self._said_means = True
            said = "advantages differ between tokens of one rollout: the column `advantage` holds their means"
            warnings.warn(said, RunWarning, stacklevel=2)
        return frame

    def _verified(self, frame: pl.DataFrame, n_recorded: int) -> pl.DataFrame:
        """Fill in verdicts: of rewards, as long as all were 0 or 1."""
        if "correct" in frame.columns:
            return frame
        if self._rewards_are_verdicts and not are_verdicts(frame["reward"]):
            self._rewards_are_verdicts = False
            if n_recorded:
                said = "rewards are no longer 0 or 1: `correct` is null from here on, unless correct= tells it"
                warnings.warn(said, RunWarning, stacklevel=2)
        verdict = pl.col("reward") == 1.0 if self._rewards_are_verdicts else pl.lit(None, pl.Boolean)
        return frame.with_columns(verdict.alias("correct"))
