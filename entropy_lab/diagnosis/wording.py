"""A diagnosis in words: the parts that every output shares, and Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from entropy_lab.diagnosis.finding import Diagnosis, Finding, Measure, Onset
from entropy_lab.diagnosis.registry import CHECKS

SCOPE: Final = "A diagnosis finds what its rules look for (docs/diagnosis.md); it does not prove a run healthy."


def number(value: float) -> str:
    """Word a number with three digits.

    Examples
    --------
    >>> number(0.123456), number(12345.0), number(-2e-5)
    ('0.123', '12,345', '-2e-05')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def spoken_measure(measure: Measure) -> str:
    """Word one number of the evidence.

    Examples
    --------
    >>> spoken_measure(Measure("share of tokens clipped", 0.25, 0.2, 0.3, "", 10, 39))
    'share of tokens clipped 0.25 [0.2, 0.3], steps 10 to 39'
    """
    unit = f" {measure.unit}" if measure.unit else ""
    interval = (
        "" if measure.low is None or measure.high is None else f" [{number(measure.low)}, {number(measure.high)}]"
    )
    steps = "" if measure.first is None or measure.last is None else f", steps {measure.first:g} to {measure.last:g}"
    return f"{measure.label} {number(measure.value)}{interval}{unit}{steps}"


def spoken_onset(since: Onset) -> str:
    """Word an onset.

    Examples
    --------
    >>> spoken_onset(Onset(40, 35, 52)), spoken_onset(Onset.at(0))
    ('since step 40 [35, 52]', 'since step 0')
    """
    interval = "" if since.low == since.high else f" [{since.low:g}, {since.high:g}]"
    return f"since step {since.step:g}{interval}"


def about(diagnosis: Diagnosis) -> str:
    """Say what was looked at, in one line."""
    steps = "" if diagnosis.steps is None else f", steps {diagnosis.steps[0]:g} to {diagnosis.steps[1]:g}"
    rollouts = f", {diagnosis.n_rollouts:,} rollouts" if diagnosis.n_rollouts else ", no rollouts"
    beside = f", beside {diagnosis.baseline}" if diagnosis.baseline else ""
    return f"{diagnosis.run} ({diagnosis.framework}{steps}{rollouts}{beside})"


def titles(names: tuple[str, ...]) -> str:
    """Name checks as people call them, in one line.

    Examples
    --------
    >>> titles(("collapse", "mismatch"))
    'entropy collapse, sampler and trainer differ'
    """
    return ", ".join(CHECKS[name].title for name in names)


def reasons(diagnosis: Diagnosis) -> dict[str, list[str]]:
    """Group the checks that were not made by why, in order."""
    grouped: dict[str, list[str]] = {}
    for skip in diagnosis.skipped:
        grouped.setdefault(skip.why, []).append(skip.title)
    return grouped


def ways_to_record(diagnosis: Diagnosis) -> dict[str, list[str]]:
    """Group missing columns by how the framework records them."""
    grouped: dict[str, list[str]] = {}
    for column, how in dict.fromkeys(pair for skip in diagnosis.skipped for pair in skip.record):
        grouped.setdefault(how, []).append(column)
    return grouped


def markdown(diagnosis: Diagnosis) -> str:
    """Write a diagnosis as Markdown.

    Parameters
    ----------
    diagnosis
        What `diagnose` gave.

    Returns
    -------
    str
        A heading, one section a finding, and lists of what was fine and what was not checked.

    Examples
    --------
    >>> print(markdown(Diagnosis("a", "trl", (0, 9), 80, (), ("collapse",), ())).splitlines()[0])
    # Diagnosis of a
    """
    return "\n".join(_lines(diagnosis)) + "\n"


def _lines(diagnosis: Diagnosis) -> Iterator[str]:
    yield f"# Diagnosis of {diagnosis.run}"
    yield f"\n{about(diagnosis)}."
    for finding in diagnosis.findings:
        yield from _section(finding)
    if not diagnosis.findings:
        yield "\nNothing was found."
    if diagnosis.fine:
        yield f"\nChecked and fine: no sign of {titles(diagnosis.fine)}."
    if diagnosis.skipped:
        yield "\n## Not checked\n"
        yield from (f"- {', '.join(names)}: {why}" for why, names in reasons(diagnosis).items())
    if ways := ways_to_record(diagnosis):
        yield "\nTo record what is missing:\n"
        yield from (f"- {', '.join(columns)}: {how}" for how, columns in ways.items())
    if diagnosis.left_out:
        yield "\n## Left out\n"
        yield from (f"- {line}" for line in diagnosis.left_out)
    yield f"\n{SCOPE}"


def _section(finding: Finding) -> Iterator[str]:
    since = f", {spoken_onset(finding.since)}" if finding.since else ""
    yield f"\n## {finding.severity}: {finding.title}{since}\n"
    yield f"{finding.what[:1].upper()}{finding.what[1:]} (`{finding.name}`).\n"
    yield "| evidence | value | interval | steps |\n|---|---|---|---|"
    for measure in finding.evidence:
        yield _row(measure)
    yield f"\nWhy: {finding.mechanism} ({finding.reference})\n\nWhat to change:\n"
    yield from (f"- {text}" for text in finding.change)
    if finding.baseline:
        yield f"\nBaseline: {finding.baseline}."
    yield f"\nData: {'; '.join(finding.data)}."


def _row(measure: Measure) -> str:
    unit = f" {measure.unit}" if measure.unit else ""
    interval = "" if measure.low is None or measure.high is None else f"{number(measure.low)} to {number(measure.high)}"
    steps = "" if measure.first is None or measure.last is None else f"{measure.first:g} to {measure.last:g}"
    return f"| {measure.label} | {number(measure.value)}{unit} | {interval} | {steps} |"
