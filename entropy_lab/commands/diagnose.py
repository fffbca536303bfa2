"""``entropy-lab diagnose``: what is wrong with a run, since when, why, and what to change."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack
from difflib import get_close_matches
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table as Listing

from entropy_lab.cli import Diagnose
from entropy_lab.commands.opening import options_of, require_fit, tell
from entropy_lab.commands.terminal import console
from entropy_lab.diagnosis.diagnose import diagnose
from entropy_lab.diagnosis.finding import CRITICAL, NOTE, WARNING, Diagnosis, Finding
from entropy_lab.diagnosis.opening import opened
from entropy_lab.diagnosis.registry import names
from entropy_lab.diagnosis.wording import (
    SCOPE,
    about,
    markdown,
    reasons,
    spoken_measure,
    spoken_onset,
    titles,
    ways_to_record,
)
from entropy_lab.errors import ParameterError, UnknownNameError
from entropy_lab.files import replacing
from entropy_lab.readers import Options, is_ours
from entropy_lab.run import Run

STYLES: Final = {CRITICAL: "bold red", WARNING: "yellow", NOTE: "cyan"}
"""How severities look."""
_WIDTH: Final = 110
"""Columns at most, where the terminal has more: long lines are hard to follow."""


def run(command: Diagnose) -> None:
    """Diagnose and report; exit with 1 when there is a finding that was to fail."""
    if command.json and command.markdown:
        raise ParameterError("--json", "is given with --markdown", "one of the two")
    unwanted = failing(command.fail_on)
    options = options_of(command, skip_invalid=command.skip_invalid)
    require_fit(command, command.run)
    with ExitStack() as stack:
        ours = stack.enter_context(opened(command.run, options, out=command.out, say=tell))
        theirs = stack.enter_context(_baseline(command, options)) if command.baseline else None
        diagnosis = diagnose(ours, theirs)
    failed = [name for name in diagnosis.alarms() if name in unwanted]
    told = json.dumps({**diagnosis.as_dict(), "failed_on": failed}, allow_nan=False) + "\n"
    if command.json:
        sys.stdout.write(told)
    elif command.markdown:
        sys.stdout.write(markdown(diagnosis))
    else:
        screen = console()
        show(diagnosis, screen)
    if command.out is not None:
        with replacing(command.out / "diagnosis.json") as file:
            file.write_text(told, encoding="utf-8")
    if failed:
        sys.stderr.write(f"entropy-lab: failed on {', '.join(failed)}\n")
        sys.exit(1)


def _baseline(command: Diagnose, options: Options) -> AbstractContextManager[Run]:
    """Open the baseline; what was said about the format is about the run, where the baseline is one of ours."""
    assert command.baseline is not None
    ours = Options(skip_invalid=options.skip_invalid)
    return opened(command.baseline, ours if is_ours(command.baseline) else options, say=tell)


def failing(words: tuple[str, ...]) -> frozenset[str]:
    """Read the names of ``--fail-on``, by spaces or commas; ``any`` stands for all.

    Raises
    ------
    UnknownNameError
        A name is no finding's.

    Examples
    --------
    >>> sorted(failing(("collapse,explosion", "mismatch")))
    ['collapse', 'explosion', 'mismatch']
    """
    given = [name for word in words for name in word.split(",") if name]
    for name in given:
        if name not in names() and name != "any":
            close = get_close_matches(name, names(), n=1)
            hint = f"did you mean {close[0]}?" if close else ""
            raise UnknownNameError("--fail-on", f"there is no finding {name!r}", f"any, {', '.join(names())}", hint)
    return frozenset(names() if "any" in given else given)


def show(diagnosis: Diagnosis, screen: Console) -> None:
    """Print a diagnosis: worst first, then what is fine, then what could not be checked.

    Parameters
    ----------
    diagnosis
        What to print.
    screen
        Where; it is made narrower where lines would be too long to follow.
    """
    screen.width = min(screen.width, _WIDTH)
    screen.print(escape(about(diagnosis)))
    for finding in diagnosis.findings:
        screen.print()
        screen.print(_told(finding))
    if not diagnosis.findings:
        screen.print("[green]nothing found[/]")
    screen.print()
    if diagnosis.fine:
        screen.print(f"[green]checked and fine[/]: no sign of {titles(diagnosis.fine)}")
    if diagnosis.skipped:
        screen.print("[yellow]not checked[/]:")
        screen.print(_listing((", ".join(titled), why) for why, titled in reasons(diagnosis).items()))
    if ways := ways_to_record(diagnosis):
        screen.print(f"to record what is missing ({escape(diagnosis.framework)}):")
        screen.print(_listing((", ".join(columns), how) for how, columns in ways.items()))
    for line in diagnosis.left_out:
        screen.print(f"[yellow]left out[/] {escape(line)}", soft_wrap=True)
    screen.print(SCOPE)


def _told(finding: Finding) -> Listing:
    """One finding: what, since when, evidence, why, what to change."""
    since = f", {spoken_onset(finding.since)}" if finding.since else ""
    head = f"[{STYLES[finding.severity]}]{finding.severity}[/] [bold]{finding.title}[/]{escape(since)}"
    listing = _grid()
    listing.title, listing.title_justify, listing.title_style = f"{head} [dim]({finding.name})[/]", "left", ""
    listing.add_row("  what", escape(finding.what))
    for word, measure in zip(("  evidence", *[""] * len(finding.evidence)), finding.evidence, strict=False):
        listing.add_row(word, escape(spoken_measure(measure)))
    listing.add_row("  why", escape(f"{finding.mechanism} ({finding.reference})"))
    for word, text in zip(("  change", *[""] * len(finding.change)), finding.change, strict=False):
        listing.add_row(word, escape(text))
    if finding.baseline:
        listing.add_row("  baseline", escape(finding.baseline))
    listing.add_row("  data", escape("; ".join(finding.data)), style="dim")
    return listing


def _grid() -> Listing:
    listing = Listing(box=None, show_header=False, pad_edge=False)
    listing.add_column(style="cyan", no_wrap=True, min_width=10)
    listing.add_column()
    return listing


def _listing(rows: Iterable[tuple[str, str]]) -> Padding:
    listing = Listing(box=None, show_header=False, pad_edge=False)
    listing.add_column(style="cyan", max_width=42)
    listing.add_column()
    for key, text in rows:
        listing.add_row(key, escape(text))
    return Padding.indent(listing, 2)
