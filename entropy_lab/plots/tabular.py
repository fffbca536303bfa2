"""Tables as pictures and as Markdown: rows in sections, columns in groups, numbers with what belongs to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, Final

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from entropy_lab.plots.published import MARK
from entropy_lab.plots.series import INTERVAL
from entropy_lab.plots.style import FONT_SIZE, GREY
from entropy_lab.plots.text import LINE, inches

_MARGIN: Final = 0.08
_GAP: Final = 0.1
"""Inches: beside the table, and least room between two columns."""


_WIDEST: Final = 7.5
"""Inches of a page that a table may fill before its rows get two lines."""


@dataclass(frozen=True)
class Entry:
    """One number of a table.

    Parameters
    ----------
    text
        The number; a dash for none.
    span
        Its interval, ``±0.8`` or ``(36.1–37.7)``; empty for none.
    best
        True for bold.
    """

    text: str = "–"
    span: str = ""
    best: bool = False


def entry_of(row: Mapping[str, Any]) -> Entry:
    """Spell a row of a figure's table as per cent: ours with interval, a published number with its mark.

    Parameters
    ----------
    row
        ``y``, ``low``, ``high``, ``band``, ``best`` and ``published`` of the row.

    Returns
    -------
    Entry
        A dash where there is no number.

    Examples
    --------
    >>> row = {"y": 0.369, "low": 0.361, "high": 0.377, "band": INTERVAL, "best": False, "published": None}
    >>> entry_of(row)
    Entry(text='36.9', span='±0.8', best=False)
    >>> entry_of({**row, "band": "range over seeds"}).span, entry_of({**row, "published": "a paper"}).text
    ('(36.1–37.7)', '36.90†')
    """
    if row["y"] is None:
        return Entry()
    if row["published"]:
        return Entry(f"{100 * row['y']:.2f}{MARK}")
    if row["low"] is None:
        return Entry(f"{100 * row['y']:.1f}")
    half, low, high = 50 * (row["high"] - row["low"]), 100 * row["low"], 100 * row["high"]
    span = f"±{half:.1f}" if row["band"] == INTERVAL else f"({low:.1f}–{high:.1f})"
    return Entry(f"{100 * row['y']:.1f}", span, bool(row["best"]))


@dataclass(frozen=True)
class Column:
    """Head of a column.

    Parameters
    ----------
    name
        Such as a benchmark.
    note
        A second line, such as ``avg@5``.
    group
        Columns side by side of one group stand under its name.
    """

    name: str
    note: str = ""
    group: str = ""


@dataclass(frozen=True)
class Grid:
    """A table.

    Parameters
    ----------
    title
        One line above it.
    columns
        Heads of all columns but the first, which holds the rows' labels.
    sections
        Heading (empty for none) and rows (label, entries) of each part; parts are separated by a rule.
    """

    title: str
    columns: Sequence[Column]
    sections: Sequence[tuple[str, Sequence[tuple[str, Sequence[Entry]]]]]

    @property
    def rows(self) -> list[tuple[str, Sequence[Entry]]]:
        """Rows of all sections."""
        return [row for _, rows in self.sections for row in rows]

    @property
    def label_width(self) -> float:
        """Inches of the first column."""
        return max((inches(label) for label, _ in self.rows), default=0.0) + _GAP

    def needs(self, stacked: bool) -> list[float]:
        """Inches that each column needs, with intervals below their numbers (``stacked``) or beside them."""
        found = []
        for number, column in enumerate(self.columns):
            texts = [column.name, column.note]
            for _, entries in self.rows:
                entry = entries[number]
                texts += [entry.text, entry.span] if stacked else [f"{entry.text} {entry.span}"]
            found.append(max(map(inches, texts)) + _GAP)
        for group, members in _groups(self.columns):
            lacking = inches(group) + _GAP - sum(found[i] for i in members)
            for i in members:
                found[i] += max(lacking, 0) / len(members)
        return found

    @property
    def width(self) -> float:
        """Inches that the table needs; with intervals below their numbers where a page does not hold both."""
        rest = 2 * _MARGIN + self.label_width
        beside = rest + sum(self.needs(stacked=False))
        return beside if beside <= _WIDEST else rest + sum(self.needs(stacked=True))

    def stacked(self, width: float) -> bool:
        """Whether intervals stand below their numbers, because the page is too narrow for both side by side."""
        return 2 * _MARGIN + self.label_width + sum(self.needs(stacked=False)) > width

    def height(self, width: float) -> float:
        """Inches of the table on a page of that width, with room below it."""
        return LINE * (_head(self) + sum(_lines(self, width)) + 1.6)

    def to_markdown(self) -> str:
        """Write the table as Markdown; groups stand before the names of their columns.

        Examples
        --------
        >>> grid = Grid("Accuracy", [Column("MATH-500", "avg@5", "ours")], [("", [("GRPO", [Entry("36.9", "±0.8")])])])
        >>> print(grid.to_markdown())
        Accuracy
        <BLANKLINE>
        | method | ours: MATH-500 avg@5 |
        | --- | ---: |
        | GRPO | 36.9 ±0.8 |
        """
        heads = [
            (f"{column.group}: " if column.group else "") + f"{column.name} {column.note}".strip()
            for column in self.columns
        ]
        lines = [["method", *heads], ["---"] + ["---:"] * len(heads)]
        for heading, rows in self.sections:
            lines += [[f"*{heading}*"] + [""] * len(heads)] if heading and rows else []
            lines += [[_escaped(label), *map(_markdown, entries)] for label, entries in rows]
        return f"{self.title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _groups(columns: Sequence[Column]) -> list[tuple[str, list[int]]]:
    """Columns side by side that stand under one name."""
    return [(name, list(members)) for name, members in groupby(range(len(columns)), lambda i: columns[i].group)]


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _markdown(entry: Entry) -> str:
    return (f"**{entry.text}**" if entry.best else entry.text) + (f" {entry.span}" if entry.span else "")


def _head(grid: Grid) -> float:
    """Lines of the title and the heads."""
    return 3.0 + 1.3 * any(column.group for column in grid.columns) + any(column.note for column in grid.columns)


def _lines(grid: Grid, width: float) -> list[float]:
    """Lines of each row and each heading of a section, in order."""
    tall = 2.3 if grid.stacked(width) else 1.15
    found: list[float] = []
    for number, (heading, rows) in enumerate(grid.sections):
        if rows:
            found += [0.5] * (number > 0) + [1.15] * bool(heading) + [tall] * len(rows)
    return found


def draw_grid(figure: Figure, grid: Grid, top: float) -> None:
    """Draw a table on a page.

    Parameters
    ----------
    figure
        The page, as high as `Grid.height` of all its tables and wide enough for each.
    grid
        The table.
    top
        Inches from the top of the page.

    Examples
    --------
    >>> grid = Grid("Accuracy", [Column("MATH-500")], [("", [("GRPO", [Entry("36.9", "±0.8")])])])
    >>> page = Figure(figsize=(6.75, grid.height(6.75)))
    >>> draw_grid(page, grid, 0)
    >>> [text.get_text() for text in page.texts]
    ['Accuracy', 'MATH-500', 'GRPO', '36.9', ' ±0.8']
    """
    _Pen(figure, grid, top).draw()


class _Pen:
    """Where the next line of a table goes."""

    def __init__(self, figure: Figure, grid: Grid, top: float) -> None:
        self.figure, self.grid, self.down = figure, grid, top
        self.width, self.total = figure.get_size_inches()
        self.stacked = grid.stacked(self.width)
        needs = grid.needs(self.stacked)
        left = _MARGIN + grid.label_width
        spare = (self.width - _MARGIN - left - sum(needs)) / max(len(needs), 1)
        self.edges = [left + sum(needs[:i]) + i * spare for i in range(len(needs) + 1)]
        self.centres = [(start + end) / 2 for start, end in pairwise(self.edges)]

    def write(self, x: float, text: str, below: float = 0.0, **settings: Any) -> None:
        """Write a text, centred on the current line or so many lines below it."""
        if text:
            height = 1 - (self.down + below * LINE) / self.total
            self.figure.text(x / self.width, height, text, va="center", **settings)

    def rule(self, weight: float, left: float = _MARGIN, right: float | None = None, below: float = 0.0) -> None:
        """Draw a line on the current line or so many lines below it; across the page where no ends are given."""
        ends = [left / self.width, (self.width - _MARGIN if right is None else right) / self.width]
        height = 1 - (self.down + below * LINE) / self.total
        self.figure.add_artist(Line2D(ends, [height, height], color="black", linewidth=weight))

    def move(self, lines: float) -> None:
        self.down += lines * LINE

    def draw(self) -> None:
        self.move(0.8)
        self.write(_MARGIN, self.grid.title, size=FONT_SIZE + 0.5)
        self.move(0.8)
        self.rule(0.8)
        self.heads()
        for number, (heading, rows) in enumerate(self.grid.sections):
            if not rows:
                continue
            if number:
                self.move(0.25)
                self.rule(0.3)
                self.move(0.25)
            if heading:
                self.write(_MARGIN, heading, 0.57, color=GREY)
                self.move(1.15)
            for label, entries in rows:
                self.row(label, entries)
        self.move(0.3)
        self.rule(0.8)

    def heads(self) -> None:
        columns = self.grid.columns
        if any(column.group for column in columns):
            self.move(0.65)
            for group, members in _groups(columns):
                start, end = self.edges[members[0]] + 0.05, self.edges[members[-1] + 1] - 0.05
                self.write((start + end) / 2, group, ha="center")
                if group:
                    self.rule(0.3, start, end, below=0.65)
            self.move(0.65)
        noted = any(column.note for column in columns)
        for x, column in zip(self.centres, columns, strict=True):
            self.write(x, column.name, 0.65 if column.note or not noted else 1.15, ha="center")
            self.write(x, column.note, 1.6, ha="center", color=GREY)
        self.move(1.3 + noted)
        self.rule(0.5)
        self.move(0.1)

    def row(self, label: str, entries: Sequence[Entry]) -> None:
        middle = 1.15 if self.stacked else 0.6
        self.write(_MARGIN, label, middle)
        for number, (x, entry) in enumerate(zip(self.centres, entries, strict=True)):
            weight = "bold" if entry.best else "normal"
            if self.stacked and entry.span:
                self.write(x, entry.text, middle - 0.47, ha="center", weight=weight)
                self.write(x, entry.span, middle + 0.47, ha="center", color=GREY)
            elif entry.span:
                # Numbers of a column end at one place, and their intervals begin there.
                seam = x + self.seam(number)
                self.write(seam, entry.text, middle, ha="right", weight=weight)
                self.write(seam, f" {entry.span}", middle, ha="left", color=GREY)
            else:
                self.write(x, entry.text, middle, ha="center", weight=weight)
        self.move(2.3 if self.stacked else 1.15)

    def seam(self, number: int) -> float:
        """Inches from the centre of a column to where its intervals begin, so that both together are centred."""
        column = [entries[number] for _, entries in self.grid.rows if entries[number].span]
        numbers = max(inches(entry.text) for entry in column)
        spans = max(inches(f" {entry.span}") for entry in column)
        return (numbers - spans) / 2
