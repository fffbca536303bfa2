"""Figure 2: what each channel does, the positive and the negative one modulated alone.

(a) Policy entropy, (b) validation accuracy, (c1, c2) shares of groups that every rollout solves and that none does,
(d) how much an update raises the likelihood of correct rollouts, for exponents of the negative channel.
"""

from matplotlib.figure import Figure

from entropy_lab.plots import drawing, page, style
from entropy_lab.plots.panels import Panel
from entropy_lab.table import Table

CHANNELS = ("reinforce", "reinforce+entropy_bonus", "pos_only", "neg_only")

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
        methods=CHANNELS,
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
        methods=CHANNELS,
        decoding=True,
        average_over="benchmark",
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
            methods=CHANNELS,
            window=11,
            bounds=(0, 1),
        )
        for key, title, y in (("c1", "All solved (p = 1)", "all_solved"), ("c2", "None solved (p = 0)", "none_solved"))
    ),
    Panel(
        key="d",
        title="Update of correct rollouts",
        analysis="likelihood",
        x=("step",),
        y="increment_correct",
        y_label="Δ log π(y|x)",
        unit="nats/rollout",
        methods=("reinforce", "neg_only"),
        window=11,
        zero_line=True,
    ),
)


def draw(table: Table) -> Figure:
    """Draw the figure.

    Parameters
    ----------
    table
        ``collect("figure2", PANELS, runs)``.

    Returns
    -------
    matplotlib.figure.Figure
        6.75 inches wide; a row of panels for each model.
    """
    with style.context():
        figure, cells = page.sheet(table, columns=3)
        for cell in cells:
            drawing.draw_panel(cell)
    return figure
