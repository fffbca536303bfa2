"""Figure 5: more dynamics of the main methods.

(a) Training reward, (b1, b2, …) validation accuracy on each benchmark, (c1, c2) shares of groups that every rollout
solves and that none does.
"""

from matplotlib.figure import Figure

from entropy_lab.plots import drawing, page, style
from entropy_lab.plots.catalogue import solved_share, validation_accuracy
from entropy_lab.plots.panels import Panel
from entropy_lab.table import Table

MAIN = ("grpo", "grpo+clip_higher", "asym_grpo", "asym_grpo+clip_higher")

PANELS: tuple[Panel, ...] = (
    Panel(
        key="a",
        title="Training reward",
        analysis="training",
        x=("step",),
        y="reward",
        y_label="reward",
        unit="mean",
        methods=MAIN,
        window=11,
    ),
    validation_accuracy("b", MAIN, each_benchmark=True),
    solved_share("c1", "all_solved", MAIN),
    solved_share("c2", "none_solved", MAIN),
)


def draw(table: Table) -> Figure:
    """Draw the figure.

    Parameters
    ----------
    table
        ``collect("figure5", PANELS, runs)``.

    Returns
    -------
    matplotlib.figure.Figure
        6.75 inches wide; rows of panels for each model.
    """
    with style.context():
        figure, cells = page.sheet(table, columns=4, height=1.7)
        for cell in cells:
            drawing.draw_panel(cell)
    return figure
