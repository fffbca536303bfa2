"""One pass over a run's rollouts that any number of analyses share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from entropy_lab.batches import GroupBatch, read_batches
from entropy_lab.run import Run
from entropy_lab.step_files import StepFile
from entropy_lab.table import Table


class Fold(ABC):
    """An analysis that takes the rollouts step by step and keeps only sums.

    A recipe's ``analyze`` returns a fold when it wants to share the pass over the rollouts with the other analyses.
    What a fold keeps must not grow with the number of rollouts.

    Attributes
    ----------
    until
        The fold needs steps below this index only; None means all.
    columns
        What it reads beside the columns that its recipe names: those that depend on parameters.
    """

    until: int | None = None
    columns: tuple[str, ...] = ()

    @abstractmethod
    def add(self, batch: GroupBatch) -> None:
        """Take one step's groups."""

    @abstractmethod
    def table(self) -> Table:
        """Give the result."""

    def wants(self, step: int) -> bool:
        """Tell whether the fold needs this step."""
        return self.until is None or step < self.until


PORTION_BYTES: Final = 4_000_000
PORTION_FILES: Final = 16
"""Files are read together up to these sizes on disk: enough to spread the cost of a query, little in memory."""

Need = tuple[Fold, Iterable[str]]
"""A fold with the columns that it needs."""
Portion = tuple[list[StepFile], list[Need]]
"""Files that are read together, and the folds that want them."""


def run_folds(run: Run, folds: Sequence[Need]) -> None:
    """Read the rollouts once and give every fold the steps it wants.

    Only columns that some fold needs are read, a few megabytes of files at a time; the next portion is read while this
    one is added up, so that two portions are in memory, however long the run is.

    Parameters
    ----------
    run
        The run to read.
    folds
        Folds with the columns that each needs.

    Raises
    ------
    RunFormatError
        A file or row is invalid (not with ``run.skip_invalid``).
    """
    plan = list(_portions(run, folds))
    with ThreadPoolExecutor(max_workers=1) as reader:
        ahead = [reader.submit(_read, run, plan[0])] if plan else []
        for position, (_, wanting) in enumerate(plan):
            batches = ahead.pop().result()
            if position + 1 < len(plan):
                ahead.append(reader.submit(_read, run, plan[position + 1]))
            for batch in batches:
                for fold, _ in wanting:
                    if batch.n_rollouts:
                        fold.add(batch)


def _portions(run: Run, folds: Sequence[Need]) -> Iterator[Portion]:
    """Cut the files into portions of some megabytes that the same folds want."""
    files: list[StepFile] = []
    size, wanting = 0, list[Need]()
    for file in run.sound_files:
        here = [(fold, columns) for fold, columns in folds if fold.wants(file.step)]
        n_bytes = file.path.stat().st_size
        if files and (here != wanting or size + n_bytes > PORTION_BYTES or len(files) == PORTION_FILES):
            yield files, wanting
            files, size = [], 0
        if here:
            files.append(file)
            size += n_bytes
        wanting = here
    if files:
        yield files, wanting


def _read(run: Run, portion: Portion) -> list[GroupBatch]:
    files, wanting = portion
    return list(read_batches(run, files, [column for _, columns in wanting for column in columns]))
