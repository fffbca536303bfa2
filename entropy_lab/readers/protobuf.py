"""The wire format of protocol buffers, as far as logs of scalars need it.

TensorBoard events and W&B records are protocol buffers of a handful of fields. Their own packages bring TensorFlow's or
W&B's whole client (tensorboard with grpcio 60 MB, wandb 120 MB); the format itself is stable and is read here in
thirty lines. https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import struct
from collections.abc import Iterator


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of one message in their order: the number, and the value as it is on the wire.

    Parameters
    ----------
    message
        One encoded message.

    Yields
    ------
    tuple of (int, int or bytes)
        Integers of varint fields (two's complement not undone), the bytes of the others.

    Raises
    ------
    ValueError
        The message is cut off or no protocol buffer.

    Examples
    --------
    >>> list(fields(bytes([0x08, 0x96, 0x01, 0x12, 0x02, 0x68, 0x69])))
    [(1, 150), (2, b'hi')]
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if kind == 2:
            size, at = _varint(message, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + size > len(message):
            raise ValueError("cut off")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message):
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if not byte & 0x80:
            return value, at
        shift += 7
        if shift > 63:
            break
    raise ValueError("cut off")


def signed(value: int) -> int:
    """Undo two's complement of a 64-bit varint: steps may be negative.

    Examples
    --------
    >>> signed(2**64 - 1), signed(3)
    (-1, 3)
    """
    return value - 2**64 if value >= 2**63 else value


def float32(value: bytes) -> float:
    """Give the number of a 4-byte field."""
    return float(struct.unpack("<f", value)[0])


def float64(value: bytes) -> float:
    """Give the number of an 8-byte field."""
    return float(struct.unpack("<d", value)[0])
