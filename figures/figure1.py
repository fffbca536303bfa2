"""Figure 1: what estimators weigh, and what those weights do to entropy.

(a), (b) The advantage of a correct and of a wrong rollout against group accuracy: formulas, no run is needed.
(c) The covariance of log-likelihood and advantage within groups, by group accuracy, in early training: above zero, a
step removes entropy.
"""

from matplotlib.figure import Figure

from entropy_lab.plots import drawing, page, style
from entropy_lab.plots.panels import Panel, panels_of
from entropy_lab.table import Table

PANELS: tuple[Panel, ...] = (
    Panel(
        key="a",
        title="Correct rollouts",
        analysis="fingerprint",
        x=("accuracy",),
        y="positive",
        y_label="advantage A",
        unit="dimensionless",
        estimators=("reinforce", "grpo", "asym_grpo", "ent_decrease"),
        zero_line=True,
    ),
    Panel(
        key="b",
        title="Wrong rollouts",
        analysis="fingerprint",
        x=("accuracy",),
        y="negative",
        y_label="advantage A",
        unit="dimensionless",
        estimators=("reinforce", "grpo", "asym_grpo", "ent_increase"),
        zero_line=True,
    ),
    Panel(
        key="c",
        title="Cov(log π, A)",
        analysis="covariance",
        x=("accuracy",),
        y="covariance",
        y_label="covariance",
        unit="nats/token",
        low="ci_low",
        high="ci_high",
        methods=("reinforce", "grpo", "ent_decrease", "ent_increase"),
        note="first {first_steps} steps, mixed groups (0 < p < 1)",
        inside=(0, 1),  # elsewhere a group's advantage is constant, and its covariance 0 by construction
        kind="points",
        zero_line=True,
    ),
)


def draw(table: Table) -> Figure:
    """Draw the figure.

    Parameters
    ----------
    table
        ``collect("figure1", PANELS, runs)``.

    Returns
    -------
    matplotlib.figure.Figure
        6.75 inches wide; a panel (c) for each model.
    """
    with style.context():
        columns = 3 if len(panels_of(table)) <= 3 else 2
        figure, cells = page.sheet(table, columns=columns, height=2.0)
        for cell in cells:
            drawing.draw_panel(cell)
            cell.axes.set_xlim(-0.05, 1.05)
            cell.axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "¼", "½", "¾", "1"])
    return figure
