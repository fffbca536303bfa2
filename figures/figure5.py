"""Figure 5: more dynamics of the main methods.

(a) Training reward, (b1, b2, …) validation accuracy on each benchmark, (c1, c2) shares of groups that every rollout
solves and that none does.
"""

from matplotlib.figure import Figure

from entropy_lab.plots import drawing, page, style
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
        unit="mean of rollouts",
        methods=MAIN,
        window=11,
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
        methods=MAIN,
        decoding=True,
        one_per="benchmark",
        bounds=(0, 1),
    ),
    *(
        Panel(
            key=key,
            title=title,
            analysis="solve_rates",
            x=("step", "epoch"),
            y=y,
            y_label="share of groups",
            unit="%",
            methods=MAIN,
            window=11,
            bounds=(0, 1),
        )
        for key, title, y in (("c1", "All solved (p = 1)", "all_solved"), ("c2", "None solved (p = 0)", "none_solved"))
    ),
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
        figure, cells = page.sheet(table, columns=3)
        for cell in cells:
            drawing.draw_panel(cell)
    return figure
