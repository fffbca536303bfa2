"""Figure 3: the curves flipped. EntDecrease and EntIncrease against GRPO, (a) entropy and (b) validation accuracy."""

from matplotlib.figure import Figure

from entropy_lab.plots import drawing, page, style
from entropy_lab.plots.catalogue import policy_entropy, validation_accuracy
from entropy_lab.plots.panels import Panel
from entropy_lab.table import Table

FLIPPED = ("ent_decrease", "grpo", "ent_increase")

COMPARES = True
"""Drawn unasked only for two methods or more."""

PANELS: tuple[Panel, ...] = (policy_entropy("a", FLIPPED), validation_accuracy("b", FLIPPED))


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
