"""Validation answers as sources give them, and where their passes are filed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from entropy_lab.prompt_names import prompt_ids
from entropy_lab.readers.columns import frame_of, series, with_kept
from entropy_lab.readers.groups import group_numbers, sample_numbers
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.verdicts import as_verdict, explicit_verdict


@dataclass
class Answer:
    """One answer of a validation pass.

    Parameters
    ----------
    problem
        What tells the problem from others, in every pass: mostly the prompt's text.
    reward
        Its score; the verdict is taken from it where that is possible.
    ours
        Columns of ``schema.EVALS``, and ``prompt`` and ``answer``; None is null.
    theirs
        What else the source has.
    """

    problem: str
    reward: float | None = None
    ours: Mapping[str, Any] = field(default_factory=dict)
    theirs: Mapping[str, Any] = field(default_factory=dict)


def write_answers(sink: Sink, n_updates: int, answers: Sequence[Answer], where: str, early: bool = False) -> None:
    """Give the sink the answers of one pass.

    Parameters
    ----------
    sink
        Takes them.
    n_updates
        Updates made before the pass. A pass before training is filed under our step 0.
    answers
        In the order of the source's rows.
    where
        Names the source in messages.
    early
        The pass after the first update is there, too: one before training then gets a benchmark of its own.
    """
    if not answers:
        sink.warn(f"{where}: is empty: its validation pass has no answers")
        return
    raw = frame_of([answer.theirs for answer in answers])
    sink.meet(raw.columns)
    names = dict.fromkeys(name for answer in answers for name in answer.ours)
    columns = {name: series(name, [answer.ours.get(name) for answer in answers]) for name in names}
    problems = prompt_ids([answer.problem for answer in answers])
    benchmarks = [str(answer.ours.get("benchmark") or "validation") for answer in answers]
    if n_updates == 0:
        sink.note(f"{where}: the validation pass before training is filed under our step 0")
        benchmarks = [f"{name} before training" if early else name for name in benchmarks]
    columns["benchmark"] = pl.Series("benchmark", benchmarks)
    columns["problem_id"] = pl.Series("problem_id", problems)
    numbers = group_numbers(zip(benchmarks, problems, strict=True))
    columns["sample"] = pl.Series("sample", sample_numbers(numbers))
    columns["reward"] = pl.Series("reward", [answer.reward for answer in answers], dtype=pl.Float64)
    if verdict := explicit_verdict(raw, sink.options):
        columns["correct"] = as_verdict(raw[verdict]).alias("correct")
    sink.evals(max(n_updates - 1, 0), with_kept(columns, raw, sink.framework), where)
