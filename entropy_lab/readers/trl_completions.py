"""TRL's completions: one Parquet file per log, or the same tables in W&B and trackio, with all their traps."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from entropy_lab.errors import RunFormatError
from entropy_lab.prompt_names import prompt_ids
from entropy_lab.readers.columns import frame_of, kept_name, message_text
from entropy_lab.readers.groups import centred_size, common_size, group_numbers, sample_numbers
from entropy_lab.readers.log_kinds import json_table
from entropy_lab.readers.scalars import Log, Scalars, TableRef, as_step
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.swift_completions import find_generations, generations
from entropy_lab.readers.tree import Tree
from entropy_lab.readers.verdicts import as_verdict, explicit_verdict, is_verdict
from entropy_lab.step_files import UNREADABLE
from entropy_lab.validation import numbers

_FILE: Final = re.compile(r"completions_(\d+)\.parquet")
_BASE: Final = ("step", "prompt", "completion", "advantage")
_VERDICT_NAME: Final = re.compile(r"(accuracy|correct)", re.IGNORECASE)
_TABLE: Final = re.compile(r"completions_\d+_[0-9a-f]+\.table\.json")
_PEEK: Final = 8


@dataclass(frozen=True)
class Block:
    """The completions of one log.

    Parameters
    ----------
    step
        The source's.
    frame
        Rows as TRL wrote them.
    where
        Names the source in messages.
    order
        Of a table in a log: which of its step it is, from 0; None for a file, of which a step has one.
    added
        Columns of ours that another source of the same rows has.
    """

    step: int
    frame: pl.DataFrame
    where: str
    order: int | None = None
    added: pl.DataFrame = field(default_factory=pl.DataFrame)


def find_files(tree: Tree) -> dict[str, list[Path]]:
    """Find the Parquet files by their folder."""
    folders: dict[str, list[Path]] = {}
    for file in tree.having(lambda file: bool(_FILE.fullmatch(file.name))):
        if file == tree.path or "advantage" in _schema(file) or "completion" in _schema(file):
            folders.setdefault(str(Path(tree.label(file)).parent), []).append(file)
    return folders


def _schema(file: Path) -> Mapping[str, pl.DataType]:
    try:
        return pl.read_parquet_schema(file)
    except UNREADABLE:
        return {"completion": pl.String()}  # damaged, and said so when it is read


def blocks(tree: Tree, logs: Sequence[Log], sink: Sink) -> Iterator[Block]:
    """Yield the completions of each log in the order of steps: from Parquet, else from tables of logs or W&B's files.

    Raises
    ------
    RunFormatError
        There are folders of several runs, or a file is damaged or holds rows of several steps.
    """
    folders = find_files(tree) or find_generations(tree)
    if len(folders) > 1:
        wrong = f"holds completions of {len(folders)} runs: {', '.join(folders)}"
        raise RunFormatError(str(tree.path), wrong, "one run", f"entropy-lab analyze {tree.path}/{min(folders)}")
    for file in next(iter(folders.values()), []):
        if file.suffix == ".parquet":
            yield _of_file(file, tree.label(file), sink)
        else:
            yield from (Block(*generation) for generation in generations(file, tree.label(file), sink))
    if not folders:
        yield from _of_tables(tree, logs)


def find_tables(tree: Tree) -> tuple[Path, ...]:
    """Find the tables of completions that W&B keeps as files beside its log."""
    return tree.having(lambda file: bool(_TABLE.fullmatch(file.name)))


def _of_tables(tree: Tree, logs: Sequence[Log]) -> Iterator[Block]:
    """Take the tables of one kind of log; a run and its continuation may have one each."""
    seen: Counter[int] = Counter()
    found = [(log, table) for log in logs for table in log.tables if table.name.split("/")[-1] == "completions"]
    for log, table in found:
        if log.kind == found[0][0].kind:
            yield _of_table(table, log.label, seen)
    for number, file in enumerate(() if found else find_tables(tree), start=1):
        table = TableRef(number, "completions", partial(json_table, file))
        yield _of_table(table, tree.label(file), seen)


def _of_table(table: TableRef, label: str, seen: Counter[int]) -> Block:
    """Take a table of a log; its own column ``step`` is the Trainer's, the sink's step only counts calls."""
    names, rows = table.load()
    frame = frame_of([dict(zip(names, row, strict=False)) for row in rows], names)
    steps = {as_step(value) for value in frame["step"].to_list()} if "step" in names else {table.step}
    step = next(iter(steps), None)
    if step is None or len(steps) > 1:
        raise RunFormatError(label, f"its table {table.name} has steps {steps}", "one step a table")
    seen[step] += 1
    return Block(step, frame, f"{label}: {table.name} of step {step}", seen[step] - 1)


def _of_file(file: Path, label: str, sink: Sink) -> Block:
    try:
        frame = pl.read_parquet(file, glob=False)
    except UNREADABLE as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        allowed = "a whole Parquet file; it may still be being written"
        raise RunFormatError(label, f"cannot be read ({said})", allowed) from error
    missing = [name for name in ("prompt", "completion") if name not in frame.columns]
    if missing:
        hint = f"--format table --map {missing[0]}=COLUMN reads other names"
        raise RunFormatError(label, f"has no {', '.join(missing)}", "the columns that TRL writes", hint)
    match = _FILE.fullmatch(file.name)
    named = int(match[1]) if match else 0
    if not frame.height:
        sink.warn(f"{label}: has no rows")
        return Block(named, frame, label)
    steps = [named] if "step" not in frame.columns else frame["step"].cast(pl.Int64).drop_nulls().unique().to_list()
    if len(steps) > 1:
        raise RunFormatError(label, f"mixes rows of steps {min(steps)} to {max(steps)}", "one step a file")
    return Block(int(steps[0]) if steps else named, frame, label)


def convert_completions(source: Iterator[Block], rows: Scalars, settings: Mapping[str, Any], sink: Sink) -> None:
    """Give the sink the training rollouts, and the answers of evaluations.

    Parameters
    ----------
    source
        Blocks in the order of steps.
    rows
        Scalars by the source's step: they tell evaluations, and name the reward functions.
    settings
        Training arguments, as far as known.
    sink
        Takes the steps.
    """
    reader = _Completions(rows, settings, sink)
    waiting: list[Block] = []
    for block in source:
        waiting.append(block)
        if len(waiting) == _PEEK:
            reader.take(waiting)
            waiting = []
    reader.take(waiting)
    reader.report()


class _Completions:
    """What has to be remembered from block to block."""

    def __init__(self, rows: Scalars, settings: Mapping[str, Any], sink: Sink) -> None:
        self.rows, self.settings, self.sink = rows, settings, sink
        size = settings.get("num_generations")
        self.size = int(size) if isinstance(size, int | float) and size else 0
        self.logged = {name.split("/")[1] for row in rows.values() for name in row if _is_reward_mean(name)}
        self.last = b""
        self.steps: list[int] = []
        self.repeats: list[int] = []

    def take(self, waiting: list[Block]) -> None:
        """Convert some blocks; the first ones also settle the group size."""
        waiting = [block for block in waiting if block.frame.height]
        if not self.size and waiting:
            self._infer_size([block for block in waiting if not self._is_evaluation(block)] or waiting)
        for block in waiting:
            self.sink.meet(block.frame.columns)
            prompts = [message_text(value) or "" for value in block.frame["prompt"].to_list()]
            completions = [message_text(value) or "" for value in block.frame["completion"].to_list()]
            content = blake2b("\0".join([*prompts, *completions]).encode("utf-8", "replace"), digest_size=16).digest()
            self.steps.append(block.step)
            if content == self.last:
                self.repeats.append(block.step)
                continue
            self.last = content
            frame = self._frame(block, prompts, completions)
            if self._is_evaluation(block):
                self._write_evaluation(block, frame)
            else:
                self.sink.rollouts(block.step, self._grouped(block, frame), block.where)

    def report(self) -> None:
        """Note what can be said of all blocks together."""
        if self.repeats:
            shown = ", ".join(map(str, self.repeats[:5])) + (", …" if self.repeats[5:] else "")
            self.sink.note(
                f"the completions of {len(self.repeats)} logs repeat those of the log before (steps {shown}: the same "
                "generation used again): they are kept once, under their first step"
            )
        gaps = np.diff(self.steps)
        if len(gaps) and gaps.min() > 1:
            self.sink.note(
                f"completions were logged every {int(np.median(gaps))} steps: each file holds the last generation "
                "only; logging_steps=1 keeps all"
            )

    def _infer_size(self, sample: list[Block]) -> None:
        prompts = [[str(value) for value in block.frame["prompt"].to_list()] for block in sample]
        size = common_size(prompts)
        alone = all(len(set(part)) == 1 for part in prompts)
        if size > 1 and alone and all("advantage" in block.frame.columns for block in sample):
            size = centred_size([numbers(block.frame["advantage"]).tolist() for block in sample], size)
        self.size = size if size > 1 else 1
        if size > 1:
            self.sink.note(
                f"num_generations is not recorded: {size} by runs of equal prompts; groups are rows in order"
            )
        else:
            self.sink.warn("completions do not stand in groups of equal prompts: rows of one prompt make a group")

    def _is_evaluation(self, block: Block) -> bool:
        """Tell rows of an evaluation: it overwrites the training file of its step, and logs ``eval_`` scalars."""
        if block.order is not None:  # training logs before it evaluates, and each logs a table of its own
            return block.order > 0
        row = self.rows.get(block.step, {})
        if not any(name.startswith("eval_") for name in row):
            return False
        reward, logged = float(np.mean(numbers(self._reward(block))) if block.frame.height else 0.0), row.get("reward")
        evaluated = row.get("eval_reward")
        is_training = logged is not None and abs(reward - logged) < 1e-4
        return not is_training or (evaluated is not None and abs(reward - evaluated) < 1e-4)

    def _functions(self, frame: pl.DataFrame) -> list[str]:
        """Name the reward functions: those that the scalars name, else the columns of floats."""
        named = [name for name in frame.columns if name in self.logged]
        return named or [name for name in frame.columns if frame[name].dtype.is_float() and name not in _BASE]

    def _reward(self, block: Block) -> pl.Series:
        """Sum the reward functions with their weights, as the Trainer does: what a function leaves out counts 0."""
        frame, theirs = block.frame, self.sink.options.theirs("reward")
        if theirs in frame.columns:
            return frame[theirs].cast(pl.Float64).fill_nan(None)
        functions = self._functions(frame)
        if not functions:
            hint = "--map reward=COLUMN"
            raise RunFormatError(block.where, f"has no reward among {', '.join(frame.columns)}", "one column", hint)
        weights = self.settings.get("reward_weights")
        if not isinstance(weights, list) or len(weights) != len(functions):
            weights = [1.0] * len(functions)
            if len(functions) > 1:
                self.sink.note(
                    f"reward is the sum of {', '.join(functions)} with weights 1: reward_weights is not recorded"
                )
        parts = [
            frame[name].cast(pl.Float64).fill_nan(0.0).fill_null(0.0) * weight
            for name, weight in zip(functions, weights, strict=True)
        ]
        return pl.Series("reward", np.sum([part.to_numpy() for part in parts], axis=0))

    def _frame(self, block: Block, prompts: list[str], completions: list[str]) -> pl.DataFrame:
        frame = block.frame
        columns: dict[str, Any] = {
            "prompt_id": prompt_ids(prompts),
            "reward": self._reward(block),
            "prompt": prompts,
            "completion": completions,
        }
        if "advantage" in frame.columns:
            columns["advantage"] = frame["advantage"].cast(pl.Float64).fill_nan(None)
        if (verdict := self._verdict(frame)) is not None:
            columns["correct"] = as_verdict(frame[verdict].cast(pl.Float64).fill_nan(None))
        extras = [
            (frame[name].fill_nan(None) if frame[name].dtype.is_float() else _plain(frame[name])).alias(
                kept_name(name, "trl")
            )
            for name in frame.columns
            if name not in _BASE and name != self.sink.options.columns.get("reward")
        ]
        return pl.DataFrame(columns).with_columns(*extras, *block.added)

    def _verdict(self, frame: pl.DataFrame) -> str | None:
        cleaned = frame.with_columns(pl.selectors.float().fill_nan(None))
        if "correct" in self.sink.options.columns or self.sink.options.correct_above is not None:
            return explicit_verdict(cleaned, self.sink.options)
        functions = self._functions(frame)
        if len(functions) < 2:
            return None  # the reward itself decides
        named = [name for name in functions if _VERDICT_NAME.search(name)]
        verdict = next((name for name in named if is_verdict(cleaned[name])), None)
        if verdict:
            self.sink.note(f"`correct` is the reward function {verdict}")
        elif binary := [name for name in functions if is_verdict(cleaned[name])]:
            self.sink.note(
                f"reward functions of 0 and 1: {', '.join(binary)}; --map correct={binary[0]} takes one as verdict"
            )
        return verdict

    def _grouped(self, block: Block, frame: pl.DataFrame) -> pl.DataFrame:
        ids = frame["prompt_id"].to_list()
        if self.size > 1 and frame.height % self.size == 0:
            groups = np.arange(frame.height) // self.size
        else:
            if self.size > 1:
                self.sink.note(f"{block.where}: {frame.height} rows are no multiple of {self.size}: grouped by prompt")
            groups = group_numbers(ids)
        return frame.with_columns(group_id=pl.Series(groups), sample=pl.Series(sample_numbers(groups)))

    def _write_evaluation(self, block: Block, frame: pl.DataFrame) -> None:
        if block.order is None:
            self.sink.note(
                f"{block.where}: an evaluation at step {block.step} overwrote the training completions (the log has "
                "eval_* there): its rows are validation answers, and the step's rollouts are lost"
            )
        answers = frame.rename({"prompt_id": "problem_id"}).with_columns(
            benchmark=pl.lit("evaluation"),
            sample=pl.Series(sample_numbers(group_numbers(frame["prompt_id"].to_list()))),
        )
        self.sink.evals(max(block.step - self.sink.step_offset, 0), answers, block.where)


def _is_reward_mean(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 3 and parts[0] == "rewards" and parts[2] == "mean"


def _plain(values: pl.Series) -> pl.Series:
    """Keep numbers, texts and lists of numbers; hold anything nested deeper as JSON text."""
    if values.dtype.is_nested():
        return frame_of([{"v": value} for value in values.to_list()], ["v"])["v"]
    return values
