"""Figure 2: what each channel does, the positive and the negative one modulated alone.

(a) Policy entropy, (b) validation accuracy, (c1, c2) shares of groups that every rollout solves and that none does,
(d) how much an update raises the likelihood of correct rollouts, for exponents of the negative channel.
"""

from matplotlib.figure import Figure

from entropy_lab.plots import drawing, page, style
from entropy_lab.plots.catalogue import policy_entropy, solved_share, validation_accuracy
from entropy_lab.plots.panels import Panel
from entropy_lab.table import Table

CHANNELS = ("reinforce", "reinforce+entropy_bonus", "pos_only", "neg_only")

PANELS: tuple[Panel, ...] = (
    policy_entropy("a", CHANNELS),
    validation_accuracy("b", CHANNELS),
    solved_share("c1", "all_solved", CHANNELS),
    solved_share("c2", "none_solved", CHANNELS),
    Panel(
        key="d",
        title="Update of correct rollouts",
        analysis="likelihood",
        x=("step",),
        y="increment_correct",
        y_label="Δ log π(y|x)",
        unit="nats/rollout",
        methods=("reinforce", "neg_only"),
        sparse=True,
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
