"""Scalars in plain tables: CSV (also as W&B and TensorBoard export them) and flat JSON lines, one row per step."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from entropy_lab.errors import RunFormatError
from entropy_lab.readers.json_lines import read_objects
from entropy_lab.readers.scalars import Log, as_number, as_step
from entropy_lab.readers.tree import Tree, cannot_read

if TYPE_CHECKING:
    from entropy_lab.readers.sink import Sink

STEPS: Final = (
    "step",
    "Step",
    "train/global_step",
    "training/global_step",
    "trainer/global_step",
    "global_step",
    "_step",
    "iteration",
    "global_step/max_steps",
)
"""Columns that hold the step, the first that is there."""

SEPARATORS: Final = {".csv": ",", ".tsv": "\t"}
_EXPORTED: Final = re.compile(r"(.+?) - (.+)")
_SPREAD: Final = ("__MIN", "__MAX")
_TAG: Final = re.compile(r"tag-(.+)$")


def header(tree: Tree, file: Path) -> list[str]:
    r"""Read the column names of a CSV file; empty when it has no first line.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "a.csv"
    >>> _ = file.write_text("step,entropy\n1,0.5\n")
    >>> header(Tree.of(file), file)
    ['step', 'entropy']
    """
    lines = tree.head(file).decode("utf-8-sig", "replace").splitlines()
    return next(csv.reader(lines[:1], delimiter=SEPARATORS[file.suffix]), []) if lines else []


def scalar_columns(tree: Tree, file: Path) -> list[str]:
    """Name the scalars of a table with a step; empty for any other file."""
    if file.suffix in SEPARATORS:
        names = header(tree, file)
        return [_exported(name, file)[1] for name in names if name not in STEPS] if set(names) & set(STEPS) else []
    if file.suffix == ".jsonl":
        first = tree.first_object(file) or {}
        if set(first) & set(STEPS):
            return [name for name, value in first.items() if name not in STEPS and as_number(value) is not None]
    return []


def log_of_table(file: Path, label: str, sink: Sink) -> Log:
    """Read a table of scalars.

    Parameters
    ----------
    file, label
        The table, and how messages name it.
    sink
        Its options may name the step's column (``--map step=…``) and the run, of an export of several.

    Raises
    ------
    RunFormatError
        There is no step, a step is no whole number, most steps have several rows, or the columns are of several runs.
    """
    log = Log(label, "table")
    left: set[str] = set()
    repeated = 0
    for number, row in _rows(file, label, sink):
        step = as_step(_step(row, label, sink))
        if step is None:
            raise RunFormatError(label, f"line {number} has step {_step(row, label, sink)!r}", "a whole number")
        values = {}
        for name, value in row.items():
            run, plain = _exported(name, file)
            if plain.endswith(_SPREAD) or name in STEPS or value in ("", None):
                continue
            if sink.options.run_name in (None, run, "") or not run:
                values[plain] = value
        before = log.rows.get(step, {})
        repeated += any(before.get(name, number) != number for name, number in _numbers(values))
        left |= {name for name, value in values.items() if as_number(value) is None}
        log.add(step, values)
    if repeated * 2 > len(log.rows):
        wrong = f"has several rows of most steps ({repeated:,} of them replace numbers of a row before)"
        hint = "--map reward=COLUMN prompt=COLUMN reads rollouts"
        raise RunFormatError(label, wrong, "one row of scalars a step", hint)
    if repeated:
        sink.note(f"{label}: {repeated:,} rows state numbers of a step again: the later row counts")
    if left:
        sink.note(f"{label}: columns that are no numbers are left out: {', '.join(sorted(left))}")
    return log


def _numbers(values: dict[str, Any]) -> list[tuple[str, float]]:
    return [(name, number) for name, value in values.items() if (number := as_number(value)) is not None]


def _rows(file: Path, label: str, sink: Sink) -> Iterator[tuple[int, dict[str, Any]]]:
    if file.suffix not in SEPARATORS:
        yield from read_objects(file, label, sink)
        return
    try:
        with file.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
            reader = csv.reader(stream, delimiter=SEPARATORS[file.suffix])
            names = next(reader, [])
            _require_one_run(names, file, label, sink)
            for values in reader:
                if not values:
                    continue
                if len(values) != len(names):
                    wrong = f"line {reader.line_num} has {len(values)} of {len(names)} columns"
                    if _is_last(file, values):
                        sink.warn(f"{label}: {wrong}: it is cut off and left out")
                        return
                    raise RunFormatError(label, wrong, "every column in every line")
                yield reader.line_num, dict(zip(names, values, strict=True))
    except OSError as error:
        raise cannot_read(label, error) from error
    except csv.Error as error:
        raise RunFormatError(label, f"is no table ({error})", "comma-separated values") from error


def _is_last(file: Path, values: Sequence[str]) -> bool:
    """Tell whether a row is what a file without a last line break ends with."""
    with file.open("rb") as stream:
        stream.seek(max(file.stat().st_size - 4096, 0))
        end = stream.read()
    return not end.endswith(b"\n") and end.rsplit(b"\n", 1)[-1].decode("utf-8", "replace").startswith(values[0])


def _step(row: dict[str, Any], label: str, sink: Sink) -> object:
    wanted = sink.options.columns.get("step")
    name = wanted if wanted in row else next((name for name in STEPS if name in row), None)
    if name is None:
        wrong = f"has no step among {', '.join(list(row)[:8])}"
        raise RunFormatError(label, wrong, f"one of {', '.join(STEPS[:4])}, …", "--map step=COLUMN")
    value = row[name]
    # ms-swift writes "3/100".
    return value.partition("/")[0] if name == "global_step/max_steps" and isinstance(value, str) else value


def _exported(name: str, file: Path) -> tuple[str, str]:
    """Split ``run - metric`` of a W&B export; name the ``Value`` of a TensorBoard export by its file."""
    if name == "Value":
        match = _TAG.search(file.stem)
        return "", (match[1] if match else file.stem).replace("_", "/", 1)
    match = _EXPORTED.fullmatch(name)
    return (match[1], match[2]) if match else ("", name)


def _require_one_run(names: Sequence[str], file: Path, label: str, sink: Sink) -> None:
    runs = sorted({run for name in names if (run := _exported(name, file)[0])})
    wanted = sink.options.run_name
    if wanted and runs and wanted not in runs:
        raise RunFormatError(label, f"has no run {wanted}", f"one of {', '.join(runs)}")
    if len(runs) > 1 and not wanted:
        raise RunFormatError(label, f"holds {len(runs)} runs: {', '.join(runs[:8])}", "one", f"--run-name {runs[0]}")
