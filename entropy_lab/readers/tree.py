"""The files that a reader may look at: listed once, and peeked into cheaply."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from entropy_lab.errors import RunFormatError, RunNotFoundError
from entropy_lab.schema import FORMAT

MOST_FILES: Final = 200_000
"""More files than any run writes: the path is probably a home directory."""

OWN_SUFFIX: Final = "entropy-lab"
"""Folders and files of this name, or with it behind a dot, are our own imports."""

_PASSED_OVER: Final = frozenset({"__pycache__", "node_modules", "site-packages"})
_HIDDEN_KEPT: Final = frozenset({".hydra"})


@dataclass(frozen=True)
class Tree:
    """The files at or below a path, in the order of their names; hidden files and our own imports are passed over.

    Parameters
    ----------
    path
        What the user named: a directory or one file.
    files
        Absolute or relative like ``path``.
    runs
        Directories below that hold a run of our own format; their files are not among ``files``.
    memory
        What readers found out and would otherwise find out again.
    """

    path: Path
    files: tuple[Path, ...]
    runs: tuple[Path, ...] = ()
    memory: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    _heads: dict[Path, bytes] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, path: str | Path) -> Tree:
        """List the files of a directory, or take one file.

        Raises
        ------
        RunNotFoundError
            There is nothing at the path.
        RunFormatError
            There are more than ``MOST_FILES`` files, or the operating system refuses to list them.

        Examples
        --------
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("10.jsonl", "9.jsonl", ".hidden"):
        ...     _ = (folder / name).write_text("")
        >>> [file.name for file in Tree.of(folder).files]
        ['9.jsonl', '10.jsonl']
        """
        place = Path(path)
        if place.is_file():
            return cls(place, (place,))
        if not place.is_dir():
            raise RunNotFoundError(str(path), "does not exist", "a directory or file of a training run")
        found: list[Path] = []
        runs: list[Path] = []
        try:
            for file in _walk(place, runs):
                found.append(file)
                if len(found) > MOST_FILES:
                    wrong = f"holds more than {MOST_FILES:,} files"
                    raise RunFormatError(str(path), wrong, "the directory of one training run")
        except OSError as error:
            raise RunFormatError(str(path), f"cannot be listed ({error.strerror})", "a readable directory") from error
        return cls(place, tuple(sorted(found, key=natural)), tuple(sorted(runs, key=natural)))

    def label(self, file: Path) -> str:
        """Name a file as its owner would: relative to the directory."""
        return file.name if file == self.path else str(file.relative_to(self.path))

    def named(self, files: Sequence[Path]) -> str:
        """Name files, one or more, by the first: ``"1.jsonl and 9 more"``."""
        return self.label(files[0]) + (f" and {len(files) - 1:,} more" if files[1:] else "")

    def having(self, test: Callable[[Path], bool]) -> tuple[Path, ...]:
        """Give the files that pass a test."""
        return tuple(file for file in self.files if test(file))

    def head(self, file: Path, size: int = 65_536) -> bytes:
        """Read a file's first bytes, once.

        Raises
        ------
        RunFormatError
            The file cannot be read.
        """
        known = self._heads.get(file)
        if known is None or len(known) < size:
            try:
                with file.open("rb") as stream:
                    known = self._heads[file] = stream.read(size)
            except OSError as error:
                raise cannot_read(self.label(file), error) from error
        return known[:size]

    def first_object(self, file: Path) -> dict[str, Any] | None:
        """Parse the first line of a file of JSON lines; None when it is not a whole JSON object.

        Examples
        --------
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "a.jsonl"
        >>> _ = file.write_text('{"step": 1}' + chr(10) + '{"st')
        >>> Tree.of(file).first_object(file)
        {'step': 1}
        """
        if file.suffix == ".gz":
            return _first_compressed(file)
        line = self.head(file).lstrip().split(b"\n", 1)[0]
        if len(line) >= 65_536:  # a long rollout: read on to the end of the line
            with file.open("rb") as stream:
                line = next((text for text in stream if text.strip()), b"")
        try:
            value = json.loads(line)
        except ValueError:
            return None
        return value if isinstance(value, dict) else None


def _first_compressed(file: Path) -> dict[str, Any] | None:
    try:
        with gzip.open(file) as stream:
            value = json.loads(next((line for line in stream if line.strip()), b""))
    except (OSError, EOFError, ValueError, zlib.error):
        return None
    return value if isinstance(value, dict) else None


def cannot_read(label: str, error: OSError) -> RunFormatError:
    """Word the error of a file that the operating system refuses to read."""
    return RunFormatError(label, f"cannot be read ({error.strerror or error})", "a readable file")


def natural(path: Path) -> tuple[Any, ...]:
    """Sort key that puts ``9.jsonl`` before ``10.jsonl``.

    Examples
    --------
    >>> sorted([Path("10.jsonl"), Path("9.jsonl")], key=natural)[0].name
    '9.jsonl'
    """
    return tuple(
        (0, int(part), "") if part.isdigit() else (1, 0, part) for piece in path.parts for part in _parts(piece)
    )


def _parts(text: str) -> Iterator[str]:
    part = ""
    for letter in text:
        if part and (letter.isdecimal() and letter.isascii()) != (part[-1].isdecimal() and part[-1].isascii()):
            yield part
            part = ""
        part += letter
    yield part


def _walk(folder: Path, runs: list[Path]) -> Iterator[Path]:
    entries = list(os.scandir(folder))
    if any(entry.name == "run.json" and _is_ours(Path(entry.path)) for entry in entries):
        runs.append(folder)
        return
    for entry in entries:
        hidden = entry.name.startswith(".") and entry.name not in _HIDDEN_KEPT
        ours = entry.name.split(".")[-1] == OWN_SUFFIX
        # SQLite's -shm file is memory that processes share, and changes when somebody reads.
        if hidden or ours or entry.name in _PASSED_OVER or entry.name.endswith("-shm"):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), runs)
        elif entry.is_file():
            yield Path(entry.path)


def _is_ours(file: Path) -> bool:
    with file.open("rb") as stream:
        return FORMAT.encode() in stream.read(4096)
