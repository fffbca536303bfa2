"""What a reader is: it tells whether a directory is of its framework, and turns it into our run.

A new reader is one file with a ``READER`` and one line in ``registry.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from entropy_lab.readers.sink import Sink
    from entropy_lab.readers.tree import Tree


@dataclass(frozen=True)
class Sighting:
    """What a reader saw in a directory.

    Parameters
    ----------
    version
        Which of the framework's layouts, in words: ``"V1 rollout dump, FileLogger"``.
    evidence
        One line per thing that gave it away: ``"rollouts/1.jsonl: input, output, score, step, uid"``.
    """

    version: str
    evidence: tuple[str, ...]


@dataclass(frozen=True)
class Options:
    """What the user said about the source.

    Parameters
    ----------
    format
        Name of the reader; None recognises it.
    columns
        Our name -> the source's, ``{"reward": "score"}``.
    correct_above
        A rollout is correct when its reward is above this.
    run_name
        Which run, of a source that holds several.
    skip_invalid
        Leave invalid rows and lines out, counted and named, instead of stopping at the first.

    Examples
    --------
    >>> Options(columns={"reward": "score"}).theirs("reward"), Options().theirs("reward")
    ('score', 'reward')
    """

    format: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    correct_above: float | None = None
    run_name: str | None = None
    skip_invalid: bool = False

    def theirs(self, ours: str) -> str:
        """Give the source's name of one of our columns."""
        return self.columns.get(ours, ours)


@dataclass(frozen=True)
class Reader:
    """One framework's reader.

    Parameters
    ----------
    name
        What ``--format`` takes and ``run.json`` records.
    title
        What people call it.
    recognise
        Looks at file names and first lines only; None when the files are not this framework's.
    convert
        Gives the sink every step's rollouts, validation answers and scalars, one step at a time.
    how_to_record
        Column of ours (or ``"evals"``, ``"metrics"``, ``"rollouts"``) -> how this framework would record it.
    generic
        Reads a container that any framework may write (TensorBoard, CSV): asked only when no framework was recognised.
    step_offset
        The source's step s is our step ``s - step_offset``; a reader may set another through ``Sink.step_offset``.
    """

    name: str
    title: str
    recognise: Callable[[Tree], Sighting | None]
    convert: Callable[[Tree, Sink], None]
    how_to_record: Mapping[str, str] = field(default_factory=dict)
    generic: bool = False
    step_offset: int = 1
