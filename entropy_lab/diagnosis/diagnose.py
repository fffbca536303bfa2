"""The diagnosis of a run: every check that its data allow."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from entropy_lab.diagnosis.checks import Check
from entropy_lab.diagnosis.finding import NOTE, SEVERITIES, Case, Diagnosis, Finding, Skipped
from entropy_lab.diagnosis.frameworks import metric_names, spoken
from entropy_lab.diagnosis.observed import Observed, observe
from entropy_lab.diagnosis.opening import opened
from entropy_lab.diagnosis.registry import CHECKS
from entropy_lab.diagnosis.signals import SIGNALS
from entropy_lab.run import Run


def diagnose(run: Run | str | Path, baseline: Run | str | Path | None = None) -> Diagnosis:
    """Find out what is wrong with a run, since when and why, and what to change.

    The rollouts are read once, and nothing is written. ``docs/diagnosis.md`` has every rule with its rate of false
    alarms.

    Parameters
    ----------
    run
        A run, or the path of one: ours, or another framework's. Metrics alone, rollouts alone or both will do.
    baseline
        A run known to be healthy: what it shows as well is told as a note only, and entropy is judged beside its.

    Returns
    -------
    Diagnosis
        Findings, worst first; the checks that found nothing; and those that could not be made, with what is missing.

    Raises
    ------
    RunNotFoundError, RunFormatError
        There is no run, or it is invalid, or holds nothing to diagnose.

    Examples
    --------
    >>> import tempfile
    >>> from entropy_lab.writer import RunWriter
    >>> writer = RunWriter(tempfile.mkdtemp() + "/run", method={"name": "grpo", "params": {}})
    >>> for step in range(60):
    ...     noise = 1 + 0.02 * (step % 3)
    ...     writer.write_metrics({"step": step, "entropy": noise * 0.9 ** max(step - 20, 0), "reward": 0.3 * noise})
    >>> found = diagnose(writer.path)
    >>> [(finding.name, 15 < finding.since.step < 25) for finding in found.findings]
    [('collapse', True)]
    """
    with ExitStack() as stack:
        ours, theirs = (
            one if isinstance(one, Run) or one is None else stack.enter_context(opened(one)) for one in (run, baseline)
        )
        assert ours is not None
        return judged(observe(ours), None if theirs is None else observe(theirs))


def judged(observed: Observed, baseline: Observed | None = None) -> Diagnosis:
    """Make every check on a run that was read.

    Parameters
    ----------
    observed
        The run.
    baseline
        The run beside it.

    Returns
    -------
    Diagnosis
        See `diagnose`.
    """
    findings: list[Finding] = []
    fine: list[str] = []
    skipped: list[Skipped] = []
    for check in CHECKS.values():
        if any(_lacks(observed, names) for names in check.needs):
            skipped.append(_skipped(check, observed))
            continue
        seen = observed.fresh(baseline)
        verdict = check.judge(seen)
        if isinstance(verdict, Case):
            findings.append(_finding(check, verdict, seen))
        elif verdict is None:
            fine.append(check.name)
        else:
            skipped.append(Skipped(check.name, check.title, verdict.why))
    return Diagnosis(
        run=observed.run.name,
        framework=observed.framework,
        steps=observed.steps,
        n_rollouts=observed.n_rollouts,
        findings=tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))),
        fine=tuple(fine),
        skipped=tuple(skipped),
        baseline=None if baseline is None else baseline.run.name,
        left_out=tuple(f"{item.file}: {item.why}" for item in observed.run.skipped),
    )


def _finding(check: Check, case: Case, seen: Observed) -> Finding:
    framework = seen.framework
    finding = Finding(
        name=check.name,
        title=check.title,
        severity=case.severity,
        what=case.what,
        since=case.since,
        evidence=case.evidence,
        mechanism=check.mechanism,
        reference=check.reference,
        change=tuple(re.sub(r"\{(\w+)\}", lambda found: spoken(found[1], framework), text) for text in check.advice),
        data=tuple(seen.used),
    )
    if seen.baseline is None:
        return finding
    theirs = None if any(_lacks(seen.baseline, names) for names in check.needs) else check.judge(seen.baseline.fresh())
    if isinstance(theirs, Case):
        return replace(finding, severity=NOTE, baseline=f"the baseline shows it, too: {theirs.what}")
    unknown = theirs is not None or any(_lacks(seen.baseline, names) for names in check.needs)
    return replace(finding, baseline="the baseline cannot be judged" if unknown else "the baseline does not show it")


def _lacks(observed: Observed, names: tuple[str, ...]) -> bool:
    return not any(name in observed.series for name in names)


def _skipped(check: Check, observed: Observed) -> Skipped:
    unmet = [names for names in check.needs if _lacks(observed, names)]
    texts = dict.fromkeys(" or ".join(dict.fromkeys(_sources(names, observed))) for names in unmet)
    columns = tuple(dict.fromkeys(column for names in unmet for column in _absent(names, observed)))
    how = observed.how_to_record
    return Skipped(
        check.name,
        check.title,
        ("needs " if observed.run.step_files else "needs rollouts with ") + "; ".join(texts),
        columns,
        tuple((column, str(how[column])) for column in columns if column in how),
    )


def _sources(names: tuple[str, ...], observed: Observed) -> Iterator[str]:
    """Name what a need could be met with: columns that are missing, or what no step has of them, and metrics."""
    for name in names:
        signal = SIGNALS[name]
        absent = [column for column in signal.columns if column not in observed.run.columns]
        if signal.columns:
            yield ", ".join(absent) or f"a step that has the {signal.meaning}"
        keys = metric_names(name, observed.framework) or signal.metrics
        if keys:
            yield f"metric {', '.join(keys)}"


def _absent(names: tuple[str, ...], observed: Observed) -> Iterator[str]:
    """Give the columns that are missing; ``rollouts`` or ``metrics`` where all of them are."""
    for name in names:
        signal = SIGNALS[name]
        if signal.columns and not observed.run.step_files:
            yield "rollouts"
        yield from (column for column in signal.columns if column not in observed.run.columns)
        if signal.metrics and not signal.columns:
            yield "metrics"
