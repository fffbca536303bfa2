"""A run of ours that is being written: each look reads what is new, and keeps the few numbers that it needs of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import polars as pl

from entropy_lab.diagnosis.frameworks import metric_names
from entropy_lab.diagnosis.gather import COLUMNS, Gather
from entropy_lab.diagnosis.observed import Observed, ValidationPass, put_together
from entropy_lab.diagnosis.signals import SIGNALS
from entropy_lab.fold import run_folds
from entropy_lab.run import Run, Skipped, metric_row, open_run
from entropy_lab.step_files import StepFile

State = tuple[int, int, int]
"""Which file it is, how long, and when it was written: another one where a file was replaced."""
Schema = Mapping[str, pl.DataType]

_KEYS: Final = frozenset(
    ("step", "time", *(key for name, signal in SIGNALS.items() for key in (*signal.metrics, *metric_names(name))))
)
"""What is kept of a line of metrics."""
_REMEMBERED: Final = 256
"""Last bytes read of ``metrics.jsonl``, by which a file that only grew is told from another one."""


class Growing:
    """Reads a run of ours as it grows.

    A look lists the step files, reads those that are new or were written again, and the lines of ``metrics.jsonl``
    that were added. Of the others it keeps the numbers of a step that a diagnosis needs, a kilobyte each.

    Parameters
    ----------
    path
        The run's directory.
    skip_invalid
        As of ``open_run``.

    Attributes
    ----------
    newest
        When the newest file was written, in seconds since 1970; 0 before the first look.

    Examples
    --------
    >>> import tempfile
    >>> from entropy_lab.writer import RunWriter
    >>> writer = RunWriter(tempfile.mkdtemp() + "/run", method={"name": "grpo", "params": {}})
    >>> growing = Growing(writer.path)
    >>> for step in range(2):
    ...     writer.write_metrics({"step": step, "entropy": 0.5})
    ...     with growing.look() as observed:
    ...         print(len(observed.series["entropy"]))
    1
    2
    >>> with growing.look() as observed:
    ...     print(observed)
    None
    """

    def __init__(self, path: Path, skip_invalid: bool = False) -> None:
        self.newest = 0.0
        self._path, self._skip_invalid = path, skip_invalid
        self._gather, self._passes = Gather(), dict[StepFile, ValidationPass]()
        self._rollouts, self._evals = _Folder(), _Folder()
        self._looked_at: dict[StepFile, tuple[int, Mapping[str, int]]] = {}
        self._lines = MetricLines(path / "metrics.jsonl")
        self._info: State | None = None
        self._unseen = False

    @contextmanager
    def look(self, *, now: bool = False) -> Iterator[Observed | None]:
        """Read what is new.

        Parameters
        ----------
        now
            Of no meaning here: a look costs little.

        Yields
        ------
        Observed or None
            All of the run so far; None where nothing has changed since the last look, or there is nothing yet.

        Raises
        ------
        RunNotFoundError, RunFormatError
            The run is gone, or a file is invalid; the next look tries again.
        """
        run = open_run(self._path, skip_invalid=self._skip_invalid)
        self._read_info()
        self._read_rollouts(run)
        self._read_evals(run)
        self._unseen |= self._lines.read(run)
        states = (*self._rollouts.states, *self._evals.states, self._lines.state, self._info)
        self.newest = max(state[-1] / 1e9 for state in states if state is not None)
        observed = self._put_together(run) if self._unseen else None
        self._unseen = False
        yield observed

    def _put_together(self, run: Run) -> Observed | None:
        passes = [self._passes[file] for file in run.sound_evals]
        observed = put_together(run, self._gather, self._lines.frame(), passes)
        observed.looked_at = self._looked_at
        return observed if observed.series else None

    def _read_info(self) -> None:
        state = state_of(self._path / "run.json")
        self._unseen |= state != self._info
        self._info = state

    def _read_rollouts(self, run: Run) -> None:
        states = _states(run.step_files)
        fresh, stale = self._rollouts.compare(states)
        self._unseen |= bool(stale)
        for file in stale:
            self._gather.forget(file.step)
            self._looked_at.pop(file, None)
        if fresh:
            part = Run(self._path, self._skip_invalid)
            part.step_files = fresh
            run_folds(part, [(self._gather, COLUMNS)])
            self._rollouts.keep(fresh, states, part.sound_files, part.skipped)
        run.step_files, run.sound_files = tuple(states), self._rollouts.sound(states)
        run.skipped += self._rollouts.skipped(states)

    def _read_evals(self, run: Run) -> None:
        states = _states(run.eval_files)
        fresh, stale = self._evals.compare(states)
        self._unseen |= bool(stale)
        for file in stale:
            self._passes.pop(file, None)
        if fresh:
            part = Run(self._path, self._skip_invalid)
            part.eval_files = fresh
            passes = zip(part.sound_evals, part.evals(), strict=True)
            self._passes |= {file: ValidationPass.of(frame) for file, frame in passes}
            self._evals.keep(fresh, states, part.sound_evals, part.skipped)
        run.eval_files, run.sound_evals = tuple(states), self._evals.sound(states)
        run.skipped += self._evals.skipped(states)


@dataclass(frozen=True)
class _Read:
    """A step file that was read: as it was then, its schema (None where it is unsound), and what was left out."""

    state: State
    schema: Schema | None
    skipped: tuple[Skipped, ...]


@dataclass
class _Folder:
    """The step files of a folder that were read."""

    _read: dict[StepFile, _Read] = field(default_factory=dict)

    def compare(self, states: Mapping[StepFile, State]) -> tuple[tuple[StepFile, ...], set[StepFile]]:
        """Forget files that are gone or were written again; give those to read, and all that changed."""
        gone = self._read.keys() - states.keys()
        fresh = tuple(f for f, state in states.items() if f not in self._read or self._read[f].state != state)
        for file in (*gone, *fresh):
            self._read.pop(file, None)
        return fresh, gone | set(fresh)

    def keep(
        self,
        files: Iterable[StepFile],
        states: Mapping[StepFile, State],
        sound: Mapping[StepFile, Schema],
        skipped: Iterable[Skipped],
    ) -> None:
        """Remember files that were read just now."""
        left_out = tuple(skipped)
        for file in files:
            own = tuple(item for item in left_out if item.file == file.label)
            self._read[file] = _Read(states[file], sound.get(file), own)

    @property
    def states(self) -> Iterator[State]:
        """The state of each file when it was read."""
        return (known.state for known in self._read.values())

    def sound(self, files: Iterable[StepFile]) -> dict[StepFile, Schema]:
        """Give the schemas of those files that are sound."""
        return {file: schema for file in files if (schema := self._read[file].schema) is not None}

    def skipped(self, files: Iterable[StepFile]) -> list[Skipped]:
        """Give what was left out, by file."""
        return [item for file in files for item in self._read[file].skipped]


class MetricLines:
    """The lines of a ``metrics.jsonl`` that grows.

    A last line that is not whole is left, and read with what follows it. A file that was replaced or cut (a run that
    goes on from an earlier step) is read from its beginning.

    Parameters
    ----------
    file
        It need not exist yet.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "metrics.jsonl"
    >>> lines = MetricLines(file)
    >>> _ = file.write_text('{"step": 0, "entropy": 0.5}' + chr(10) + '{"step": 1, "ent')
    >>> lines.read(Run(file.parent)), lines.frame().rows()
    (True, [(0, 0.5)])
    """

    def __init__(self, file: Path) -> None:
        self.state: State | None = None
        self._file = file
        self._begin()

    def _begin(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._skipped: list[Skipped] = []
        self._unfinished: dict[str, Any] | None = None
        self._n_lines = self._end = 0
        self._before = b""

    def read(self, run: Run) -> bool:
        """Read the lines that were added.

        Parameters
        ----------
        run
            Decides what happens to a line before the last that is no JSON object, and is told of it.

        Returns
        -------
        bool
            The file has changed since the last call.

        Raises
        ------
        RunFormatError
            A line before the last is no JSON object (not with ``run.skip_invalid``); the next call tries again.
        """
        try:
            with self._file.open("rb") as stream:
                state = _as_state(os.fstat(stream.fileno()))
                if changed := state != self.state:
                    stream.seek(self._end - len(self._before))
                    added = stream.read()
                    if state[1] < self._end or not added.startswith(self._before):
                        self._begin()
                        stream.seek(0)
                        added = stream.read()
                    self._take(added.removeprefix(self._before), run)
        except FileNotFoundError:
            state, changed = None, self.state is not None
            self._begin()
        self.state = state
        run.skipped += self._skipped
        return changed

    def _take(self, added: bytes, run: Run) -> None:
        self._unfinished = None
        lines = added.splitlines(keepends=True)
        for position, line in enumerate(lines):
            row = metric_row(line.decode("utf-8", "replace"))
            last = position + 1 == len(lines)
            if row is not None and not line.endswith(b"\n"):
                self._unfinished = _wanted(row)
                return
            if row is None and last:
                return
            if row is None:
                self._leave_out(run)
            else:
                self._rows.append(_wanted(row))
            self._n_lines += 1
            self._end += len(line)
            self._before = (self._before + line)[-_REMEMBERED:]

    def _leave_out(self, run: Run) -> None:
        part = Run(run.path, run.skip_invalid)
        part.leave_out_line(self._n_lines + 1)
        self._skipped += part.skipped

    def frame(self) -> pl.DataFrame:
        """Give the lines so far, of each what a diagnosis looks at."""
        rows = [*self._rows, *([self._unfinished] if self._unfinished is not None else [])]
        return pl.DataFrame(rows, infer_schema_length=None, strict=False)


def _wanted(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"step": None} | {key: value for key, value in row.items() if key in _KEYS}


def state_of(file: Path) -> State | None:
    """Tell in which state a file is; None where there is none.

    Examples
    --------
    >>> state_of(Path("/nowhere")) is None
    True
    """
    try:
        return _as_state(file.stat())
    except OSError:
        return None


def _as_state(stat: os.stat_result) -> State:
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _states(files: Iterable[StepFile]) -> dict[StepFile, State]:
    """Give the state of each file; one that was removed since it was listed is left out."""
    return {file: state for file in files if (state := state_of(file.path)) is not None}
