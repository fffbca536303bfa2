"""Token-level fields of verl's transfer queue, kept as one Parquet file per step by a hook of the user's own.

verl itself writes no token-level data; those who take it in ``_log_rollout_data`` keep the queue's own field names:
``responses``, ``response_mask``, ``old_log_probs``, ``entropy``, ``advantages``, …, and the key or uid of the row.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from entropy_lab.errors import RunFormatError
from entropy_lab.readers.groups import group_numbers, sample_numbers
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.tree import Tree
from entropy_lab.step_files import UNREADABLE

_FIELDS: Final = frozenset({"responses", "old_log_probs"})
_NUMBERED: Final = re.compile(r"\d+\.parquet")
_KEYS: Final = ("key", "uid")
_LISTS: Final = {
    "responses": ("token_ids", None),
    "old_log_probs": ("token_logp", "logp"),
    "rollout_log_probs": ("token_sampler_logp", "sampler_logp"),
    "entropy": ("token_entropy", None),
    "advantages": ("token_advantage", None),
}
"""Field -> our column of lists, and of their sum."""


@dataclass(frozen=True)
class Tensors:
    """The token-level files of one folder."""

    folder: str
    files: dict[int, Path]
    keys: tuple[str, ...]

    version = "token-level fields of a hook"

    @property
    def evidence(self) -> str:
        """What gave it away."""
        return f"{self.folder}: {len(self.files):,} Parquet files with {', '.join(sorted(_FIELDS & set(self.keys)))}"

    def frame(self, step: int) -> pl.DataFrame:
        """Read a step as columns of ours, one row per rollout with its ``key``, without padding and tool tokens."""
        file = self.files[step]
        try:
            raw = pl.read_parquet(file, glob=False)
        except UNREADABLE as error:
            raise RunFormatError(str(file), "cannot be read", "a whole Parquet file") from error
        key = next((name for name in _KEYS if name in raw.columns), None)
        columns: list[pl.Series] = [raw[key].cast(pl.String).alias("key")] if key else []
        mask = raw["response_mask"] if "response_mask" in raw.columns else None
        for name, (lists, total) in _LISTS.items():
            if name in raw.columns:
                values = _masked(raw[name], mask).alias(lists)
                columns.append(values)
                columns += [values.list.sum().alias(total)] if total else []
        frame = pl.DataFrame(columns).with_columns(pl.col("token_ids").list.len().alias("n_tokens"))
        derived = []
        if "token_entropy" in frame.columns:
            derived.append(pl.col("token_entropy").list.mean().alias("entropy"))
        if "token_advantage" in frame.columns:
            derived.append(pl.col("token_advantage").list.mean().alias("advantage"))
        if "rm_scores" in raw.columns:
            frame = frame.with_columns(raw["rm_scores"].list.sum().alias("score"))
        return frame.with_columns(derived)

    def write_alone(self, done: set[int], sink: Sink) -> None:
        """Write the steps that no dump of texts holds."""
        for step in self.files:
            if step in done:
                continue
            where = f"{self.folder}/{self.files[step].name}"
            frame = self.frame(step)
            if not {"key", "score"} <= set(frame.columns):
                raise RunFormatError(
                    where, "has no key or no rm_scores", "both, or a dump of rollouts of the same step"
                )
            labels = [str(key).rsplit("_", 2)[0] for key in frame["key"]]
            groups = group_numbers(labels)
            ids = {"prompt_id": labels, "group_id": groups, "sample": sample_numbers(groups)}
            sink.rollouts(step, frame.rename({"score": "reward", "key": "uid"}).with_columns(**_series(ids)), where)


def _series(columns: dict[str, Any]) -> dict[str, pl.Series]:
    return {name: pl.Series(name, values) for name, values in columns.items()}


def _masked(values: pl.Series, mask: pl.Series | None) -> pl.Series:
    if mask is None:
        return values
    both = pl.DataFrame({"row": range(len(values)), "v": values, "m": mask}).explode("v", "m")
    kept = both.filter(pl.col("m") != 0).group_by("row", maintain_order=True).agg("v")
    rows = pl.DataFrame({"row": range(len(values))}).join(kept, on="row", how="left", maintain_order="left")
    return rows["v"].fill_null([])


def find_tensors(tree: Tree) -> list[Tensors]:
    """Find folders of Parquet files that are named by their step and have the queue's fields."""
    folders: dict[Path, list[Path]] = {}
    for file in tree.having(lambda file: bool(_NUMBERED.fullmatch(file.name))):
        folders.setdefault(file.parent, []).append(file)
    found = []
    for folder, files in folders.items():
        try:
            keys = tuple(pl.read_parquet_schema(files[0]))
        except UNREADABLE:
            continue
        if set(keys) >= _FIELDS:
            label = "." if folder == tree.path or tree.path.is_file() else tree.label(folder)
            found.append(Tensors(label, {int(file.stem): file for file in files}, keys))
    return found


def join_tensors(source: Tensors, step: int, frame: pl.DataFrame, sink: Sink) -> pl.DataFrame:
    """Add token-level columns to a step's rollouts by their uid.

    Raises
    ------
    RunFormatError
        The step's rows do not match one to one.
    """
    if step not in source.files:
        return frame
    where = f"{source.folder}/{source.files[step].name}"
    tokens = source.frame(step)
    if "key" not in tokens.columns or "uid" not in frame.columns:
        sink.warn(f"{where}: token-level rows have no key, or the dump no uid: they cannot be joined and are left out")
        return frame
    if _sorted(tokens["key"]) != _sorted(frame["uid"]):
        wrong = f"holds other rollouts of step {step} than the dump"
        raise RunFormatError(where, wrong, "the same uids", "name one run's directory")
    sink.note(f"{source.folder}: token-level fields are joined by uid")
    added = tokens.drop("score", strict=False)
    return frame.join(added, left_on="uid", right_on="key", how="left", maintain_order="left")


def _sorted(values: pl.Series) -> Sequence[Any]:
    return values.sort().to_list()
