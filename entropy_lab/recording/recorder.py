"""Record the run of any training loop: on one process or many, and never at the cost of the training."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Unpack

import polars as pl

from entropy_lab.amending import amend_info
from entropy_lab.errors import EntropyLabError, ParameterError
from entropy_lab.json_values import json_value
from entropy_lab.recording.arrays import TensorLike
from entropy_lab.recording.columns import Keep, Rollouts, after_frame, rollout_frame
from entropy_lab.recording.groups import require_one_prompt
from entropy_lab.recording.numbers import step_numbers
from entropy_lab.recording.opening import begin, place, where_to_go_on
from entropy_lab.recording.parts import Parts
from entropy_lab.recording.whole_step import WholeStep
from entropy_lab.run import RunWarning

if TYPE_CHECKING:
    from entropy_lab.writer import Columns


class Recorder:
    """Writes the run format from a training loop, one step after another.

    A step's rollouts come in one call of `step`, or in several of `add` (gradient accumulation), which `step` closes;
    `after` adds log-probabilities under the updated policy in between. Its file appears whole or not at all, then its
    line in ``metrics.jsonl``.

    With several ranks each makes a `Recorder` before the training begins, and each calls `step` for every step, with
    rollouts or without; rank 0 puts the parts together, in the order of the ranks, and writes.

    What goes wrong raises while no step has been recorded. From then on it costs the step, not the training: one
    `RunWarning`, and the key ``incomplete`` of ``run.json`` lists the steps. ``on_error="raise"`` always raises.

    Parameters
    ----------
    path
        Directory of the run, seen by all ranks.
    method
        A name, or ``{"name": …, "params": {…}}``.
    group_size
        Rollouts of a group; None when it differs.
    name, seed, model, task, setting, config
        What the run is, see `RunWriter`.
    tokens, texts
        Keep lists by token (ids, log-probabilities, entropies); keep prompts, completions and answers.
    resume
        Go on with the run that is there, after its last step; begin one where there is none.
    last_step
        With `resume`: the last update to keep, the checkpoint's; what is later is removed.
    rank, world_size
        This process and how many there are; default the environment's ``RANK`` and ``WORLD_SIZE``, else 0 and 1.
    timeout
        Seconds that rank 0 waits for the others' parts of a step.
    on_error
        ``"warn"`` or ``"raise"``.

    Raises
    ------
    OutputError
        The directory is not empty (without `resume`) or cannot be written.
    ParameterError
        A parameter is out of range, or the run to go on with was made by another method.

    Examples
    --------
    >>> import tempfile
    >>> from entropy_lab.run import open_run
    >>> with Recorder(tempfile.mkdtemp() + "/run", method="grpo", group_size=2) as rec:
    ...     file = rec.step(
    ...         prompts=["1+1=", "1+1="],
    ...         completions=["2", "3!"],
    ...         rewards=[1.0, 0.0],
    ...         logps=[[-0.1], [-1.0, -0.5]],
    ...         entropies=[[0.3], [0.9, 0.6]],
    ...         metrics={"loss": 0.5},
    ...     )
    >>> run = open_run(rec.path)
    >>> run.scan().select("sample", "correct", "n_tokens", "logp", "entropy").collect().rows()[1]
    (1, False, 2, -1.5, 0.75)
    >>> round(run.metrics()["entropy"].item(), 6)
    0.6
    """

    def __init__(
        self,
        path: str | Path,
        *,
        method: str | Mapping[str, Any],
        group_size: int | None = None,
        name: str | None = None,
        seed: int | None = None,
        model: str | None = None,
        task: str | None = None,
        setting: str | None = None,
        config: Mapping[str, Any] | None = None,
        tokens: bool = True,
        texts: bool = True,
        resume: bool = False,
        last_step: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        timeout: float = 300.0,
        on_error: Literal["warn", "raise"] = "warn",
    ) -> None:
        self.path = Path(path)
        self.rank, self.world_size = place(rank, world_size)
        _require(group_size=group_size, timeout=timeout, on_error=on_error)
        named = {"name": method, "params": {}} if isinstance(method, str) else dict(method)
        about = {"group_size": group_size, "name": name, "seed": seed, "model": model, "task": task}
        start = where_to_go_on(self.path, named, resume=resume, last_step=last_step)
        self._writer = None
        self._parts = Parts(self.path, self.rank, self.world_size)
        if self.rank == 0:
            self._writer = begin(self.path, start, method=named, setting=setting, config=config, **about)
            self._parts.open()
        self._last, self._lost = start.last, list(start.lost)
        self._began = time.perf_counter() - start.seconds
        self._keep, self._raises = Keep(tokens, texts), on_error == "raise"
        self._timeout, self._patience = timeout, timeout
        self._whole = WholeStep(group_size)
        self._rows: list[pl.DataFrame] = []
        self._after: list[pl.DataFrame] = []
        self._fault: Exception | None = None
        self._n_recorded, self._told, self._unmarked = 0, False, ""

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._rows = []
        self.close()

    @property
    def next_step(self) -> int:
        """Index of the step that is recorded next, unless `step` is told another."""
        return self._last + 1

    def add(self, **columns: Unpack[Rollouts]) -> None:
        """Add rollouts to the step that the next call of `step` closes.

        Parameters
        ----------
        **columns
            See `Rollouts`; the same in every call of a step.

        Raises
        ------
        ParameterError
            A name is unknown, something needed is missing, or shapes do not fit together.
        """
        with self._protected():
            frame = rollout_frame(columns, self._keep)
            _require_same_columns("add", frame, self._rows)
            self._rows.append(frame)

    def after(self, logps: TensorLike, mask: TensorLike = None) -> None:
        """Add log-probabilities under the policy after the update, of rollouts that `add` was given.

        Parameters
        ----------
        logps
            See `Rollouts.logps_after`; of the next rollouts, in the order of `add`, in one call or several.
        mask
            See `Rollouts.mask`; without it padding is on the right.

        Raises
        ------
        ParameterError
            There are not as many rollouts, or their numbers of tokens are others.
        """
        with self._protected():
            rows = pl.concat([frame.select(pl.col("^n_tokens$|^reward$")) for frame in self._rows] or [pl.DataFrame()])
            done = sum(frame.height for frame in self._after)
            if done + len(logps) > rows.height:
                wrong = f"are of {done + len(logps)} rollouts, and {rows.height} were added"
                raise ParameterError("logps_after", wrong, "rec.add(…) before rec.after(…)")
            known = "n_tokens" in rows.columns
            n_B = rows["n_tokens"][done : done + len(logps)].to_numpy() if known else None
            frame = after_frame(logps, mask, n_B, len(logps), self._keep)
            _require_same_columns("after", frame, self._after)
            self._after.append(frame)

    def step(
        self, step: int | None = None, *, metrics: Mapping[str, Any] | None = None, **columns: Unpack[Rollouts]
    ) -> Path | None:
        """Close a step: write its rollouts and its line of metrics.

        Parameters
        ----------
        step
            Index of the policy update, above that of the last step; the next one when left out.
        metrics
            Numbers of the step, see ``schema.METRICS``; rank 0's count. Step, time and what follows from the rollouts
            (`numbers.step_numbers`) are filled in, and replace what is given under their names.
        **columns
            Rollouts, as in `add`. After calls of `add`, ``logps_after`` (and ``mask``) alone are of their rollouts.

        Returns
        -------
        Path or None
            The file; None on other ranks than 0, and when the step could not be recorded.

        Raises
        ------
        ParameterError
            The index is not above the last one; and all of `add` and `after`.
        RunFormatError
            A value breaks the run format (NaN, a positive log-probability, …); nothing was written.
        OutputError
            The file cannot be written, or parts of other ranks do not come.
        """
        number, file = self.next_step if step is None else int(step), None
        given: dict[str, Any] = {name: value for name, value in columns.items() if value is not None}
        try:
            with self._protected():
                self._require_later(number)
                if self._rows and "logps_after" in given and set(given) <= {"logps_after", "mask"}:
                    self.after(**{"logps" if name == "logps_after" else name: value for name, value in given.items()})
                elif given:
                    self.add(**columns)
                if self._fault is None:
                    file = self._record(number, metrics or {})
        finally:
            self._rows, self._after = [], []
        if self._fault is not None:
            self.lose(number, self._fault)
        self._last, self._fault = max(number, self._last), None
        return file

    def evals(self, step: int, columns: Columns) -> None:
        """Record the answers of a validation pass, on rank 0; elsewhere nothing.

        Parameters
        ----------
        step
            Update after which the pass was made.
        columns
            See `RunWriter.write_evals`.
        """
        if self._writer is None:
            return
        try:
            self._writer.write_evals(step, columns)
        except Exception as error:
            if self._raises or not self._n_recorded:
                raise
            what = f"the validation pass of step {step} is not recorded ({error}); training goes on"
            warnings.warn(f"{self.path}: {what}", RunWarning, stacklevel=2)

    def close(self) -> None:
        """Remove what ranks shared; warn of rollouts that no `step` closed; mark the run where that failed before."""
        if self._rows:
            n = sum(frame.height for frame in self._rows)
            warnings.warn(f"{self.path}: {n} rollouts were added after the last step, and left out", RunWarning, 2)
            self._rows = []
        self._mark()
        if self.rank == 0:
            self._parts.close()

    def _record(self, number: int, metrics: Mapping[str, Any]) -> Path | None:
        rows = self._part()
        file = None
        if self._writer is None:
            self._parts.hand_over(number, rows, self._timeout)
        else:
            others = self._parts.gather(number, self._patience) if self.world_size > 1 else []
            frame = self._whole.put_together([rows, *others], self._n_recorded)
            given = {name: _number(name, value) for name, value in metrics.items()}
            found = step_numbers(frame)
            file = self._writer.write_rollouts(number, frame)
            about = {"step": number, "time": time.perf_counter() - self._began}
            self._writer.write_metrics({**given, **about, **found})
            self._parts.discard(number)
            self._mark()
        self._n_recorded, self._patience = self._n_recorded + 1, self._timeout
        return file

    def _part(self) -> pl.DataFrame:
        """Join the rollouts of this rank, in the order in which they were added."""
        rows = pl.concat(self._rows, how="diagonal_relaxed") if self._rows else pl.DataFrame()
        if not rows.height and self.world_size == 1:
            raise ParameterError("step", "has no rollouts", "columns in the call, or rec.add(…) before it")
        if self._after:
            after = pl.concat(self._after)
            if after.height != rows.height or set(after.columns) & set(rows.columns):
                wrong = f"are of {after.height} rollouts, and the step has {rows.height}"
                raise ParameterError("logps_after", wrong, "all rollouts of the step, once")
            rows = rows.hstack(after)
        require_one_prompt(rows)
        return rows

    def _require_later(self, step: int) -> None:
        if step <= self._last:
            hint = "Recorder(…, resume=True, last_step=…) goes back"
            raise ParameterError("step", f"is {step}", f"above {self._last}, the last one", hint)

    @contextmanager
    def _protected(self) -> Iterator[None]:
        """Let errors out while nothing has been recorded; from then on, keep the first of the step."""
        try:
            yield
        except Exception as error:
            if self._raises or not self._n_recorded:
                raise
            self._fault = self._fault or error

    def lose(self, step: int, error: Exception) -> None:
        """Go on without a step: say so once here, and in run.json.

        For loops that must go on whatever happens, the first step and what is made ready for `step` included.

        Parameters
        ----------
        step
            Index of the policy update.
        error
            Why it is not recorded.
        """
        said = str(error) if isinstance(error, EntropyLabError) else f"{type(error).__name__}: {error}"
        if not self._told:
            self._told = True
            what = f"step {step} is not recorded ({said}); training goes on, run.json lists what is missing"
            warnings.warn(f"{self.path}: {what}", RunWarning, stacklevel=3)
        self._lost.append(step)
        # Whoever was waited for in vain once is not waited for at every step.
        self._patience = min(self._timeout, 1.0)
        with suppress(Exception):
            if self._writer is None:
                self._parts.hand_over(step, pl.DataFrame(), self._patience, lost=said)
            else:
                self._parts.discard(step)
        self._unmarked = said
        self._mark()

    def _mark(self) -> None:
        """Say in run.json what is missing; where that fails too, say it after the next step that is recorded."""
        if self._unmarked and self._writer is not None:
            with suppress(Exception):
                amend_info(self.path, incomplete={"steps": self._lost, "why": self._unmarked})
                self._unmarked = ""


def _require_same_columns(call: str, frame: pl.DataFrame, before: list[pl.DataFrame]) -> None:
    if before and set(frame.columns) != set(before[0].columns):
        odd = ", ".join(sorted(set(frame.columns) ^ set(before[0].columns)))
        raise ParameterError(call, f"gives other columns than the call before ({odd})", "the same in each")


def _require(group_size: int | None, timeout: float, on_error: str) -> None:
    if group_size is not None and group_size < 1:
        raise ParameterError("group_size", f"is {group_size}", "1 or more, or None")
    if not timeout > 0:
        raise ParameterError("timeout", f"is {timeout}", "seconds, above 0")
    if on_error not in ("warn", "raise"):
        raise ParameterError("on_error", f"is {on_error!r}", '"warn" or "raise"')


def _number(name: str, value: Any) -> Any:  # noqa: ANN401 - JSON
    try:
        found = json_value(value.detach() if hasattr(value, "detach") else value)
    except (ValueError, RuntimeError) as error:
        raise ParameterError("metrics", f"{name} has shape {tuple(value.shape)}", "one number each") from error
    if not isinstance(found, int | float | str | bool | None):
        raise ParameterError("metrics", f"{name} is a {type(value).__name__}", "a number or a text")
    return found
