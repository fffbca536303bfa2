"""``entropy-lab watch``: follow a run while it is trained, and say what is wrong as soon as that stands."""

from __future__ import annotations

import sys
import time
from typing import Final

from entropy_lab.cli import Watch
from entropy_lab.commands.diagnose import failing
from entropy_lab.commands.opening import options_of, require_fit, tell
from entropy_lab.commands.watch_views import View, view_of
from entropy_lab.diagnosis.finding import NOTE, Finding
from entropy_lab.errors import EntropyLabError, ParameterError, RunFormatError, RunNotFoundError
from entropy_lab.monitoring.monitor import Monitor

_PATIENCE: Final = 3
"""Looks that must meet the same error before it ends the watch: a file may be read while it is being written."""
_FAILED, _INTERRUPTED = "a finding that was to fail", "interrupted"


def run(command: Watch) -> None:
    """Look again and again; exit with 1 when a finding is told that was to fail."""
    unwanted = failing(command.fail_on)
    _require(command)
    require_fit(command, command.run)
    monitor, new = _begin(command)
    with view_of(command.json) as view:
        try:
            why = _Watching(monitor, command, view, unwanted).follow(new)
        except KeyboardInterrupt:
            why = _INTERRUPTED
        failed = _failed(monitor, unwanted, why)
        view.end(monitor, why, failed)
    if failed:
        sys.stderr.write(f"entropy-lab: failed on {', '.join(failed)}\n")
        sys.exit(1)


def _require(command: Watch) -> None:
    if not command.every > 0:
        raise ParameterError("--every", f"is {command.every:g}", "seconds, above 0")
    if command.stop_after is not None and not command.stop_after > 0:
        raise ParameterError("--stop-after", f"is {command.stop_after:g}", "minutes, above 0")


def _begin(command: Watch) -> tuple[Monitor, tuple[Finding, ...]]:
    """Make the first look; where that is asked for, wait until there is something to look at."""
    options = options_of(command, skip_invalid=command.skip_invalid)
    began, said = time.monotonic(), ""
    while True:
        try:
            monitor = Monitor(
                command.run,
                baseline=command.baseline,
                confirm=command.confirm,
                options=options,
                on_error="raise",
                say=tell,
            )
            return monitor, monitor.update()
        except (RunNotFoundError, RunFormatError) as error:
            if not command.wait or command.once or _over(began, command):
                raise
            if str(error) != said:
                said = str(error)
                tell(f"waiting: {command.run} {error.wrong}")
        time.sleep(command.every)


class _Watching:
    """The looks at one run, until there is a reason to stop."""

    def __init__(self, monitor: Monitor, command: Watch, view: View, unwanted: frozenset[str]) -> None:
        self._monitor, self._command, self._view, self._unwanted = monitor, command, view, unwanted
        self._error, self._n_errors = "", 0
        self._last_step = time.monotonic()

    def follow(self, new: tuple[Finding, ...]) -> str:
        """Show what the first look told, go on looking, and give the reason why that ended."""
        self._view.show(self._monitor, new)
        while (why := self._reason()) is None:
            time.sleep(self._command.every)
            self._look(now=False)
        if not self._command.once and why != _FAILED:
            self._look(now=True)  # what was written while the last look was made
        return why

    def _look(self, *, now: bool) -> None:
        monitor = self._monitor
        diagnosis, n_steps = monitor.diagnosis, monitor.n_steps
        try:
            new = monitor.update(now=now)
        except (EntropyLabError, OSError) as error:
            self._bear(error)
            return
        if monitor.diagnosis is not diagnosis:
            self._error, self._n_errors = "", 0
        if monitor.n_steps != n_steps:
            self._last_step = time.monotonic()
        self._view.show(monitor, new)

    def _bear(self, error: EntropyLabError | OSError) -> None:
        """Go on after an error, unless it has come again and again."""
        said = str(error)
        self._n_errors = self._n_errors + 1 if said == self._error else 1
        if self._n_errors == _PATIENCE:
            if isinstance(error, EntropyLabError):
                raise error
            raise RunFormatError(str(self._command.run), f"cannot be read ({said})", "a readable run") from error
        if said != self._error:
            tell(f"{said}; looking again")
        self._error = said

    def _reason(self) -> str | None:
        if self._command.once:
            return "looked once"
        if _named(self._monitor.findings, self._unwanted):
            return _FAILED
        if self._monitor.complete:
            return "all planned steps are there"
        return "no new step" if self._idle() else None

    def _idle(self) -> bool:
        if _over(self._last_step, self._command):
            self._look(now=True)  # steps may have come that were not imported yet
        return _over(self._last_step, self._command)


def _over(since: float, command: Watch) -> bool:
    return command.stop_after is not None and time.monotonic() - since >= 60 * command.stop_after


def _failed(monitor: Monitor, unwanted: frozenset[str], why: str) -> list[str]:
    """Name the findings to fail on; of a run that has ended, or is looked at once, all count: this is one look."""
    if monitor.diagnosis is None or why == _INTERRUPTED:
        return []
    return _named(monitor.findings if why == _FAILED else monitor.diagnosis.findings, unwanted)


def _named(findings: tuple[Finding, ...], unwanted: frozenset[str]) -> list[str]:
    return [finding.name for finding in findings if finding.severity != NOTE and finding.name in unwanted]
