"""Counterfactual map (not of the paper): what other advantages would have pressed entropy to do on a run's rollouts.

(a) Over the exponents of the two channels, with named estimators, the run's own and the direction in which entropy
would be held best. (b) Registered estimators. Both to first order, per unit of step and of root mean square advantage:
signs and order say something, the size of a change does not.
"""

from matplotlib.figure import Figure

from entropy_lab.plots import map_drawing, page, style
from entropy_lab.plots.panels import Panel
from entropy_lab.table import Table

ALONE = True
"""Of a study it is drawn only when asked for: its panels are of one run."""

PANELS: tuple[Panel, ...] = (
    Panel(
        key="a",
        title="Pressure on entropy by (β+, β−)",
        analysis="counterfactual",
        x=("beta_pos",),
        y="beta_neg",
        y_label="exponent β−",
        unit="dimensionless",
        z="per_rms",
        kind="map",
        note="dH per unit of step and of RMS advantage, first order by {predictor}, {n_groups} groups; "
        "arrow = where entropy is held best from there; at an exponent of 0 unanimous groups count, else not",
    ),
    Panel(
        key="b",
        title="Registered estimators",
        analysis="counterfactual",
        x=("label",),
        y="per_rms",
        y_label="dH per step and RMS A",
        unit="nats/token",
        low="per_rms_low",
        high="per_rms_high",
        kind="ranking",
        zero_line=True,
    ),
)


def draw(table: Table) -> Figure:
    """Draw the figure.

    Parameters
    ----------
    table
        ``collect("counterfactual_map", PANELS, runs)``.

    Returns
    -------
    matplotlib.figure.Figure
        6.75 inches wide; for runs of one method only.
    """
    with style.context():
        figure, cells = page.sheet(table, columns=2, height=3.0, legend=False)
        for cell in cells:
            (map_drawing.draw_map if cell.panel["kind"] == "map" else map_drawing.draw_ranking)(cell)
    return figure
