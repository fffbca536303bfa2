"""ms-swift's ``completions.jsonl``: one line a generation, every column a list over its completions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import polars as pl

from entropy_lab.errors import RunFormatError
from entropy_lab.readers.columns import frame_of
from entropy_lab.readers.json_lines import read_objects
from entropy_lab.readers.scalars import as_step
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.tree import Tree

_NAME: Final = "completions.jsonl"
_COUNTERS: Final = ("step", "gen_step")


class Generation(NamedTuple):
    """What one line holds, under TRL's names of columns."""

    step: int
    frame: pl.DataFrame
    where: str


def find_generations(tree: Tree) -> dict[str, list[Path]]:
    """Find the files by their folder."""
    return {
        str(Path(tree.label(file)).parent): [file]
        for file in tree.having(lambda file: file.name.endswith(_NAME))
        if _is_table(tree.first_object(file) or {})
    }


def _is_table(row: Mapping[str, Any]) -> bool:
    prompts, texts = row.get("prompt"), row.get("completion")
    return isinstance(prompts, list) and isinstance(texts, list) and len(prompts) == len(texts) > 0


def generations(file: Path, label: str, sink: Sink) -> Iterator[Generation]:
    """Yield the generations of a file.

    Releases with ``step`` state the Trainer's. ``gen_step`` counts passes through the model, of which an update has an
    unknown number: the n-th generation is then taken for update n, as it is unless generations are used again.

    Raises
    ------
    RunFormatError
        A line has no lists of prompts and completions.
    """
    for count, (number, row) in enumerate(read_objects(file, label, sink), start=1):
        if not _is_table(row):
            raise RunFormatError(label, f"line {number} has no lists of prompts and completions", "one a generation")
        stated = as_step(row["step"][0]) if isinstance(row.get("step"), list) and row["step"] else None
        if stated is None:
            sink.note(f"{label}: gen_step counts passes: the n-th generation is taken for update n")
        names = [name for name, part in row.items() if isinstance(part, list) and len(part) == len(row["prompt"])]
        kept = {name: "advantage" if name == "advantages" else name for name in names if name not in _COUNTERS}
        rows = [{ours: row[name][at] for name, ours in kept.items()} for at in range(len(row["prompt"]))]
        frame = frame_of(rows).with_columns(pl.selectors.integer().cast(pl.Float64))
        yield Generation(count if stated is None else stated, frame, f"{label}: line {number}")
