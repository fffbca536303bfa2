"""Finite groups (not of the paper): what groups of this size show of the true accuracies, and do to advantages.

(a) Observed less expected share of groups by accuracy: above 0 at both ends, prompts are polarised beyond a smooth
spread of difficulty. (b) The share of the gradient mass that an estimator puts elsewhere than it would at the true
accuracies.
"""

from matplotlib.figure import Figure

from entropy_lab.plots import drawing, map_drawing, page, style
from entropy_lab.plots.panels import Panel
from entropy_lab.table import Table

ALONE = True
"""Of a study it is drawn only when asked for: its panels are of one run."""

PANELS: tuple[Panel, ...] = (
    Panel(
        key="a",
        title="Groups beyond the Beta-binomial",
        analysis="group_size",
        x=("accuracy",),
        y="excess",
        y_label="observed − expected share",
        unit="%",
        low="excess_low",
        high="excess_high",
        only=("n_rollouts", "group_size"),  # equal accuracies of groups of other sizes are other rows
        note="groups of {group_size}, as shares of all groups",
        kind="points",
        zero_line=True,
    ),
    Panel(
        key="b",
        title="Misplaced gradient mass",
        analysis="group_size",
        x=("label",),
        y="misplaced",
        y_label="misplaced",
        unit="share of the true mass",
        kind="ranking",
        zero_line=True,
        note="groups of {group_size}, against the true accuracies of the fitted Beta distribution",
    ),
)


def draw(table: Table) -> Figure:
    """Draw the figure.

    Parameters
    ----------
    table
        ``collect("finite_groups", PANELS, runs)``.

    Returns
    -------
    matplotlib.figure.Figure
        6.75 inches wide; panel (b) for runs of one method only.
    """
    with style.context():
        figure, cells = page.sheet(table, columns=2, height=2.9)
        for cell in cells:
            (map_drawing.draw_ranking if cell.panel["kind"] == "ranking" else drawing.draw_panel)(cell)
    return figure
