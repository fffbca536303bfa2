"""Entropy ledger (not of the paper): what the channels were predicted to do to entropy, and what entropy did.

(a) By step, (b) since the first step, (c) by group accuracy, over all steps. Areas and bars are predictions whose one
scale was fitted to the measured changes: their proportions say something, that they reach the line does not.
"""

from dataclasses import replace

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from entropy_lab.plots import page, stack_drawing, style
from entropy_lab.plots.panels import Panel, panels_of
from entropy_lab.table import Table

ALONE = True
"""Of a study it is drawn only when asked for: it says nothing of one method beside another."""

_STEPS = Panel(
    key="a",
    title="By step",
    analysis="ledger",
    x=("step",),
    y="predicted",
    y_label="ΔH",
    unit="10⁻³ nats/token",
    kind="stacked",
    parts="channel",
    whole="all",
    line="measured",
    window=11,
    alone=True,
    note="areas and bars: predicted by {predictor}, scale fitted{doubt}",
)

PANELS: tuple[Panel, ...] = (
    _STEPS,
    replace(_STEPS, key="b", title="Since the first step", running=True, alone=False),
    replace(_STEPS, key="c", title="By group accuracy", x=("accuracy",), line=""),
)


def _thousandths(nats: float, _: object) -> str:
    return f"{1000 * nats:.6g}".replace("-", "−")


def draw(table: Table) -> Figure:
    """Draw the figure.

    Parameters
    ----------
    table
        ``collect("entropy_ledger", PANELS, runs)``.

    Returns
    -------
    matplotlib.figure.Figure
        6.75 inches wide; panel (b) alone, for each method, where there are several.
    """
    with style.context():
        n_panels = len(panels_of(table))
        figure, cells = page.sheet(table, columns=3 if n_panels <= 3 else 4, height=2.0 if n_panels <= 3 else 1.6)
        for cell in cells:
            stack_drawing.draw_stack(cell)
            cell.axes.yaxis.set_major_formatter(FuncFormatter(_thousandths))
            if cell.panel["x"] == "accuracy":
                cell.axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "¼", "½", "¾", "1"])
    return figure
