"""open-instruct's older ``traces_{run}.jsonl``: one line a training step, with a column of its rollouts under each key.

There are no log-probabilities and no group ids: equal prompts, which stand side by side, make a group.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from entropy_lab.readers.records import Record, line_records, parsed
from entropy_lab.readers.rollouts import Rollout, token_text
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.tree import Tree

_FILE: Final = re.compile(r"traces_(.+)\.jsonl")
_KEYS: Final = ("training_step", "scores", "responses", "queries")


def find_lines(tree: Tree) -> dict[tuple[Path, str], list[Path]]:
    """Find the files by folder and name of the run."""
    found: dict[tuple[Path, str], list[Path]] = {}
    for file in tree.files:
        match = _FILE.fullmatch(file.name)
        first = tree.first_object(file) if match else None
        if match and first is not None and first.keys() >= set(_KEYS):
            found[file.parent, match[1]] = [file]
    return found


def line_steps(tree: Tree, file: Path, sink: Sink) -> Iterator[tuple[int, list[Rollout]]]:
    """Yield the rollouts of each training step; of a step that stands twice, the later line counts.

    Raises
    ------
    RunFormatError
        A line has columns of different lengths, or of something else (not with ``skip_invalid``).
    """
    label = tree.label(file)
    records = list(parsed(line_records(file, label, sink), lambda one: (one.whole("training_step"), one), sink))
    last = dict(records)
    if len(last) < len(records):
        sink.note(f"{label}: training was resumed: of steps that stand twice, the later lines count")
    for step in sorted(last):
        yield from ((step, found) for found in parsed([last[step]], lambda one: list(_rollouts(one)), sink))


def _rollouts(line: Record) -> Iterator[Rollout]:
    columns = {name: column for name, column in line.values.items() if isinstance(column, list)}
    n_rows = len(columns.get("responses", ()))
    uneven = [name for name in _KEYS[1:] if len(columns.get(name, ())) != n_rows]
    if uneven:
        raise line.fault(f"has another number of {', '.join(uneven)} than of responses", "one value a rollout")
    columns = {name: column for name, column in columns.items() if len(column) == n_rows}
    for number in range(n_rows):
        row = {name: column[number] for name, column in columns.items()}
        yield _rollout(Record(line.label, f"{line.place}, rollout {number},", row))


def _rollout(record: Record) -> Rollout:
    row: Mapping[str, Any] = record.values
    prompt, response = record.whole_numbers("queries"), record.whole_numbers("responses")
    if prompt is None or response is None:
        raise record.fault("has no queries and responses")
    finish = row.get("finish_reasons")
    ours = {
        "reward": record.number("scores"),
        "truncated": None if finish is None else finish == "length",
        "source": record.text("datasets"),
        "answer": record.text("ground_truths"),
        "prompt": record.text("raw_queries"),
        "completion": record.text("decoded_responses"),
    }
    tokens = {"token_ids": response, "prompt_token_ids": prompt}
    return Rollout(token_text(prompt), None, tokens, {name: value for name, value in ours.items() if value is not None})
