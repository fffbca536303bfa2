"""slime's train data as older releases wrote them: one file of columns a rank, named ``{rollout_id}_{rank}.pt``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from entropy_lab.errors import RunFormatError
from entropy_lab.readers.records import Record
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.torch_file import load_arrays

_FILE: Final = re.compile(r"(?:.*[_-])?(\d+)[_-](?:rank[_-]?)?\d+\.pt")
_PER_TOKEN: Final = ("log_probs", "ref_log_probs", "rollout_log_probs", "advantages", "returns", "values", "entropy")


def rank_step(name: str, head: bytes) -> int | None:
    """Give the step of a file of one rank, by its name and first bytes; None for any other file.

    Examples
    --------
    >>> rank_step("12_3.pt", b"rollout_id rank rollout_data"), rank_step("12.pt", b"rollout_id samples")
    (12, None)
    """
    match = _FILE.fullmatch(name)
    is_one = b"rollout_id" in head and b"rank" in head and b"rollout_data" in head
    return int(match[1]) if match and is_one else None


def rank_records(files: Sequence[Path], label: Callable[[Path], str], sink: Sink) -> tuple[list[Record], list[Any]]:
    """Read the samples of a step from the files of all ranks.

    Ranks of tensor and pipeline parallelism hold the same samples: they are taken once, from the rank that has most
    fields. Values per token that do not cover the response (context parallelism cuts them) are left out.

    Parameters
    ----------
    files
        Of one step, each of a rank.
    label
        Gives a file's name in messages.
    sink
        Its option ``skip_invalid`` decides about damaged files.

    Returns
    -------
    tuple of (list of Record, list)
        The samples, and the rewards before normalisation of all that were drawn, in their order; empty when not kept.

    Raises
    ------
    RunFormatError
        A file is damaged.
    """
    ranks: dict[tuple[bytes, ...], tuple[str, Mapping[str, Any]]] = {}
    for file in files:
        try:
            columns = _columns(load_arrays(file, label(file)), label(file))
        except RunFormatError as error:
            if not sink.options.skip_invalid:
                raise
            sink.warn(f"left out: {label(file)}: {error.wrong}")
            continue
        key = tuple(token_key(ids) for ids in columns["tokens"])
        if key not in ranks or len(columns) > len(ranks[key][1]):
            ranks[key] = label(file), columns
    records = [record for where, columns in ranks.values() for record in _rows(where, columns, sink)]
    raw: list[Any] = next((list(columns["raw_reward"]) for _, columns in ranks.values() if "raw_reward" in columns), [])
    return records, raw


def by_position(records: Sequence[Record], samples: Mapping[int, Record]) -> dict[int, Record]:
    """Find the rollout of every sample by its tokens, and by its index where two have the same tokens.

    Parameters
    ----------
    records
        Samples of the train data.
    samples
        Position -> sample of the rollout data.

    Returns
    -------
    dict
        Position -> sample of the train data; samples that no rollout has the tokens of are not in it.
    """
    waiting: dict[bytes, list[Record]] = {}
    for record in records:
        waiting.setdefault(token_key(record.values["tokens"]), []).append(record)
    found = {}
    for position, sample in samples.items():
        alike = waiting.get(token_key(sample.values.get("tokens")), [])
        index = sample.values.get("index")
        same = [record for record in alike if record.values.get("sample_indices") == index]
        if alike:
            found[position] = (same or alike)[0]
            alike.remove(found[position])
    return found


def token_key(ids: Any) -> bytes:  # noqa: ANN401 - whatever was saved
    """Give token ids as bytes, which tell samples apart; empty for anything else.

    Examples
    --------
    >>> token_key([1, 2]) == token_key(np.array([1, 2], dtype=np.int32)), token_key(None)
    (True, b'')
    """
    array = np.asarray([] if ids is None else ids)
    return array.astype(np.int64).tobytes() if array.ndim == 1 and array.dtype.kind in "iu" else b""


def _columns(content: object, where: str) -> Mapping[str, Any]:
    columns = content.get("rollout_data") if isinstance(content, Mapping) else None
    tokens = columns.get("tokens") if isinstance(columns, Mapping) else None
    if not isinstance(columns, Mapping) or not isinstance(tokens, list) or "response_lengths" not in columns:
        raise RunFormatError(where, "has no tokens and response_lengths", "train data of slime")
    return columns


def _rows(where: str, columns: Mapping[str, Any], sink: Sink) -> Iterator[Record]:
    n_samples = len(columns["tokens"])
    lists = {name: part for name, part in columns.items() if isinstance(part, list) and len(part) == n_samples}
    for number in range(n_samples):
        row = {name: part[number] for name, part in lists.items() if name != "raw_reward"}
        cut = [name for name in _PER_TOKEN if name in row and len(row[name]) != row["response_lengths"]]
        if cut:
            sink.note(f"{where}: {', '.join(cut)} do not cover the responses (context parallelism cuts them): left out")
        yield Record(where, f"sample {number}", {name: part for name, part in row.items() if name not in cut})
