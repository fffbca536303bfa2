"""``entropy-lab claims``: the paper's claims, judged by a study."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table as Listing

from entropy_lab.claims.audit import audit
from entropy_lab.claims.rules import CONTRADICTED, SUPPORTED
from entropy_lab.claims.wording import how_to_read, markdown, nested, spoken_difference, spoken_part, weakest
from entropy_lab.cli import Claims
from entropy_lab.commands.figures import analysed
from entropy_lab.commands.terminal import console
from entropy_lab.errors import ParameterError
from entropy_lab.study import open_study
from entropy_lab.table import Table

_STYLES: Final = {SUPPORTED: "green", CONTRADICTED: "red"}
_WIDTH: Final = 100
"""Columns at most, where the terminal has more: long lines are hard to follow."""


def run(command: Claims) -> None:
    """Judge, write the table, and print verdicts: as a table, as Markdown or as JSON."""
    if command.json and command.markdown:
        raise ParameterError("--json", "is given with --markdown", "one of the two")
    table = audit(analysed(open_study(command.study)))
    file = table.write((command.out or command.study) / "tables" / "claims.parquet")
    if command.json:
        told = {"study": str(command.study), "table": str(file), **table.metadata, "claims": nested(table)}
        sys.stdout.write(json.dumps(told, allow_nan=False) + "\n")
    elif command.markdown:
        sys.stdout.write(markdown(table))
    else:
        screen = console()
        screen.width = min(screen.width, _WIDTH)
        _show(table, file, screen)


def _show(table: Table, file: Path, screen: Console) -> None:
    listing = Listing(box=None, show_header=False, pad_edge=False)
    listing.add_column(style="cyan", no_wrap=True)
    listing.add_column(no_wrap=True)
    listing.add_column()
    for claim in nested(table):
        listing.add_row(claim["claim"], _styled(claim["verdict"]), f"[bold]{claim['text']}[/] ({claim['source']})")
        for setting in claim["settings"]:
            listing.add_row("", _styled(setting["verdict"]), escape(f"{setting['setting']}: {_evidence(setting)}"))
    screen.print(listing)
    for name, texts in table.metadata["left_out"].items():
        for text in texts:
            screen.print(f"[yellow]left out of {escape(f'{name}: {text}')}[/]", soft_wrap=True)
    screen.print(f"\n{how_to_read(table)} Shown is the weakest part of each claim.")
    screen.print(f"Every part and companion: {file}; the rules: docs/claims.md", soft_wrap=True)


def _evidence(setting: Mapping[str, Any]) -> str:
    if setting["reason"]:
        return str(setting["reason"])
    part = weakest(setting)
    return f"{spoken_part(part)}: {spoken_difference(part)}, {part['n_pairs']} pairs"


def _styled(verdict: str) -> str:
    return f"[{_STYLES[verdict]}]{verdict}[/]" if verdict in _STYLES else verdict
