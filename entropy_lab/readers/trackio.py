"""trackio: the SQLite database of a project."""

from __future__ import annotations

from typing import Final

from entropy_lab.readers.containers import container
from entropy_lab.readers.reader import Reader

READER: Final[Reader] = container("trackio", "trackio", "trackio")
