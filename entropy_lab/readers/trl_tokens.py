"""Token-level rows that a hook in TRL's ``_compute_loss`` kept, joined to the completions by step and row.

TRL itself writes none. Such a file has ``step``, ``row``, ``completion_ids``, ``logprob`` and mostly ``entropy`` and
``advantage``; inside the loss the Trainer's step is one less than in the completions' file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from entropy_lab.errors import RunFormatError
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.tree import Tree
from entropy_lab.readers.trl_completions import Block
from entropy_lab.step_files import UNREADABLE
from entropy_lab.validation import numbers

_FIELDS: Final = frozenset({"step", "row", "completion_ids", "logprob"})
_TOLERANCE: Final = 1e-4


def find_tokens(tree: Tree) -> list[Path]:
    """Find Parquet files with the hook's columns."""
    found = []
    for file in tree.having(lambda file: file.suffix == ".parquet" and not file.name.startswith("completions_")):
        try:
            if set(pl.read_parquet_schema(file)) >= _FIELDS:
                found.append(file)
        except UNREADABLE:
            continue
    return found


def with_tokens(tree: Tree, blocks: Iterator[Block], sink: Sink) -> Iterator[Block]:
    """Add token-level columns to the blocks whose step and rows have them.

    Raises
    ------
    RunFormatError
        The file is damaged, or its advantages are not those of the completions.
    """
    files = find_tokens(tree)
    if len(files) > 1:
        names = ", ".join(map(tree.label, files))
        raise RunFormatError(names, "are token-level rows of several runs", "one file", "name one run's directory")
    for block in blocks:
        yield _joined(block, files[0], tree.label(files[0]), sink) if files and block.frame.height else block


def _joined(block: Block, file: Path, label: str, sink: Sink) -> Block:
    try:
        scan = pl.scan_parquet(file, glob=False).filter(pl.col("step") == block.step - 1)
        tokens = scan.unique("row", keep="first", maintain_order=True).sort("row").collect()
    except UNREADABLE as error:
        raise RunFormatError(label, "cannot be read", "a whole Parquet file") from error
    if tokens["row"].to_list() != list(range(block.frame.height)):
        if tokens.height:
            sink.warn(
                f"{label}: step {block.step} has {tokens.height} rows, {block.where} {block.frame.height}: not joined"
            )
        return block
    columns = [
        tokens["completion_ids"].alias("token_ids"),
        tokens["completion_ids"].list.len().alias("n_tokens"),
        tokens["logprob"].alias("token_logp"),
        tokens["logprob"].list.sum().alias("logp"),
    ]
    if "entropy" in tokens.columns:
        columns += [tokens["entropy"].alias("token_entropy"), tokens["entropy"].list.mean().alias("entropy")]
    if "advantage" in tokens.columns and "advantage" in block.frame.columns:
        _require_same(tokens["advantage"], block, label)
        columns.append(tokens["advantage"].alias("token_advantage"))
    sink.note(f"{label}: token-level rows are joined by step and row; `logp` is of the forward pass inside the loss")
    return replace(block, added=pl.DataFrame(columns))


def _require_same(advantages: pl.Series, block: Block, label: str) -> None:
    mine = numbers(advantages.list.mean())
    theirs = numbers(block.frame["advantage"])
    if np.nanmax(np.abs(mine - theirs), initial=0.0) > _TOLERANCE:
        wrong = f"has other advantages at step {block.step} than {block.where}"
        raise RunFormatError(label, wrong, "the rows of one run, in the order of the completions")
