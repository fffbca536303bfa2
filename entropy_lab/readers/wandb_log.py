"""W&B's ``run-<id>.wandb``: the log that its client writes beside (or instead of) sending.

The file is a LevelDB log (blocks of 32 KiB, records with a CRC-32, long ones in pieces) of protocol buffers. Decoded
here, because the package wandb is 120 MB and starts a service of its own; nothing is sent anywhere.
https://github.com/google/leveldb/blob/main/doc/log_format.md
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from entropy_lab.readers.protobuf import fields, float64, signed

MAGIC: Final = b":W&B\xe1\xbe\x00"
"""First bytes of every such file: name, magic number 0xBEE1, version 0."""

_BLOCK: Final = 32_768
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_HISTORY, _CONFIG, _RUN = 2, 5, 17


@dataclass
class WandbLog:
    """What a log holds.

    Attributes
    ----------
    name, project
        As the user called them; empty when not recorded.
    config
        Nested settings.
    history
        One dictionary per ``wandb.log`` step, with ``_step``; values are JSON values.
    damage
        What could not be read, in words; empty for a whole file.
    """

    name: str = ""
    project: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    damage: str = ""


def read_log(file: Path, most: int | None = None) -> WandbLog:
    """Decode a log, or its beginning.

    Parameters
    ----------
    file
        ``run-<id>.wandb``
    most
        Stop after this many steps of history.

    Returns
    -------
    WandbLog
        What was read before any damage.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    log = WandbLog()
    with file.open("rb") as stream:
        if stream.read(7)[:4] != MAGIC[:4]:
            log.damage = "does not begin as a .wandb file"
            return log
        try:
            for record in _records(stream):
                _take(log, record)
                if most is not None and len(log.history) >= most:
                    break
        except (ValueError, EOFError) as error:
            log.damage = str(error) or "cut off"
    return log


def _records(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield whole records; EOFError at a torn end, ValueError at a wrong checksum."""
    at, pieces = 7, b""
    while True:
        left = _BLOCK - at % _BLOCK
        if left < 7:
            stream.read(left)
            at += left
            continue
        head = stream.read(7)
        if not head:
            if pieces:
                raise EOFError("cut off")
            return
        if len(head) < 7:
            raise EOFError("cut off")
        check, size, kind = struct.unpack("<IHB", head)
        data = stream.read(size)
        if kind == 0 and size == 0 and check == 0:  # zeros that a crash left behind the last record
            raise EOFError("cut off")
        if len(data) < size:
            raise EOFError("cut off")
        if zlib.crc32(data, zlib.crc32(bytes([kind]))) != check:
            raise ValueError(f"a record at byte {at:,} does not fit its checksum")
        at += 7 + size
        pieces = data if kind in (_FULL, _FIRST) else pieces + data
        if kind in (_FULL, _LAST):
            yield pieces
            pieces = b""


def _take(log: WandbLog, record: bytes) -> None:
    for number, value in fields(record):
        if not isinstance(value, bytes):
            continue
        if number == _HISTORY:
            log.history.append(_history(value))
        elif number == _CONFIG:
            _update(log.config, value)
        elif number == _RUN:
            for key, part in fields(value):
                if isinstance(part, bytes) and key in (3, 8):
                    setattr(log, "project" if key == 3 else "name", part.decode("utf-8", "replace"))
                elif isinstance(part, bytes) and key == 4:
                    _update(log.config, part)


def _history(message: bytes) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for number, value in fields(message):
        if number == 1 and isinstance(value, bytes):
            path, found = _item(value)
            row |= _flat(".".join(path), found)
        elif number == 2 and isinstance(value, bytes):
            row["_step"] = next((signed(part) for key, part in fields(value) if key == 1 and isinstance(part, int)), 0)
    return row


def _flat(name: str, value: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Spell dictionaries out, ``{"table": {"path": …}}`` as ``table.path``: clients of all ages then look alike."""
    if not isinstance(value, dict):
        return {name: value}
    return {key: found for inner, part in value.items() for key, found in _flat(f"{name}.{inner}", part).items()}


def _update(config: dict[str, Any], message: bytes) -> None:
    for number, value in fields(message):
        if number == 1 and isinstance(value, bytes):
            path, found = _item(value)
            inner = config
            for key in path[:-1]:
                inner = inner.setdefault(key, {})
            inner[path[-1]] = found


def _item(message: bytes) -> tuple[list[str], Any]:
    """Read a key, possibly nested, and its value: JSON text, or the typed fields of newer clients."""
    key, nested = "", list[str]()
    value: Any = None
    for number, part in fields(message):
        if isinstance(part, int):
            value = {4: bool(part), 5: signed(part)}.get(number, value)
        elif number == 1:
            key = part.decode("utf-8", "replace")
        elif number == 2:
            nested.append(part.decode("utf-8", "replace"))
        elif number == 6:
            value = float64(part)
        elif number == 7:
            value = part.decode("utf-8", "replace")
        elif number in (8, 16):
            value = json.loads(part)  # NaN and Infinity included
    return nested or [key], value
