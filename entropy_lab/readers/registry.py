"""Every reader by name, and which one a directory is for.

A new reader is a file with a ``READER``, and one line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Final

from entropy_lab.errors import RunFormatError, UnknownNameError
from entropy_lab.readers import (
    areal,
    mlflow,
    nemo_rl,
    open_instruct,
    openrlhf,
    prime_rl,
    roll,
    skyrl,
    slime,
    tables,
    tensorboard,
    tinker,
    trackio,
    trl,
    verl,
    wandb,
)
from entropy_lab.readers.reader import Reader, Sighting
from entropy_lab.readers.tree import Tree

READERS: Final[Mapping[str, Reader]] = MappingProxyType(
    {
        reader.name: reader
        for reader in (
            verl.READER,
            trl.READER,
            nemo_rl.READER,
            prime_rl.READER,
            slime.READER,
            open_instruct.READER,
            skyrl.READER,
            areal.READER,
            roll.READER,
            tinker.READER,
            openrlhf.READER,
            # Containers that any framework may write to: asked only when no framework above is recognised.
            wandb.READER,
            trackio.READER,
            mlflow.READER,
            tensorboard.READER,
            tables.READER,
        )
    }
)


def names() -> tuple[str, ...]:
    """Names of all readers, as ``--format`` takes them.

    Examples
    --------
    >>> names()[:2]
    ('verl', 'trl')
    """
    return tuple(READERS)


def recognised(tree: Tree, name: str | None = None) -> tuple[Reader, Sighting]:
    r"""Find the reader of a directory.

    Parameters
    ----------
    tree
        The directory's files.
    name
        The reader that the user names; it must find something to read.

    Returns
    -------
    tuple of (Reader, Sighting)

    Raises
    ------
    UnknownNameError
        There is no such reader.
    RunFormatError
        No reader, or more than one framework's, recognises the files.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "metrics.csv").write_text("step,entropy\n1,0.5\n")
    >>> recognised(Tree.of(folder))[0].name
    'table'
    """
    if name is not None:
        return _named(tree, name)
    for generic in (False, True):
        seen = [
            (reader, sighting)
            for reader in READERS.values()
            if reader.generic is generic and (sighting := reader.recognise(tree))
        ]
        if generic and seen:  # several containers of one run: the first in the registry has most
            return seen[0]
        if len(seen) == 1:
            return seen[0]
        if seen:
            said = "; ".join(f"{reader.title} ({sighting.evidence[0]})" for reader, sighting in seen)
            hint = " or ".join(f"--format {reader.name}" for reader, _ in seen)
            raise RunFormatError(str(tree.path), f"holds files of {len(seen)} frameworks: {said}", "one", hint)
    if tree.runs:
        shown = ", ".join(tree.label(run) for run in tree.runs[:5]) + (", …" if tree.runs[5:] else "")
        hint = f"entropy-lab analyze {tree.runs[0]}"
        raise RunFormatError(str(tree.path), f"holds {len(tree.runs)} runs of entropy-lab ({shown})", "name one", hint)
    count = f"{len(tree.files):,} files" if len(tree.files) != 1 else "1 file"
    known = ", ".join(reader.title for reader in READERS.values())
    hint = "--format NAME, and --map OURS=THEIRS for tables; docs/readers.md"
    raise RunFormatError(str(tree.path), f"holds nothing that a reader knows ({count})", known, hint)


def _named(tree: Tree, name: str) -> tuple[Reader, Sighting]:
    if name not in READERS:
        close = get_close_matches(name, READERS, n=1)
        hint = f"--format {close[0]}" if close else ""
        raise UnknownNameError(f"--format {name}", "is no reader", f"one of {', '.join(READERS)}", hint)
    reader = READERS[name]
    sighting = reader.recognise(tree)
    if sighting is None:
        others = [other.name for other in READERS.values() if other.recognise(tree)]
        hint = f"--format {others[0]}" if others else "docs/readers.md lists what each reader looks for"
        raise RunFormatError(str(tree.path), f"holds nothing of {reader.title}", "what the named format writes", hint)
    return reader, sighting
