"""The console that commands print on."""

from __future__ import annotations

import re
import sys
from typing import IO, Any, NoReturn, cast

from rich.console import Console


def console() -> Console:
    """Make a console on stdout: as wide as the terminal; in a file or a pipe wide enough for whole lines, unpadded."""
    if sys.stdout.isatty():
        return _Console(highlight=False)
    return _Console(highlight=False, width=160, file=cast("IO[str]", _Unpadded()))


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        """Leave it to `cli.main`, as where no console is used; rich would end with 1, which means something here."""
        raise BrokenPipeError


class _Unpadded:
    """The stdout of the moment, without the spaces that fill a table's cells at the ends of lines."""

    def write(self, text: str) -> int:
        return sys.stdout.write(re.sub(r" +(?=\n)", "", text))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever a stream has
        return getattr(sys.stdout, name)
