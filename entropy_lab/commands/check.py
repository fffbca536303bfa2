"""``entropy-lab check``: is every file of a run sound, and what can be read from it."""

from __future__ import annotations

import sys

from rich.table import Table as Listing

from entropy_lab import recipes
from entropy_lab.analysis import analyze_all, require_content
from entropy_lab.cli import Check
from entropy_lab.commands.emptiness import why_empty
from entropy_lab.commands.opening import open_run_of
from entropy_lab.commands.terminal import console
from entropy_lab.consistency import disagreements
from entropy_lab.errors import RunFormatError
from entropy_lab.run import Run, open_run
from entropy_lab.schema import ROLLOUTS
from entropy_lab.validation import KEY


def run(command: Check) -> None:
    """Read every row once, print what was found, and exit with 2 when something is invalid."""
    opened = open_run(open_run_of(command, command.run, out=command.out).path, skip_invalid=True)
    _ = opened.info
    require_content(opened)
    n_rows = _read_all(opened)
    warnings = [line for file in opened.readable_files for line in disagreements(opened, file)]
    screen = console()
    content = f"{len(opened.step_files)} steps, {n_rows:,} valid rollouts"
    if not opened.step_files and (n_scalars := opened.metrics().height):
        content = f"no rollouts, scalars of {n_scalars} steps"
    screen.print(f"{opened.name}: {content}", _gaps(opened))
    screen.print(_abilities(opened))
    for line in warnings:
        screen.print(f"[yellow]warning[/] {line}", soft_wrap=True)
    for item in opened.skipped:
        rows = "" if item.rows is None else f"{item.rows:,} rows: "
        sys.stderr.write(f"invalid: {item.file}: {rows}{item.why}\n")
    if opened.skipped:
        hint = f"entropy-lab analyze {command.run} --skip-invalid analyses the rest"
        raise RunFormatError(str(command.run), f"breaks the run format in {_places(len(opened.skipped))}", "", hint)
    screen.print("[green]valid[/]: every file keeps the run format")


def _places(n: int) -> str:
    return "1 place" if n == 1 else f"{n:,} places"


def _read_all(opened: Run) -> int:
    """Check every row of every file, and count the valid rollouts."""
    n_rows = 0
    for file, schema in opened.sound_files.items():
        plain = [name for name in schema if name in ROLLOUTS and not ROLLOUTS[name].dtype.startswith("List")]
        n_rows += opened.without_repeats(file, opened.read(file, plain), KEY).height
    for _ in opened.evals():
        pass
    opened.metrics()
    return n_rows


def _gaps(opened: Run) -> str:
    steps = [file.step for file in opened.step_files]
    absent = sorted(set(range(steps[0], steps[-1] + 1)) - set(steps)) if steps else []
    return (
        f"([yellow]steps missing: {', '.join(map(str, absent[:5]))}{' …' if absent[5:] else ''}[/])" if absent else ""
    )


def _abilities(opened: Run) -> Listing:
    listing = Listing(box=None, show_header=False, pad_edge=False)
    listing.add_column(no_wrap=True, min_width=14)
    listing.add_column()
    # Tried, not guessed: what an analysis needs may depend on its parameters.
    results = analyze_all(open_run(opened.path, skip_invalid=True))
    for name in recipes.names("analyses"):
        if name in results.missing:
            listing.add_row(name, f"[yellow]no[/]: needs {', '.join(results.missing[name])}")
        elif not len(results.tables[name]):
            listing.add_row(name, f"[yellow]no row[/]: {why_empty(opened)}")
        else:
            listing.add_row(name, f"[green]yes[/]{_less(opened, name)}")
    return listing


def _less(opened: Run, name: str) -> str:
    wants = getattr(recipes.load("analyses", name), "WANTS", ())
    absent = [column for column in wants if column not in opened.columns]
    return f", without {', '.join(absent)}" if absent else ""
