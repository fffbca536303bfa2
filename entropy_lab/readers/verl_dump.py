"""verl's dumps of rollouts: one file of JSON lines per step, in the layouts of 0.4 to 0.9."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from entropy_lab.errors import RunFormatError
from entropy_lab.json_values import json_text
from entropy_lab.prompt_names import prompt_ids
from entropy_lab.readers.columns import frame_of, kept_name
from entropy_lab.readers.groups import group_numbers, sample_numbers
from entropy_lab.readers.json_lines import read_objects
from entropy_lab.readers.scalars import as_number
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.tree import Tree
from entropy_lab.readers.verdicts import as_verdict, explicit_verdict
from entropy_lab.readers.verl_files import KEYS, Dump
from entropy_lab.readers.verl_tensors import Tensors, join_tensors

Row = dict[str, Any]

_UID: Final = re.compile(r"(.+)_(\d+)_(\d+)")
_MOVED: Final = ("input", "output", "gts", "score", "step")


def convert_dumps(tree: Tree, dumps: Sequence[Dump], tensors: Sequence[Tensors], sink: Sink) -> None:
    """Give the sink every step of every dump.

    Two training dumps of the same rollouts (both trainers' layouts side by side) are joined row by row.

    Raises
    ------
    RunFormatError
        Dumps hold different rollouts of the same step (several runs), or rows do not fit their file.
    """
    drawn = continued([dump for dump in dumps if not dump.validation], tree, sink)
    training = sorted(drawn, key=lambda dump: "uid" not in dump.keys)
    rest = [_steps_of(tree, dump) for dump in training[1:]]
    done: set[int] = set()
    for step, rows, where in _steps(tree, training[0], sink) if training else ():
        others = [by_step.pop(step) for by_step in rest if step in by_step]
        for other in others:
            rows = _same_rows(rows, _read(tree, other, step, sink), where, tree.label(other), sink)
        done.add(step)
        _write(step, rows, where, tensors, sink)
    for by_step in rest:
        for step, file in by_step.items():
            sink.note(f"{tree.label(file)}: step {step} is in this folder only: the run went on here")
            _write(step, _read(tree, file, step, sink), tree.label(file), tensors, sink)
    for source in tensors:
        source.write_alone(done, sink)
    validation = [dump for dump in dumps if dump.validation]
    for dump in validation:
        _write_validation(tree, dump, Path(dump.folder).name if validation[1:] else "validation", sink)


def continued(dumps: Sequence[Dump], tree: Tree, sink: Sink) -> list[Dump]:
    """Let a run that was started again, into a folder of its own, count from its first step on.

    Parameters
    ----------
    dumps
        Of training rollouts.
    tree, sink
        Read the first step that two dumps have, and take notes.

    Returns
    -------
    list of Dump
        Those whose rollouts of a common step are the same stay whole. Of two with different ones, the one that began
        earlier loses the steps from the beginning of the other on.
    """
    kept: list[Dump] = []
    for dump in sorted(dumps, key=lambda dump: min(dump.steps, default=0)):
        for place, other in enumerate(kept):
            common = min(dump.steps.keys() & other.steps.keys(), default=None)
            first = min(dump.steps, default=0)
            if common is None or min(other.steps) == first:
                continue
            mine, theirs = (
                Counter(map(_content, _read(tree, one.steps[common], common, sink))) for one in (dump, other)
            )
            if 2 * (mine & theirs).total() < mine.total():
                steps = {step: file for step, file in other.steps.items() if step < first}
                kept[place] = replace(other, steps=steps, files=tuple(steps.values()))
                sink.note(f"{dump.folder} goes on where {other.folder} was left: it counts from step {first} on")
        kept.append(dump)
    return kept


def _steps(tree: Tree, dump: Dump, sink: Sink) -> Iterator[tuple[int, list[Row], str]]:
    named = {file: step for step, file in dump.steps.items()}
    for file in dump.files:
        label = tree.label(file)
        if file in named:
            rows = _read(tree, file, named[file], sink)
            if rows:
                yield named[file], rows, label
        else:
            for step, rows in _by_step(read_objects(file, label, sink), label, sink):
                yield step, rows, label


def _steps_of(tree: Tree, dump: Dump) -> dict[int, Path]:
    """Name the file of each step, of a dump that is joined to another."""
    for file in dump.files:
        if file not in dump.steps.values():
            allowed, hint = "files named by their step", "name one dump's directory"
            raise RunFormatError(tree.label(file), "is a second dump of rollouts", allowed, hint)
    return dict(dump.steps)


def _read(tree: Tree, file: Path, step: int, sink: Sink) -> list[Row]:
    """Read a file that is named by its step, and hold its rows to that."""
    label = tree.label(file)
    rows = []
    for number, row in read_objects(file, label, sink):
        if not _has_score(row, label, number, sink):
            continue
        if row.get("step") not in (step, None):
            wrong = f"line {number} is of step {row['step']}: rows of several steps are mixed"
            hint = "put each step's rows into its own file; a file whose name is no number is read by its rows' step"
            raise RunFormatError(label, wrong, f"step {step}, as the file's name says", hint)
        rows.append(row)
    if not rows:
        sink.warn(f"{label}: is empty: step {step} has no rollouts")
    return rows


def _by_step(objects: Iterator[tuple[int, Row]], label: str, sink: Sink) -> Iterator[tuple[int, list[Row]]]:
    rows: list[Row] = []
    seen: set[int] = set()
    for number, row in objects:
        if not _has_score(row, label, number, sink):
            continue
        step = row.get("step")
        if not isinstance(step, int) or isinstance(step, bool):
            raise RunFormatError(label, f"line {number} has step {step!r}", "a whole number")
        if rows and rows[0]["step"] != step:
            yield rows[0]["step"], rows
            rows = []
        if not rows and step in seen:
            raise RunFormatError(label, f"step {step} comes back in line {number}", "rows of a step together, in order")
        seen.add(step)
        rows.append(row)
    if rows:
        yield rows[0]["step"], rows


def _has_score(row: Row, label: str, number: int, sink: Sink) -> bool:
    """Hold a row to its keys and to a score that is a number; a Boolean counts as one."""
    absent = sorted(KEYS - row.keys())
    score = row.get("score")
    if isinstance(score, bool):
        row["score"] = float(score)
    elif not absent and not isinstance(score, int | float):
        absent = ["number as score"]
    if not absent:
        return True
    wrong = f"line {number} has no {', '.join(absent)}"
    if not sink.options.skip_invalid:
        raise RunFormatError(label, wrong, "input, output and score in every line", "--skip-invalid reads the rest")
    sink.left_out(1, f"{label}: {wrong}")
    return False


def _same_rows(rows: list[Row], others: list[Row], where: str, other: str, sink: Sink) -> list[Row]:
    """Add what a second dump of the same rollouts has beside the first; order the first keeps."""
    waiting: dict[tuple[str, str, str], list[Row]] = {}
    for row in reversed(others):
        waiting.setdefault(_content(row), []).append(row)
    merged = [{**found.pop(), **row} if (found := waiting.get(_content(row))) else row for row in rows]
    only = sum(map(len, waiting.values()))
    if only > len(others) / 2:
        wrong = f"and {other} hold different rollouts of one step: dumps of several runs"
        raise RunFormatError(where, wrong, "the dumps of one run", "name one run's directory")
    if only or len(rows) != len(others):  # one of them was cut off
        sink.warn(f"{where} has {len(rows):,} rows, {other} {len(others):,}: those of the first are taken")
    folders = [str(Path(name).parent) for name in (where, other)]
    sink.note(f"{folders[0]} and {folders[1]} hold the same rollouts: joined, groups from the uid")
    return merged


def _content(row: Row) -> tuple[str, str, str]:
    return str(row["input"]), str(row["output"]), repr(as_number(row["score"]))


def _write(step: int, rows: list[Row], where: str, tensors: Sequence[Tensors], sink: Sink) -> None:
    rows = _last_outputs(rows, where, sink)
    raw = frame_of(rows)
    sink.meet(raw.columns)
    theirs = sink.options.theirs
    prompts = [json_text(row["input"]) or "" for row in rows]
    labels, samples = _grouped(rows, prompts, where, sink)
    groups = group_numbers(labels)
    columns: dict[str, Any] = {
        "prompt_id": prompt_ids(prompts),
        "group_id": groups,
        "sample": sample_numbers(groups) if samples is None else samples,
        "reward": raw[theirs("reward") if theirs("reward") in raw.columns else "score"],
        "prompt": prompts,
        "completion": [json_text(row["output"]) for row in rows],
    }
    verdict = explicit_verdict(raw, sink.options)
    if verdict:
        columns["correct"] = as_verdict(raw[verdict])
        sink.note(f"`correct` is the column {verdict}")
    if "gts" in raw.columns:
        columns["answer"] = [json_text(row.get("gts")) for row in rows]
    if "data_source" in raw.columns:
        columns["source"] = raw["data_source"]
    frame = pl.DataFrame(columns).with_columns(_extras(raw))
    for source in tensors:
        frame = join_tensors(source, step, frame, sink)
    sink.rollouts(step, frame, where)


def _extras(raw: pl.DataFrame) -> list[pl.Series]:
    return [raw[name].alias(kept_name(name, "verl")) for name in raw.columns if name not in _MOVED]


def _last_outputs(rows: list[Row], where: str, sink: Sink) -> list[Row]:
    """Keep the last output of each session: V1 dumps every turn of a multi-turn session under its own uid."""
    last: dict[Any, tuple[int, int]] = {}
    for index, row in enumerate(rows):
        match = _UID.fullmatch(str(row.get("uid", "")))
        key = match.group(1, 2) if match else index
        turn = int(match[3]) if match else 0
        if key in last and last[key][0] == turn and rows[last[key][1]] != row:
            raise RunFormatError(where, f"uid {row['uid']} stands twice, with different rows", "each uid once")
        if key not in last or turn > last[key][0]:
            last[key] = (turn, index)
    if left := len(rows) - len(last):
        sink.warn(f"{where}: {left:,} rows are earlier turns of a session or repeat one: its last output is kept")
    return [rows[index] for _, index in sorted(last.values(), key=lambda item: item[1])]


def _grouped(rows: list[Row], prompts: list[str], where: str, sink: Sink) -> tuple[list[Any], np.ndarray | None]:
    """Give each row's group: from its uid, else from equal prompts with equal reference answers."""
    uids = [_UID.fullmatch(str(row.get("uid", ""))) for row in rows]
    if all(uids):
        labels = [match[1] for match in uids if match]
        samples = np.array([int(match[2]) for match in uids if match])
        return labels, samples
    if any("uid" in row for row in rows):
        sink.note(f"{where}: uids are not of verl's form (prompt_session_output): equal prompts make a group")
    labels = [(prompt, json_text(row.get("gts"))) for prompt, row in zip(prompts, rows, strict=True)]
    wanted = sink.facts.get("group_size")
    if isinstance(wanted, int) and any(size > wanted for size in Counter(labels).values()):
        sink.note(f"{where}: a prompt drawn twice in one step makes one group: this layout writes no group id")
    return labels, None


def _write_validation(tree: Tree, dump: Dump, benchmark: str, sink: Sink) -> None:
    sink.note(f"{dump.folder}: its rows are taken for validation answers, because {dump.validation}")
    for step, rows, where in _steps(tree, dump, sink):
        raw = frame_of(rows)
        prompts = [json_text(row["input"]) or "" for row in rows]
        answers = [json_text(row.get("gts")) for row in rows]
        problems = prompt_ids(f"{prompt}\0{answer}" for prompt, answer in zip(prompts, answers, strict=True))
        early = step < sink.step_offset
        name = f"{benchmark} before training" if early and sink.step_offset in dump.steps else benchmark
        columns: dict[str, Any] = {
            "benchmark": raw["data_source"].cast(pl.String) if "data_source" in raw.columns else [name] * len(rows),
            "problem_id": problems,
            "sample": sample_numbers(group_numbers(problems)),
            "completion": [json_text(row["output"]) for row in rows],
            "prompt": prompts,
            "answer": answers,
            "reward": raw["score"],
        }
        if verdict := explicit_verdict(raw, sink.options):
            columns["correct"] = as_verdict(raw[verdict])
        extras = [
            raw[key].alias(f"verl/{key}" if key in columns else kept_name(key, "verl"))
            for key in raw.columns
            if key not in _MOVED
        ]
        if early:
            sink.note(f"{where}: the validation pass before training is filed under our step 0")
        sink.evals(max(step - sink.step_offset, 0), pl.DataFrame(columns).with_columns(extras), where)
