"""Table 1: accuracy of every method on every benchmark, and their average.

Sampled answers (the mean over k of them, avg@k) and greedy ones stand apart. The step is the last validation of each
run; ``at="best:MATH-500"`` below is the paper's rule, which chooses on a benchmark that it then reports.
"""

from typing import Any

import polars as pl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from entropy_lab.plots import page, style
from entropy_lab.plots.panels import Panel
from entropy_lab.table import Table

COMPARES = True
"""Drawn unasked only for two methods or more."""

PANELS: tuple[Panel, ...] = (
    Panel(
        key="scores",
        title="Accuracy (%)",
        analysis="validation",
        x=("step",),
        y="accuracy",
        y_label="accuracy",
        unit="%",
        low="ci_low",
        high="ci_high",
        interval="bootstrap interval over problems",
        kind="scores",
        at="last",
    ),
)

LINE, COLUMN = 0.125, 0.8
"""Inches: height of a line of text, least width of a column of numbers."""

Cell = tuple[str, str, bool]
"""Mean, range, and whether it is the best beyond the seeds' ranges."""
Block = tuple[str, list[tuple[str, str]], list[tuple[str, list[Cell]]]]
"""Title, header (benchmark, avg@k) and rows (series, cells) of one table."""


def draw(table: Table) -> Figure:
    """Draw the table; the best of a column is bold where its range over seeds lies above all others.

    Parameters
    ----------
    table
        ``collect("table1", PANELS, runs)``.

    Returns
    -------
    matplotlib.figure.Figure
        6.75 inches wide, more where many benchmarks or long names need it; a table for sampled answers and one for
        greedy ones, for each model.
    """
    blocks = _blocks(table)
    names = max((page.inches(label) for *_, rows in blocks for label, _ in rows), default=0) + 0.2
    width = max(style.WIDTH, names + COLUMN * max((len(header) for _, header, _ in blocks), default=0))
    notes = page.footnote(table, width)
    lines = sum(4.6 + 2.3 * len(rows) for _, _, rows in blocks) + len(notes) * 1.1 + 0.7
    with style.context():
        figure = Figure(figsize=(width, lines * LINE))
        top = 1.0
        for block in blocks:
            _draw_block(figure, block, (top, lines, names))
            top += 4.6 + 2.3 * len(block[2])
        figure.text(0.08 / width, 0.4 / lines, "\n".join(notes), color=style.GREY, linespacing=1.3)
    return figure


def to_markdown(table: Table) -> str:
    """Write the table as Markdown, for terminals and README files.

    Parameters
    ----------
    table
        ``collect("table1", PANELS, runs)``.

    Returns
    -------
    str
        One table for each block of the figure, with its title, and the footnote.
    """
    parts = []
    for title, header, rows in _blocks(table):
        lines = [["method", *(" ".join(names).strip() for names in header)], ["---"] + ["---:"] * len(header)]
        lines += [[label, *(_markdown(cell) for cell in cells)] for label, cells in rows]
        parts.append(f"{title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join([*parts, *([" ".join(notes)] if (notes := page.footnote(table)) else [])]) + "\n"


def _markdown(cell: Cell) -> str:
    mean, span, best = cell
    return (f"**{mean}**" if best else mean) + (f" {span}" if span else "")


def _blocks(table: Table) -> list[Block]:
    blocks = []
    for panel in page.panels_of(table):
        rows = table.frame.filter((pl.col("panel") == panel["key"]) & (pl.col("model") == panel["model"]))
        columns = rows.sort("x").unique("benchmark", keep="first", maintain_order=True)
        sampled = panel["key"] != "greedy"
        header = [(name, f"avg@{k}" if k and sampled else "") for name, k in columns.select("benchmark", "k").rows()]
        found = {(row["series"], row["benchmark"]): _cell(row) for row in rows.iter_rows(named=True)}
        labels = page.legend_order(rows)
        body = [(label, [found.get((label, name), ("–", "", False)) for name, _ in header]) for label in labels]
        blocks.append((" · ".join(filter(None, (panel["model"], panel["title"]))), header, body))
    return blocks


def _cell(row: dict[str, float]) -> Cell:
    if row["y"] is None:
        return "–", "", False
    span = f"({100 * row['low']:.1f}–{100 * row['high']:.1f})" if row["low"] is not None else ""
    return f"{100 * row['y']:.1f}", span, bool(row["best"])


def _draw_block(figure: Figure, block: Block, place: tuple[float, float, float]) -> None:
    (title, header, rows), (top, lines, names) = block, place
    width = figure.get_figwidth()
    left, right = 0.08 / width, 1 - 0.08 / width
    step = (right - names / width) / max(len(header), 1)
    centres = [names / width + (i + 0.5) * step for i in range(len(header))]

    def write(x: float, line: float, text: str, **settings: Any) -> None:  # noqa: ANN401 - matplotlib's own
        if text:
            figure.text(x, 1 - line / lines, text, va="center", **settings)

    write(left, top, title, size=style.FONT_SIZE + 0.5)
    for x, (name, k) in zip(centres, header, strict=True):
        write(x, top + (1.4 if k else 1.85), page.fitted(name, step * width), ha="center")
        write(x, top + 2.35, k, ha="center", color=style.GREY)
    for number, (label, cells) in enumerate(rows):
        line = top + 3.7 + 2.3 * number
        write(left, line + 0.45, label)
        for x, (mean, span, best) in zip(centres, cells, strict=True):
            write(x, line if span else line + 0.45, mean, ha="center", weight="bold" if best else "normal")
            write(x, line + 0.95, span, ha="center", color=style.GREY)
    bottom = top + 3.2 + 2.3 * len(rows)
    for line, weight in ((top + 0.75, 0.8), (top + 2.95, 0.5), (bottom, 0.8)):
        height = 1 - line / lines
        figure.add_artist(Line2D([left, right], [height, height], color="black", linewidth=weight))
