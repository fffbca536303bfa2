"""Plain tables: CSV, JSON and Parquet, of rollouts or of scalars, with ``--map OURS=THEIRS`` for other names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Final

import polars as pl

from entropy_lab.errors import RunFormatError
from entropy_lab.prompt_names import prompt_ids
from entropy_lab.readers.columns import frame_of, kept_name, message_text
from entropy_lab.readers.containers import HOW, convert_logs
from entropy_lab.readers.groups import group_numbers, sample_numbers
from entropy_lab.readers.json_lines import read_objects
from entropy_lab.readers.log_kinds import LogFile
from entropy_lab.readers.logs import find_logs
from entropy_lab.readers.reader import Options, Reader, Sighting
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.table_logs import STEPS, log_of_table, step_column
from entropy_lab.readers.table_rows import SEPARATORS, header, json_rows, peek, separator, unwrapped
from entropy_lab.readers.tree import Tree
from entropy_lab.readers.verdicts import as_verdict, explicit_verdict
from entropy_lab.schema import ROLLOUTS
from entropy_lab.step_files import UNREADABLE
from entropy_lab.validation import same_kind

_PORTION: Final = 20_000
_PROMPTS: Final = ("prompt_id", "prompt", "group_id")


def columns_of(tree: Tree, file: Path) -> tuple[str, ...]:
    """Read a table's column names from its first line or footer; empty when it is no table."""
    if file.suffix in SEPARATORS:
        return tuple(header(tree, file))
    if file.suffix in (".jsonl", ".json"):  # more than the first row: it may be settings
        return tuple(dict.fromkeys(name for row in peek(tree, file) for name in unwrapped(row)))
    if file.suffix == ".parquet":
        try:
            return tuple(pl.read_parquet_schema(file))
        except UNREADABLE:
            return ("unreadable",) if file == tree.path else ()
    return ()


def recognise(tree: Tree) -> Sighting | None:
    """See tables with a step; a file that the user names is taken without one."""
    found = {file: names for file in tree.files if (names := columns_of(tree, file))}
    kept = {file: names for file, names in found.items() if step_column(names) or file == tree.path}
    evidence = [f"{tree.label(file)}: {', '.join(names[:6])}" for file, names in kept.items()]
    if len(evidence) > 3:
        evidence = [*evidence[:3], f"and {len(evidence) - 3} more tables"]
    return Sighting("plain tables", tuple(evidence)) if evidence else None


def convert(tree: Tree, sink: Sink) -> None:
    """Read tables of rollouts step by step, and tables of scalars into metrics."""
    scalars: list[LogFile] = []
    tables = {file: columns_of(tree, file) for file in tree.files}
    sink.meet(part for names in tables.values() for name in names for part in (name, name.rsplit(" - ", 1)[-1]))
    sink.require_mapped()
    for file, names in tables.items():
        label = tree.label(file)
        if is_rollouts(names, sink.options):
            for step, frame in _by_step(portions(tree, file, label, sink), label, sink):
                sink.rollouts(step, _rollouts(frame, label, sink), label)
        elif names and (step_column(names) or sink.options.theirs("step") in names or file == tree.path):
            scalars.append(_scalar_file(tree, file, label))
    known = {log.label for log in scalars}
    scalars += [log for log in find_logs(tree, ("table",)) if log.label not in known]
    if scalars:
        convert_logs(tree, [log for log in scalars if not _is_rollout_file(tree, log, sink)], sink)


def _is_rollout_file(tree: Tree, log: LogFile, sink: Sink) -> bool:
    file = next(file for file in tree.files if tree.label(file) == log.label)
    return is_rollouts(columns_of(tree, file), sink.options)


def is_rollouts(names: Sequence[str], options: Options) -> bool:
    """Tell whether a table has one row per rollout: it has a reward, and a prompt or group.

    Examples
    --------
    >>> is_rollouts(["step", "prompt", "score"], Options(columns={"reward": "score"}))
    True
    >>> is_rollouts(["step", "reward", "entropy"], Options())
    False
    """
    return options.theirs("reward") in names and any(options.theirs(name) in names for name in _PROMPTS)


def _scalar_file(tree: Tree, file: Path, label: str) -> LogFile:
    return LogFile(label, "table", frozenset(), "", lambda sink: log_of_table(tree, file, label, sink))


def portions(tree: Tree, file: Path, label: str, sink: Sink) -> Iterator[pl.DataFrame]:
    """Yield a table in portions of some thousand rows, in its own order.

    Raises
    ------
    RunFormatError
        The file is damaged.
    """
    if file.suffix == ".jsonl":
        objects = (unwrapped(row) for _, row in read_objects(file, label, sink))
        while rows := list(islice(objects, _PORTION)):
            yield frame_of(rows)
        return
    if file.suffix == ".json":
        documents = map(unwrapped, json_rows(tree, file) or ())
        while rows := list(islice(documents, _PORTION)):
            yield frame_of(rows)
        return
    try:
        if file.suffix == ".parquet":
            scan = pl.scan_parquet(file, glob=False)
        else:
            mark = separator(tree.head(file))
            scan = pl.scan_csv(file, glob=False, separator=mark, infer_schema_length=10_000)
        yield from scan.collect_batches(maintain_order=True, chunk_size=_PORTION)
    except UNREADABLE as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunFormatError(label, f"cannot be read ({said})", "a whole table") from error


def _step_column(names: Sequence[str], label: str, options: Options) -> str:
    wanted = options.columns.get("step")
    name = wanted if wanted in names else step_column(names)
    if name is None:
        wrong = f"has no step among {', '.join(names[:8])}"
        raise RunFormatError(label, wrong, f"one of {', '.join(STEPS[:4])}, …", "--map step=COLUMN")
    return name


def _by_step(frames: Iterator[pl.DataFrame], label: str, sink: Sink) -> Iterator[tuple[int, pl.DataFrame]]:
    """Cut portions into steps; the rows of a step stand together, so that one step is in memory at a time."""
    held: list[pl.DataFrame] = []
    current: int | None = None
    for frame in frames:
        column = _step_column(frame.columns, label, sink.options)
        steps = _whole(frame[column])
        if steps.null_count():
            raise RunFormatError(
                label, f"column {column} holds values that are no whole number", "the step of each row"
            )
        starts = [0, *(i + 1 for i in (steps.diff()[1:] != 0).arg_true().to_list()), frame.height]
        for start, end in pairwise(starts):
            step, part = int(steps[start]), frame[start:end]
            if current is not None and step != current:
                yield current, pl.concat(held, how="diagonal_relaxed")
                held = []
            current = step
            held.append(part)
    if current is not None:
        yield current, pl.concat(held, how="diagonal_relaxed")


def _whole(values: pl.Series) -> pl.Series:
    """Read whole numbers out of numbers or their texts; anything else is null."""
    numbers = values.cast(pl.Float64, strict=False)
    whole = numbers.cast(pl.Int64, strict=False)
    return whole.set(((numbers != whole) | numbers.is_null()).fill_null(value=True), None)


def _rollouts(frame: pl.DataFrame, label: str, sink: Sink) -> pl.DataFrame:
    options = sink.options
    sink.meet(frame.columns)
    step = _step_column(frame.columns, label, options)
    used = {ours: options.theirs(ours) for ours in ROLLOUTS if ours not in ("step", "correct", "group_accuracy")}
    given = {ours: frame[theirs] for ours, theirs in used.items() if theirs in frame.columns}
    columns: dict[str, Any] = {}
    for ours, values in given.items():
        if ROLLOUTS[ours].dtype == "String":
            columns[ours] = [message_text(value) for value in values.to_list()]
        elif ours not in ("group_id", "sample"):
            columns[ours] = _numeric(ours, values, label)
    ids = next(given[name] for name in ("group_id", "prompt_id", "prompt") if name in given)
    numbered = ids.name == options.theirs("group_id") and ids.dtype.is_integer()
    groups = ids.to_numpy() if numbered else group_numbers([str(value) for value in ids.to_list()])
    columns["group_id"] = groups
    columns["sample"] = given["sample"] if "sample" in given else sample_numbers(groups)
    if "prompt_id" not in columns:
        prompts = columns.get("prompt", [str(value) for value in ids.to_list()])
        columns["prompt_id"] = prompt_ids([prompt or "" for prompt in prompts])
    if verdict := explicit_verdict(frame, options):
        columns["correct"] = as_verdict(frame[verdict])
        sink.note(f"`correct` is the column {verdict}")
    lost = {ids.name} if ids.name == options.theirs("group_id") and not numbered else set()
    taken = {step, *(values.name for values in given.values()), *([verdict] if verdict else [])} - lost
    extras = [frame[name].alias(kept_name(name, "table")) for name in frame.columns if name not in taken]
    return pl.DataFrame(columns).with_columns(extras)


def _numeric(ours: str, values: pl.Series, label: str) -> pl.Series:
    """Hold a column to its type; CSV writes Booleans as texts."""
    dtype = ROLLOUTS[ours].dtype
    if values.dtype == pl.String and dtype == "Boolean":
        values = values.str.to_lowercase().replace_strict(
            {"true": True, "false": False, "1": True, "0": False}, default=None
        )
    if not same_kind(values.dtype, dtype) and not (dtype.startswith("Float") and values.dtype.is_numeric()):
        allowed, hint = f"the run format asks for {dtype}", f"--map {ours}=COLUMN names another column"
        raise RunFormatError(f"{label}, column {values.name}", f"is of type {values.dtype}", allowed, hint)
    return values


READER: Final = Reader(
    name="table",
    title="plain tables",
    recognise=recognise,
    convert=convert,
    how_to_record={
        **HOW,
        **{name: f"a column {name}, or --map {name}=COLUMN" for name in ("n_tokens", "logp", "entropy", "advantage")},
        "logp_after": "a column logp_after",
        "correct": "a column correct, --map correct=COLUMN, or --correct-above X",
    },
    generic=True,
    step_offset=0,
)
