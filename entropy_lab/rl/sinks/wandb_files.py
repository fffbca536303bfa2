"""What Weights & Biases has on disk of a run: the last step in its ``.wandb`` files, for which it has no function."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_HEADER: Final = struct.Struct("<4sHB")
_MAGIC: Final = b":W&B"
_PART: Final = struct.Struct("<IHB")
"""Checksum, length and kind of a part of a record."""
_BLOCK: Final = 2**15
_ENDS: Final = (1, 4)
"""Kinds of part that end a record: all of it, its last; 2 and 3 are the first and those between, 0 is padding."""


def last_step(file: Path) -> int:
    """Find the last step in a file of Weights & Biases.

    Parameters
    ----------
    file
        A ``.wandb`` file; it may end in the middle of a record, as a killed process leaves it.

    Returns
    -------
    int
        -1 when there is none.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    last = -1
    for content in records(file.read_bytes()):
        record = Record()
        record.ParseFromString(content)
        if record.HasField("history"):
            last = max(last, int(record.history.step.num))
    return last


def records(data: bytes) -> Iterator[bytes]:
    """Take the records out of a log in LevelDB's format: parts with a head of 7 bytes, in blocks of 32 KiB.

    Parameters
    ----------
    data
        The file; nothing is read from one of another kind.

    Yields
    ------
    bytes
        Each whole record.

    References
    ----------
    LevelDB, ``doc/log_format.md``.

    Examples
    --------
    >>> head = _HEADER.pack(b":W&B", 0xBEE1, 0)
    >>> whole, torn = _PART.pack(0, 2, 1) + b"ab", _PART.pack(0, 9, 1) + b"cut"
    >>> list(records(head + whole + whole + torn))
    [b'ab', b'ab']
    """
    if data[: len(_MAGIC)] != _MAGIC:
        return
    at, record = _HEADER.size, b""
    while at + _PART.size <= len(data):
        left = _BLOCK - at % _BLOCK
        _, length, kind = _PART.unpack_from(data, at)
        if left < _PART.size or kind == 0:  # the rest of the block is padding
            at += left
            continue
        at += _PART.size
        if at + length > len(data):
            return
        record += data[at : at + length]
        at += length
        if kind in _ENDS:
            yield record
            record = b""
