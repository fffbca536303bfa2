"""TOML files that ship with the package: the presets and the studies."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from entropy_lab.errors import UnknownNameError

SUFFIX: Final = ".toml"


@dataclass(frozen=True)
class BuiltIn:
    """The files of one kind, by name.

    Parameters
    ----------
    kind
        As errors call it: ``"preset"``.
    folder
        Where they lie.

    Examples
    --------
    >>> from entropy_lab import studies
    >>> built_in = BuiltIn("study", Path(studies.__file__).parent)
    >>> "tiny" in built_in.names(), built_in.find("tiny").name
    (True, 'tiny.toml')
    """

    kind: str
    folder: Path

    def names(self) -> tuple[str, ...]:
        """Names of the files, sorted."""
        return tuple(sorted(file.stem for file in self.folder.glob(f"*{SUFFIX}")))

    def find(self, name: str) -> Path:
        """Find a file by its name.

        Raises
        ------
        UnknownNameError
            There is no such file.
        """
        names = self.names()
        if name not in names:
            close = get_close_matches(name, names, n=1)
            hint = f"did you mean {close[0]}?" if close else f"a file of your own ends in {SUFFIX}"
            raise UnknownNameError(self.kind, f"there is no {name!r}", f"there are: {', '.join(names)}", hint)
        return self.folder / f"{name}{SUFFIX}"
