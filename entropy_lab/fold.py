"""One pass over a run's rollouts that any number of analyses share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from entropy_lab.batches import GroupBatch, read_batch
from entropy_lab.run import Run, StepFile
from entropy_lab.table import Table


class Fold(ABC):
    """An analysis that takes the rollouts step by step and keeps only sums.

    A recipe's ``analyze`` returns a fold when it wants to share the pass over the rollouts with the other analyses.
    What a fold keeps must not grow with the number of rollouts.

    Attributes
    ----------
    until
        The fold needs steps below this index only; None means all.
    """

    until: int | None = None

    @abstractmethod
    def add(self, batch: GroupBatch) -> None:
        """Take one step's groups."""

    @abstractmethod
    def table(self) -> Table:
        """Give the result."""

    def wants(self, step: int) -> bool:
        """Tell whether the fold needs this step."""
        return self.until is None or step < self.until


def run_folds(run: Run, folds: Sequence[tuple[Fold, Iterable[str]]]) -> None:
    """Read the rollouts once and give every fold the steps it wants.

    Only columns that some fold needs are read, one step at a time; the next step is read while this one is added up,
    so that at most two steps are in memory.

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
    plan = [(file, wanting) for file in run.sound_files if (wanting := _wanting(folds, file))]
    with ThreadPoolExecutor(max_workers=1) as reader:
        ahead = [reader.submit(read_batch, run, *_order(plan[0]))] if plan else []
        for position, (_, wanting) in enumerate(plan):
            batch = ahead.pop().result()
            if position + 1 < len(plan):
                ahead.append(reader.submit(read_batch, run, *_order(plan[position + 1])))
            for fold, _ in wanting:
                if batch.n_rollouts:
                    fold.add(batch)


def _wanting(folds: Sequence[tuple[Fold, Iterable[str]]], file: StepFile) -> list[tuple[Fold, Iterable[str]]]:
    return [(fold, columns) for fold, columns in folds if fold.wants(file.step)]


def _order(item: tuple[StepFile, list[tuple[Fold, Iterable[str]]]]) -> tuple[StepFile, list[str]]:
    file, wanting = item
    return file, [column for _, columns in wanting for column in columns]
