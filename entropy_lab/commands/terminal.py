"""The console that commands print on."""

from __future__ import annotations

import sys

from rich.console import Console


def console() -> Console:
    """Make a console on stdout: as wide as the terminal, and wide enough for whole lines in a file or a pipe."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)
