"""TensorBoard event files: scalars, and the texts in which trainers leave their settings.

A file is a chain of records, each a length, the payload and checksums (CRC-32C); a payload is an ``Event`` message.
Decoded here, because the package tensorboard brings grpc, a web server and protobuf for what is fifty lines.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from entropy_lab.readers.protobuf import fields, float32, float64, signed

_PORTION: Final = 4096
_LONGEST: Final = 1 << 30


class Event(NamedTuple):
    """One value of one tag: a scalar, or a text (of which ``value`` is the UTF-8 string)."""

    step: int
    tag: str
    value: float | str


class Damage(NamedTuple):
    """Where an event file stops making sense: ``cut off`` at its end, or a checksum that does not fit."""

    offset: int
    what: str


def read_events(file: Path) -> Iterator[Event | Damage]:
    """Yield the scalars and texts of an event file, and the damage that was met.

    A record with a wrong checksum is passed over; after a broken length nothing more can be found, and reading ends.

    Parameters
    ----------
    file
        ``events.out.tfevents.…``

    Yields
    ------
    Event or Damage
        In the order of the file.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    portion: list[tuple[int, bytes, int]] = []
    with file.open("rb") as stream:
        for record in _records(stream):
            if isinstance(record, Damage):
                yield from _checked(portion)
                yield record
                return
            portion.append(record)
            if len(portion) == _PORTION:
                yield from _checked(portion)
                portion = []
    yield from _checked(portion)


def _records(stream) -> Iterator[tuple[int, bytes, int] | Damage]:  # type: ignore[no-untyped-def]  # noqa: ANN001
    offset = 0
    while head := stream.read(12):
        if len(head) < 12:
            yield Damage(offset, "cut off")
            return
        size, check = struct.unpack("<QI", head)
        if masked_crc([head[:8]])[0] != check or size > _LONGEST:
            yield Damage(offset, "a record's length does not fit its checksum")
            return
        body = stream.read(size + 4)
        if len(body) < size + 4:
            yield Damage(offset, "cut off")
            return
        yield offset, body[:size], struct.unpack("<I", body[size:])[0]
        offset += size + 16


def _checked(portion: Sequence[tuple[int, bytes, int]]) -> Iterator[Event | Damage]:
    sums = masked_crc([payload for _, payload, _ in portion])
    for (offset, payload, check), found in zip(portion, sums, strict=True):
        if found != check:
            yield Damage(offset, "a record does not fit its checksum")
            continue
        try:
            yield from _values(payload)
        except ValueError as error:
            yield Damage(offset, f"a record is no event ({error})")


def _values(payload: bytes) -> Iterator[Event]:
    step, summary = 0, b""
    for number, value in fields(payload):
        if number == 2 and isinstance(value, int):
            step = signed(value)
        elif number == 5 and isinstance(value, bytes):
            summary = value
    for number, value in fields(summary):
        if number == 1 and isinstance(value, bytes):
            parts: Mapping[int, int | bytes] = dict(fields(value))
            tag = parts.get(1, b"")
            found = _scalar(parts)
            if found is not None and isinstance(tag, bytes):
                yield Event(step, tag.decode("utf-8", "replace"), found)


def _scalar(parts: Mapping[int, int | bytes]) -> float | str | None:
    """Read ``simple_value``, or a tensor of one float, double or string, as newer writers use."""
    simple, tensor = parts.get(2), parts.get(8)
    if isinstance(simple, bytes):
        return float32(simple)
    if not isinstance(tensor, bytes):
        return None
    held = dict(fields(tensor))
    kind, content = held.get(1), held.get(4)
    for key, number, width, convert in ((1, 5, 4, float32), (2, 6, 8, float64)):
        value = held.get(number, content)
        if kind == key and isinstance(value, bytes) and len(value) == width:
            return convert(value)
    text = held.get(8)
    return text.decode("utf-8", "replace") if kind == 7 and isinstance(text, bytes) else None


@cache
def _table() -> NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1).astype(np.uint32)
    return table


def masked_crc(payloads: Sequence[bytes]) -> list[int]:
    """Compute the masked CRC-32C of many short payloads, those of one length side by side.

    Parameters
    ----------
    payloads
        Bytes of any lengths.

    Returns
    -------
    list of int
        ``rotate_right(crc, 15) + 0xa282ead8``, 32 bits, as TFRecord stores it.

    References
    ----------
    CRC-32C: RFC 3720, appendix B.4; the mask: TFRecord.

    Examples
    --------
    >>> crc = (masked_crc([b"123456789"])[0] - 0xA282EAD8) % 2**32
    >>> hex((crc << 15 | crc >> 17) % 2**32)
    '0xe3069283'
    """
    table = _table()
    sums = np.zeros(len(payloads), dtype=np.uint32)
    by_length: dict[int, list[int]] = {}
    for row, payload in enumerate(payloads):
        by_length.setdefault(len(payload), []).append(row)
    for length, rows in by_length.items():
        data = np.frombuffer(b"".join(payloads[row] for row in rows), dtype=np.uint8).reshape(len(rows), length)
        crc = np.full(len(rows), 0xFFFFFFFF, dtype=np.uint32)
        for column in data.T:
            crc = table[(crc ^ column) & 0xFF] ^ (crc >> 8)
        crc ^= np.uint32(0xFFFFFFFF)
        sums[rows] = ((crc >> 15) | (crc << 17)) + np.uint32(0xA282EAD8)
    return [int(value) for value in sums]
