"""The look of every figure: one colour, dash and marker for each method, text of 7 pt, and saving without a screen.

Colours are those of Okabe and Ito (2008), told apart by colour-blind readers, with darker ones added where the paper
has more methods than they have colours.
"""

from __future__ import annotations

import colorsys
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from entropy_lab.files import replacing
from entropy_lab.plots.series import BASE, exponent, family

WIDTH: Final = 6.75
"""Width of a figure in inches: the text block of a two-column page."""
FONT: Final = "DejaVu Sans"
"""Matplotlib carries it: the same picture on every machine."""
FONT_SIZE: Final = 7.0
"""Points, at the size the figure is printed in."""
GREY: Final = "#595959"
DPI: Final = 200

Dash = tuple[float, ...]
Series = tuple[str, str, Mapping[str, Any]]
"""Label, method and params, as in `entropy_lab.plots.series.RunTables`."""
_SOLID: Final[Dash] = ()
_DASHES: Final[Mapping[str, Dash]] = {
    "clip_higher": (4.0, 1.5),
    "entropy_bonus": (1.2, 1.2),
    "entropy_advantage": (5.0, 1.3, 1.2, 1.3),
}
_SWEEP: Final = ((0.85, (7.0, 1.3, 1.3, 1.3)), (0.5, (6.0, 1.5)), (0.375, (3.2, 1.0)), (-math.inf, (2.0, 1.2)))
"""Dashes of exponents other than 0.5, from the greatest down."""
_BASE_DASH: Final[Dash] = (1.0, 1.6)
_KNOWN: Final[Mapping[str, tuple[str, str]]] = {
    "base": ("#8A8A8A", "X"),
    "reinforce": ("#666666", "o"),
    "reinforce+entropy_bonus": ("#7C5CFF", "p"),
    "pos_only": ("#0072B2", "^"),
    "neg_only": ("#D55E00", "v"),
    "ent_decrease": ("#CC79A7", "<"),
    "grpo": ("#000000", "s"),
    "ent_increase": ("#009E73", ">"),
    "grpo+entropy_bonus": ("#86B84F", "p"),
    "grpo+clip_higher": ("#56B4E9", "o"),
    "grpo+entropy_advantage": ("#A3193F", "h"),
    "dr_grpo": ("#2B1D8F", "*"),
    "pass_at_k": ("#0F5748", "8"),
    "asym_grpo_symmetric": ("#6B1F6B", "H"),
    "asym_grpo": ("#E69F00", "D"),
    "asym_grpo+clip_higher": ("#7A3300", "d"),
}
"""Colour and marker of the paper's methods, in the order of its tables."""
_PARTS: Final[Mapping[str, str]] = {
    "positivechannel": "#0072B2",
    "negativechannel": "#D55E00",
    "zerochannel": "#B0B0B0",
    "measured": "#000000",
}
"""Colours of what is stacked, and of the line over it: those of the methods that modulate one channel alone."""
_OTHER_MARKERS: Final = "o^vsDp<>"
_OTHER_DASHES: Final[tuple[Dash, ...]] = (_SOLID, (5.0, 1.3), (1.5, 1.1), (5.0, 1.2, 1.2, 1.2))


@dataclass(frozen=True)
class Look:
    """How a method is drawn.

    Parameters
    ----------
    color
        ``#rrggbb``.
    dash
        Lengths of strokes and gaps in line widths; empty for a solid line.
    marker
        Matplotlib's marker.
    rank
        Place in legends: methods in the order of the paper's tables, sweeps by exponent, unknown ones last.
    """

    color: str
    dash: Dash
    marker: str
    rank: float


def look(label: str, method: str, params: Mapping[str, Any]) -> Look:
    """Give the look of a method, the same in every figure.

    Values of a swept exponent are shades of one hue with a dash of their own. A method that is not in the paper gets
    a colour from its name.

    Parameters
    ----------
    label, method, params
        As in `entropy_lab.plots.series.RunTables`.

    Returns
    -------
    Look
        A pure function of the arguments.

    Examples
    --------
    >>> look("anything", "grpo", {}) == look("GRPO", "asym_grpo", {"beta_pos": 0.5, "beta_neg": 0.5})
    True
    >>> [look("", "neg_only", {"beta_neg": beta}).color for beta in (0.25, 0.5, 0.75)]
    ['#e49659', '#d55e00', '#8a3d00']
    """
    name = family(label, method, params)
    base, _, added = name.partition("+")
    dash = _DASHES.get(added.partition("+")[0], _SOLID)
    if name in _KNOWN:
        color, marker = _KNOWN[name]
        dash = _BASE_DASH if name == BASE else dash
        beta = exponent(name, params)
        if beta != 0.5:
            color = shade(color, (beta - 0.5) * 1.4)
            dash = next(strokes for least, strokes in _SWEEP if beta >= least)
        return Look(color.lower(), dash, marker, list(_KNOWN).index(name) + min(beta, 9.0) / 10)
    if name in _PARTS:
        return Look(_PARTS[name].lower(), _SOLID, "", len(_KNOWN) + list(_PARTS).index(name) / 10)
    number = zlib.crc32(name.encode())  # not hash(), which differs between processes
    rank = list(_KNOWN).index(base) + 0.95 if base in _KNOWN else float(len(_KNOWN))
    dash = dash or _OTHER_DASHES[number // 8 % len(_OTHER_DASHES)]
    return Look(_other_color(number // 256), dash, _OTHER_MARKERS[number % len(_OTHER_MARKERS)], rank)


def looks(panels: Sequence[Sequence[Series]]) -> dict[str, Look]:
    """Give the looks of all series of a figure, in the order of its legend.

    Series of one panel that would look alike (two runs of one method, say with other learning rates) are told apart:
    the first in alphabetical order keeps the method's look, the others get shades and dashes.

    Parameters
    ----------
    panels
        (label, method, params) of each series of each panel.

    Returns
    -------
    dict
        Label -> look, in legend order.

    Examples
    --------
    >>> found = looks([[("b", "grpo", {}), ("a", "grpo", {})], [("c", "grpo", {})]])
    >>> {label: look.color for label, look in found.items()}
    {'a': '#000000', 'b': '#525252', 'c': '#000000'}
    """
    plain = {label: look(label, method, params) for panel in panels for label, method, params in panel}
    rivals: dict[str, set[str]] = {label: set() for label in plain}
    for panel in panels:
        labels = {label for label, _, _ in panel}
        for label in labels:
            rivals[label] |= labels
    copies: dict[str, int] = {}
    for label, found in sorted(plain.items(), key=lambda item: (item[1].rank, item[0])):
        alike = {copies[other] for other in rivals[label] if other in copies and plain[other] == found}
        copies[label] = next(number for number in range(len(alike) + 1) if number not in alike)
    return {label: _variant(plain[label], number) for label, number in copies.items()}


def _variant(found: Look, copies: int) -> Look:
    if not copies:
        return found
    lightness = (0.32, 0.55, 0.18, 0.45)[(copies - 1) % 4]
    dash = ((4.0, 1.2), (1.5, 1.0), (6.0, 1.2, 1.2, 1.2), (2.5, 2.0))[(copies - 1) % 4]
    return replace(found, color=shade(found.color, -lightness), dash=dash)


def shade(color: str, amount: float) -> str:
    """Mix a colour with black (amount > 0) or white (amount < 0).

    Parameters
    ----------
    color
        ``#rrggbb``.
    amount
        Share of black or of white; clipped to [-0.6, 0.6] so that the hue stays visible on white paper.

    Returns
    -------
    str
        ``#rrggbb``.

    Examples
    --------
    >>> shade("#000000", -0.5), shade("#ff8000", 0.5), shade("#ff8000", 0)
    ('#808080', '#804000', '#ff8000')
    """
    share = min(abs(amount), 0.6)
    target = 255 if amount < 0 else 0
    parts = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(part + (target - part) * share):02x}" for part in parts)


def _other_color(number: int) -> str:
    hue, level = number % 24 / 24, (0.3, 0.42, 0.54)[number // 24 % 3]
    return "#" + "".join(f"{round(255 * part):02x}" for part in colorsys.hls_to_rgb(hue, level, 0.6))


def styled_line(x: ArrayLike, y: ArrayLike, look: Look, label: str, *, marker: bool, joined: bool = True) -> Line2D:
    """Make a line in the look of a method, for a panel or a legend.

    Parameters
    ----------
    x, y
        Points, shape (n,); NaN breaks the line.
    look
        Colour, dash and marker.
    label
        The series.
    marker
        True to mark every point.
    joined
        False for the points alone.

    Returns
    -------
    matplotlib.lines.Line2D
        In no axes yet.

    Examples
    --------
    >>> styled_line([0, 1], [2, 3], look("", "grpo", {}), "GRPO", marker=False).get_color()
    '#000000'
    """
    dash: Any = (0, look.dash) if look.dash else "-"
    curve = Line2D(x, y, color=look.color, linestyle=dash if joined else "None", label=label)
    curve.set_marker(look.marker if marker else "")
    curve.set_markeredgewidth(0)
    return curve


_SETTINGS: Final[Mapping[Any, Any]] = {
    "font.family": [FONT],
    "font.size": FONT_SIZE,
    "axes.titlesize": FONT_SIZE + 0.5,
    "axes.labelsize": FONT_SIZE,
    "axes.labelpad": 2.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": FONT_SIZE,
    "ytick.labelsize": FONT_SIZE,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.pad": 2.0,
    "ytick.major.pad": 2.0,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.2,
    "lines.scale_dashes": True,
    "legend.fontsize": FONT_SIZE,
    "legend.frameon": False,
    "text.parse_math": False,  # a label may hold a dollar sign
    "pdf.fonttype": 42,  # TrueType: conferences refuse Type 3
}


@contextmanager
def context() -> Iterator[None]:
    """Set matplotlib's defaults and our settings; what the caller had set comes back afterwards.

    Examples
    --------
    >>> before = mpl.rcParams["font.size"]
    >>> with context():
    ...     mpl.rcParams["font.size"]
    7.0
    >>> mpl.rcParams["font.size"] == before
    True
    """
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        yield


def save(figure: Figure, stem: Path, formats: Sequence[str] = ("png", "pdf")) -> tuple[Path, ...]:
    """Write a figure as PNG (200 dots per inch) and PDF, atomically; equal figures give equal bytes.

    Parameters
    ----------
    figure
        The figure.
    stem
        Path without a suffix: ``figures/figure1`` gives ``figure1.png`` and ``figure1.pdf``.
    formats
        ``"png"``, ``"pdf"``: a PDF takes about twice the time of a PNG, because fonts are cut to the letters used.

    Returns
    -------
    tuple of Path
        The files written, in the order of ``formats``.

    Raises
    ------
    OutputError
        The folder cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> [path.name for path in save(Figure(), Path(tempfile.mkdtemp()) / "empty")]
    ['empty.png', 'empty.pdf']
    """
    # A date in the file would make every rebuild of equal numbers a change.
    metadata: Mapping[str, dict[str, None]] = {"png": {"Software": None}, "pdf": {"CreationDate": None}}
    paths = tuple(stem.with_name(f"{stem.name}.{suffix}") for suffix in formats)
    for suffix, path in zip(formats, paths, strict=True):
        with context(), replacing(path) as temporary:
            figure.savefig(temporary, format=suffix, dpi=DPI, metadata=metadata[suffix])
    return paths
