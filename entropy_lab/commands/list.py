"""``entropy-lab list``: what there is."""

from __future__ import annotations

from rich.table import Table as Listing

from entropy_lab import advantages, recipes, tasks
from entropy_lab.cli import List
from entropy_lab.commands.terminal import console
from entropy_lab.presets.preset import PRESETS, read_preset
from entropy_lab.readers import READERS
from entropy_lab.studies.plan import STUDIES, read_plan


def run(_: List) -> None:
    """Print recipes with the first line of their documentation, advantages with their formula, and all else."""
    screen = console()
    for kind in recipes.KINDS:
        docs = {name: _first_line(recipes.find(kind, name).read_text(encoding="utf-8")) for name in recipes.names(kind)}
        screen.print(_listing(kind, docs))
    named = (*advantages.names(), *advantages.modulation_names())
    screen.print(_listing("advantages", {name: advantages.modulation(name).formula for name in named}))
    screen.print(_listing("studies", {name: read_plan(name).about for name in STUDIES.names()}))
    screen.print(_listing("presets", {name: read_preset(name).about for name in PRESETS.names()}))
    screen.print(_listing("readers", {name: reader.title for name, reader in READERS.items()}))
    screen.print(_listing("tasks", {name: tasks.about(name) for name in tasks.TASKS}))


def _listing(title: str, rows: dict[str, str]) -> Listing:
    listing = Listing(
        title=title, title_justify="left", title_style="bold", box=None, show_header=False, pad_edge=False
    )
    listing.add_column(style="cyan", no_wrap=True, min_width=20)
    listing.add_column()
    for name, text in rows.items():
        listing.add_row(name, text)
    return listing


def _first_line(source: str) -> str:
    """First line of a docstring, without executing the file that holds it."""
    return source.removeprefix('"""').strip().splitlines()[0].removesuffix('"""')
