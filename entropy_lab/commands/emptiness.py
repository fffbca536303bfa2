"""Why a table has no row although every column it needs was recorded."""

from __future__ import annotations

import polars as pl

from entropy_lab.run import Run


def why_empty(opened: Run) -> str:
    """Say why analyses of a run gave nothing.

    Parameters
    ----------
    opened
        The run.

    Returns
    -------
    str
        Words for the user: without a single verdict, how to get some; else that nothing in it can be compared.

    Examples
    --------
    >>> import tempfile
    >>> from entropy_lab.run import open_run
    >>> from entropy_lab.writer import RunWriter
    >>> writer = RunWriter(tempfile.mkdtemp() + "/run", method={"name": "grpo", "params": {}})
    >>> key = {"prompt_id": ["a", "a"], "group_id": [0, 0], "sample": [0, 1], "reward": [0.1, 0.7]}
    >>> _ = writer.write_rollouts(0, {**key, "correct": [None, None]})
    >>> why_empty(open_run(writer.path))
    'no rollout has a verdict, `correct` is null (record it, or docs/analyses.md, Parameters)'
    """
    verdicts = opened.scan().select(pl.col("correct").is_not_null().any()) if "correct" in opened.columns else None
    if verdicts is None or verdicts.collect().item():
        return "nothing in this run that they compare (docs/analyses.md)"
    ways = "--correct-above X or --map correct=COLUMN"
    way = f"import with {ways}" if "imported" in opened.info else "record it, or docs/analyses.md, Parameters"
    return f"no rollout has a verdict, `correct` is null ({way})"
