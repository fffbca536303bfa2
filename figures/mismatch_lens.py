"""Mismatch lens (not of the paper): how far the sampler is from the trainer, and how far updates move the trainer.

(a) Divergence of the trainer's policy from the sampler's, by step. (b) What is left of a batch when its responses are
weighted by their importance. (c) How the log ratio of sampler and trainer grows along a response: with the square root
of the position when the errors of tokens are independent. (d) The same divergence for the update itself: drift.
"""

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from entropy_lab.plots import drawing, page, style
from entropy_lab.plots.panels import Panel
from entropy_lab.table import Table

ALONE = True
"""Of a study it is drawn only when asked for: its panels are of one run."""

PANELS: tuple[Panel, ...] = (
    Panel(
        key="a",
        title="Sampler → trainer",
        analysis="mismatch",
        x=("step",),
        y="k1",
        y_label="KL (k1)",
        unit="10⁻³ nats/token",
        low="k1_low",
        high="k1_high",
        zero_line=True,
    ),
    Panel(
        key="b",
        title="Effective share of a batch",
        analysis="mismatch",
        x=("step",),
        y="ess",
        y_label="effective sample",
        unit="%",
        low="ess_low",
        high="ess_high",
        bounds=(0, 1),
    ),
    Panel(
        key="c",
        title="Growth along a response",
        analysis="mismatch",
        x=("position",),
        y="spread",
        y_label="RMS log ratio",
        unit="nats",
        bounds=(0, None),
        kind="points",
    ),
    Panel(
        key="d",
        title="Trainer before → after the update",
        analysis="mismatch",
        x=("step",),
        y="drift_k1",
        y_label="KL (k1)",
        unit="10⁻³ nats/token",
        low="drift_k1_low",
        high="drift_k1_high",
        sparse=True,
        zero_line=True,
        note="on the rollouts trained on, which moved more than their likes",
    ),
)

_THOUSANDTHS = ("a", "d")
_LEAST_HEIGHT = {"a": 2e-4, "b": 0.05, "c": 5e-3, "d": 2e-4}
"""Heights of axes, so that rounding looks like the nothing that it is."""


def draw(table: Table) -> Figure:
    """Draw the figure.

    Parameters
    ----------
    table
        ``collect("mismatch_lens", PANELS, runs)``.

    Returns
    -------
    matplotlib.figure.Figure
        6.75 inches wide.
    """
    with style.context():
        figure, cells = page.sheet(table, columns=2, height=1.8)
        for cell in cells:
            drawing.draw_panel(cell)
            key = cell.panel["key"]
            least, most = 0.0 if key == "c" else -math.inf, 1.0 if key == "b" else math.inf
            _widen(cell.axes, _LEAST_HEIGHT.get(key, 0.0), least, most)
            if key in _THOUSANDTHS:
                cell.axes.yaxis.set_major_formatter(
                    FuncFormatter(lambda nats, _: f"{1000 * nats:.6g}".replace("-", "−"))
                )
    return figure


def _widen(axes: Axes, height: float, least: float, most: float) -> None:
    low, high = axes.get_ylim()
    if high - low < height:
        top = min(max((low + high + height) / 2, least + height), most)
        axes.set_ylim(top - height, top)
