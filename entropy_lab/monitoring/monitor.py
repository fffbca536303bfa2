"""The monitor: a diagnosis that follows a run while it is trained."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

import numpy as np

from entropy_lab.diagnosis.diagnose import judged
from entropy_lab.diagnosis.finding import Diagnosis, Finding
from entropy_lab.diagnosis.observed import Observed, observe
from entropy_lab.diagnosis.opening import opened
from entropy_lab.diagnosis.series import Series
from entropy_lab.errors import ParameterError, RunNotFoundError
from entropy_lab.monitoring.growing import Growing
from entropy_lab.monitoring.imported import Imported
from entropy_lab.monitoring.standing import Standing
from entropy_lab.readers import Options, is_ours
from entropy_lab.run import RunWarning

CONFIRM: Final = 10
"""Recorded steps through which a finding must stand before it is told."""
_RECENT: Final = 10
"""Steps over which the pace is taken."""


def _nothing(_: str) -> None:
    pass


class Monitor:
    """Diagnoses a run again and again while it is being written.

    Of a run of ours a call of `update` reads what was added since the last one; another framework's is imported anew,
    for at most a tenth of a core's time. `diagnosis` is what `diagnose` says of the run as it is; of its findings,
    those that stood for `confirm` steps are told.

    What goes wrong raises until there is a first diagnosis. From then on it costs the look, not the training: one
    `RunWarning` for each message, and the next call tries again. ``on_error="raise"`` always raises.

    Parameters
    ----------
    run
        Directory of the run (``recorder.path``), or the output or a log file of another framework.
    baseline
        A run known to be healthy, see `diagnose`.
    confirm
        Recorded steps through which a finding must stand before it is told, 0 or more; what the first look shows is
        told at once. It is withdrawn after as many steps without it.
    options
        What there is to say about another framework's files, see ``readers.Options``; with ``skip_invalid`` invalid
        rows are left out.
    on_error
        ``"warn"`` or ``"raise"``.
    say
        Takes lines for the user: what another framework's files were taken for.

    Attributes
    ----------
    diagnosis
        Of all that is recorded so far; None before anything is.
    series
        Signal -> its series so far, see ``diagnosis.signals``.

    Raises
    ------
    RunNotFoundError, RunFormatError
        There is no run, or the baseline is invalid.
    ParameterError
        A parameter is out of range.

    Examples
    --------
    >>> import tempfile
    >>> from entropy_lab.diagnosis.diagnose import diagnose
    >>> from entropy_lab.writer import RunWriter
    >>> writer = RunWriter(tempfile.mkdtemp() + "/run", method={"name": "grpo", "params": {}})
    >>> monitor, told = Monitor(writer.path), []
    >>> for step in range(60):
    ...     noise = 1 + 0.02 * (step % 3)
    ...     writer.write_metrics({"step": step, "entropy": noise * 0.9 ** max(step - 20, 0), "reward": 0.3 * noise})
    ...     told += [finding.name for finding in monitor.update()]
    >>> "collapse" in told, monitor.diagnosis == diagnose(writer.path), len(monitor.series["entropy"])
    (True, True, 60)
    """

    def __init__(
        self,
        run: str | Path,
        *,
        baseline: str | Path | None = None,
        confirm: int = CONFIRM,
        options: Options | None = None,
        on_error: Literal["warn", "raise"] = "warn",
        say: Callable[[str], None] = _nothing,
    ) -> None:
        if confirm < 0:
            raise ParameterError("confirm", f"is {confirm}", "steps, 0 or more")
        if on_error not in ("warn", "raise"):
            raise ParameterError("on_error", f"is {on_error!r}", '"warn" or "raise"')
        self.path = Path(run)
        if not self.path.exists():
            raise RunNotFoundError(str(run), "does not exist", "a run, or what another framework writes")
        self.diagnosis: Diagnosis | None = None
        self.series: Mapping[str, Series] = MappingProxyType({})
        self._source = _source(self.path, options, say)
        self._baseline = None if baseline is None else _observed(baseline)
        self._standing = Standing(confirm)
        self._raises, self._said = on_error == "raise", set[str]()
        self._clock: Series | None = None
        self._planned: int | None = None
        self._arrivals: deque[tuple[float, float]] = deque(maxlen=_RECENT + 1)

    def update(self, *, now: bool = False) -> tuple[Finding, ...]:
        """Read what was added, and judge the run.

        Parameters
        ----------
        now
            Import another framework's run although the last import was only just made.

        Returns
        -------
        tuple of Finding
            Those that are to be told now: confirmed since the last call, or worse than they were told.

        Raises
        ------
        RunNotFoundError, RunFormatError
            A file cannot be read, as long as there is no diagnosis yet, or with ``on_error="raise"``.
        """
        self._standing.withdrawn = ()
        try:
            with self._source.look(now=now) as observed:
                if observed is None:
                    return ()
                self.diagnosis, found = judged(observed, self._baseline), observed
        except Exception as error:
            if self._raises or self.diagnosis is None:
                raise
            self._warn(error)
            return ()
        self.series, self._clock = MappingProxyType(dict(found.series)), found.clock
        self._planned = _planned(found)
        if self.diagnosis.steps is not None:
            self._arrivals.append((self._source.newest, self.diagnosis.steps[1]))
        return self._standing.see(self.diagnosis.findings, self.n_steps)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Findings of the present diagnosis that have been told, worst first."""
        findings = self.diagnosis.findings if self.diagnosis else ()
        return tuple(finding for finding in findings if finding.name in self._standing.told)

    @property
    def unconfirmed(self) -> tuple[Finding, ...]:
        """Findings of the present diagnosis that have not stood for long enough to be told."""
        findings = self.diagnosis.findings if self.diagnosis else ()
        return tuple(finding for finding in findings if finding.name not in self._standing.told)

    @property
    def withdrawn(self) -> tuple[str, ...]:
        """Names of the findings that the last call of `update` withdrew: they had not been seen for `confirm` steps."""
        return self._standing.withdrawn

    @property
    def n_steps(self) -> int:
        """Steps of which anything is recorded."""
        steps = [one.steps for one in self.series.values()]
        return len(np.unique(np.concatenate(steps))) if steps else 0

    @property
    def complete(self) -> bool:
        """The run has every step that its ``run.json`` plans (``steps`` of ``config``); False where that is unknown."""
        if self._planned is None or self.diagnosis is None or self.diagnosis.steps is None:
            return False
        # A trainer writes the line of metrics last, after a step's rollouts and validation.
        last = self._clock.steps[-1] if self._clock is not None and len(self._clock) else self.diagnosis.steps[1]
        return bool(last + 1 >= self._planned)

    @property
    def newest(self) -> float:
        """When the newest file of the run was written, in seconds since 1970; 0 before the first look."""
        return self._source.newest

    @property
    def pace(self) -> float | None:
        """Steps per minute, over the last ten: by the metrics' ``time``, else by when the steps were seen to come."""
        if self._clock is not None and len(self._clock) > 1:
            recent = self._clock.where(np.arange(len(self._clock))[-_RECENT - 1 :])
            return _per_minute(recent.ends[1] - recent.ends[0], float(recent.values[-1] - recent.values[0]))
        if len(self._arrivals) < 2:
            return None
        (began, first), (ended, last) = self._arrivals[0], self._arrivals[-1]
        return _per_minute(last - first, ended - began)

    def _warn(self, error: Exception) -> None:
        said = str(error) or type(error).__name__
        if said not in self._said:
            self._said.add(said)
            warnings.warn(f"{self.path}: not diagnosed this time ({said}); the next look tries again", RunWarning, 3)


def _source(path: Path, options: Options | None, say: Callable[[str], None]) -> Growing | Imported:
    if is_ours(path) and (options is None or options.format is None):
        return Growing(path, options is not None and options.skip_invalid)
    return Imported(path, options, say=say)


def _planned(observed: Observed) -> int | None:
    config = observed.run.info.get("config")
    steps = config.get("steps") if isinstance(config, Mapping) else None
    return steps if isinstance(steps, int) and steps > 0 else None


def _observed(baseline: str | Path) -> Observed:
    with opened(baseline) as run:
        return observe(run)


def _per_minute(steps: float, seconds: float) -> float | None:
    return 60 * steps / seconds if steps > 0 and seconds > 0 else None
