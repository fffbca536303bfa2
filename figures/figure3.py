"""Figure 3: the curves flipped. EntDecrease and EntIncrease against GRPO, (a) entropy and (b) validation accuracy."""

from matplotlib.figure import Figure

from entropy_lab.plots import drawing, page, style
from entropy_lab.plots.panels import Panel
from entropy_lab.table import Table

FLIPPED = ("ent_decrease", "grpo", "ent_increase")

COMPARES = True
"""Drawn unasked only for two methods or more."""

PANELS: tuple[Panel, ...] = (
    Panel(
        key="a",
        title="Policy entropy",
        analysis="entropy",
        x=("step",),
        y="entropy",
        y_label="entropy",
        unit="nats/token",
        low="ci_low",
        high="ci_high",
        methods=FLIPPED,
        bounds=(0, None),
    ),
    Panel(
        key="b",
        title="Validation",
        analysis="validation",
        x=("step",),
        y="accuracy",
        y_label="accuracy",
        unit="%",
        low="ci_low",
        high="ci_high",
        interval="bootstrap interval over problems",
        methods=FLIPPED,
        decoding=True,
        average_over="benchmark",
        bounds=(0, 1),
    ),
)


def draw(table: Table) -> Figure:
    """Draw the figure.

    Parameters
    ----------
    table
        ``collect("figure3", PANELS, runs)``.

    Returns
    -------
    matplotlib.figure.Figure
        6.75 inches wide; a row of panels for each model.
    """
    with style.context():
        figure, cells = page.sheet(table, columns=2, height=2.1)
        for cell in cells:
            drawing.draw_panel(cell)
    return figure
