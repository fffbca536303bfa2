"""What a diagnosis says: findings with their evidence, and what could not be judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from entropy_lab.json_values import json_value

CRITICAL, WARNING, NOTE = "critical", "warning", "note"
SEVERITIES: Final = (CRITICAL, WARNING, NOTE)
"""Worst first."""


@dataclass(frozen=True)
class Onset:
    """Since when: a step, and the interval in which it lies."""

    step: float
    low: float
    high: float

    @classmethod
    def at(cls, step: float) -> Onset:
        """Give an onset that is known to the step.

        Examples
        --------
        >>> Onset.at(3)
        Onset(step=3.0, low=3.0, high=3.0)
        """
        return cls(float(step), float(step), float(step))


@dataclass(frozen=True)
class Measure:
    """One number of the evidence, with its interval and the steps that it is about, where there are any."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    unit: str = ""
    first: float | None = None
    last: float | None = None


@dataclass(frozen=True)
class Case:
    """What a check found: how bad, in one sentence, since when, and the numbers."""

    severity: str
    what: str
    evidence: tuple[Measure, ...]
    since: Onset | None = None


@dataclass(frozen=True)
class Undecided:
    """Why a check could not decide although its data are there: too few steps, an unknown estimator, …."""

    why: str


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a run.

    Attributes
    ----------
    name, title
        The name that ``--fail-on`` takes, and what people call it.
    severity
        ``"critical"``, ``"warning"`` or ``"note"``.
    what, since, evidence
        See `Case`.
    mechanism, reference
        Why it happens, in one sentence, and where that is shown.
    change
        What to do, by the parameters of the framework that the run came from.
    data
        What was read.
    baseline
        How the baseline compares, when there is one.
    """

    name: str
    title: str
    severity: str
    what: str
    since: Onset | None
    evidence: tuple[Measure, ...]
    mechanism: str
    reference: str
    change: tuple[str, ...]
    data: tuple[str, ...]
    baseline: str | None = None


@dataclass(frozen=True)
class Skipped:
    """A check that was not made: why, the columns it misses, and how the framework records some of them."""

    name: str
    title: str
    why: str
    missing: tuple[str, ...] = ()
    record: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """Everything that was found out about a run.

    Attributes
    ----------
    run, framework, steps, n_rollouts
        Name of the run, the framework it came from, first and last step, and rollouts read.
    findings
        Worst first.
    fine
        Names of the checks that were made and found nothing.
    skipped
        Checks that could not be made.
    baseline
        Name of the baseline, or None.
    left_out
        What ``skip_invalid`` left out, one line each.
    """

    run: str
    framework: str
    steps: tuple[float, float] | None
    n_rollouts: int
    findings: tuple[Finding, ...]
    fine: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    baseline: str | None = None
    left_out: tuple[str, ...] = field(default=())

    def __contains__(self, name: str) -> bool:
        return any(finding.name == name for finding in self.findings)

    def alarms(self) -> tuple[str, ...]:
        """Names of the findings that are more than notes.

        Examples
        --------
        >>> Diagnosis("a", "trl", (0, 9), 80, (), ("collapse",), ()).alarms()
        ()
        """
        return tuple(finding.name for finding in self.findings if finding.severity != NOTE)

    def as_dict(self) -> dict[str, Any]:
        """Give JSON values; numbers that are not finite become None.

        Examples
        --------
        >>> Diagnosis("a", "trl", (0, 9), 80, (), ("collapse",), ()).as_dict()["fine"]
        ['collapse']
        """
        told: dict[str, Any] = _plain(asdict(self))
        return told


def _plain(value: object) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return json_value(value)
