"""JSON lines as they come from training runs: streamed with line numbers, possibly cut off at the end."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entropy_lab.errors import RunFormatError
from entropy_lab.readers.tree import cannot_read

if TYPE_CHECKING:
    from entropy_lab.readers.sink import Sink


def read_objects(file: Path, label: str, sink: Sink) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects of a file with their line numbers, one at a time.

    A last line that is cut off is left out with a warning: the file may still be growing, or the run was killed.

    Parameters
    ----------
    file
        One JSON object a line; empty lines are passed over.
    label
        How messages name the file.
    sink
        Takes the warnings; its option ``skip_invalid`` decides about broken lines before the last.

    Yields
    ------
    tuple of (int, dict)
        Line number from 1, and the object.

    Raises
    ------
    RunFormatError
        A line before the last is not a JSON object (not with ``skip_invalid``), or the file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from entropy_lab.readers.sink import Sink
    >>> from entropy_lab.readers.reader import Options
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "a.jsonl").write_text('{"x": 1}' + chr(10) + '{"x": 2}' + chr(10))
    >>> sink = Sink(folder / "run", "verl", Options())
    >>> [(line, row["x"]) for line, row in read_objects(folder / "a.jsonl", "a.jsonl", sink)]
    [(1, 1), (2, 2)]
    """
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            previous: tuple[int, bytes] | None = None
            for number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                if previous is not None and (row := _parsed(*previous, label, sink)) is not None:
                    yield previous[0], row
                previous = number, line
            if previous is not None and (row := _last(*previous, label, sink)) is not None:
                yield previous[0], row
    except (EOFError, zlib.error):  # of a compressed file
        sink.warn(f"{label}: its end is cut off: what came before is read")
    except OSError as error:
        raise cannot_read(label, error) from error


def _last(number: int, line: bytes, label: str, sink: Sink) -> dict[str, Any] | None:
    try:
        whole = isinstance(json.loads(line), dict)
    except ValueError:
        whole = False
    if whole or line.endswith(b"\n"):
        return _parsed(number, line, label, sink)
    sink.warn(f"{label}: line {number}, its last, is cut off and left out")
    return None


def _parsed(number: int, line: bytes, label: str, sink: Sink) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
        if isinstance(row, dict):
            return row
        what = f"line {number} holds a JSON {type(row).__name__}"
    except ValueError:
        what = f"line {number} is not JSON (it begins {line[:24].decode('utf-8', 'replace')!r})"
    if not sink.options.skip_invalid:
        raise RunFormatError(label, what, "one JSON object a line", "--skip-invalid reads the rest")
    sink.left_out(1, f"{label}: {what}")
    return None
