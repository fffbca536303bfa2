"""What a claim is: a conjunction of parts, each a contrast of methods in one quantity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Relation = Literal["above", "below", "within", "ratio"]
GREATER_THAN_ZERO: Final = {"above": "> 0", "below": "< 0"}


@dataclass(frozen=True)
class Method:
    """A method of a study, as `entropy_lab.plots.series.family` and ``exponent`` recognise it.

    Parameters
    ----------
    name
        Its family, such as ``"grpo+clip_higher"``.
    label
        Its name for a reader.
    exponent
        Point of the sweep that is meant; 0.5 where nothing is swept.

    Examples
    --------
    >>> Method("pos_only", "Pos-Only 0.75", 0.75).label
    'Pos-Only 0.75'
    """

    name: str
    label: str
    exponent: float = 0.5


@dataclass(frozen=True)
class Part:
    """One thing that a claim says: a weighted sum of methods' values, seed by seed, and where its mean should lie.

    Make one with `above`, `below`, `positive`, `falling`, `alike`, `comparable` or `near_zero`.

    Parameters
    ----------
    quantity
        A key of ``quantities.QUANTITIES``.
    weights
        Methods with their weights in the difference.
    relation
        ``"above"`` or ``"below"`` 0; ``"within"`` the bounds; or, for two methods, ``"ratio"`` of the first to the
        second within the bounds.
    bounds
        For the last two.
    spoken
        The difference in words; default first minus second.

    Examples
    --------
    >>> a, b = Method("grpo", "GRPO"), Method("reinforce", "REINFORCE")
    >>> part = below("entropy", a, b)
    >>> part.contrast, part.condition
    ('GRPO − REINFORCE', '< 0')
    >>> part.difference({a: np.array([0.5]), b: np.array([0.75])})
    array([-0.25])
    """

    quantity: str
    weights: tuple[tuple[Method, float], ...]
    relation: Relation
    bounds: tuple[float, float] | None = None
    spoken: str = ""

    @property
    def methods(self) -> tuple[Method, ...]:
        """The methods that it compares."""
        return tuple(method for method, _ in self.weights)

    @property
    def pair(self) -> tuple[Method, Method] | None:
        """First and second method of a plain difference; None for another contrast."""
        if [weight for _, weight in self.weights] != [1, -1]:
            return None
        first, second = self.methods
        return first, second

    @property
    def contrast(self) -> str:
        """The difference in words."""
        return self.spoken or " − ".join(method.label for method in self.methods)

    @property
    def condition(self) -> str:
        """Where the difference should lie, in words."""
        if self.bounds is None:
            return GREATER_THAN_ZERO[self.relation]
        low, high = self.bounds
        if self.relation == "within":
            return f"between {low:g} and {high:g}"
        return f"between {100 * (low - 1):+.3g} % and {100 * (high - 1):+.3g} % of {self.methods[1].label}"

    def difference(self, values: Mapping[Method, FloatArray]) -> FloatArray:
        """Weighted sum of the methods' values.

        Parameters
        ----------
        values
            Values of each method, in the same order of seeds, each of shape (..., seeds).

        Returns
        -------
        numpy.ndarray
            Shape (..., seeds), in the quantity's unit.
        """
        return np.asarray(sum(weight * values[method] for method, weight in self.weights), dtype=np.float64)

    def sides(self, values: Mapping[Method, FloatArray]) -> FloatArray:
        """Quantities whose means are above 0 if and only if the part is true.

        One for a direction. Two for bounds, so that testing both is the two one-sided tests procedure (TOST); a ratio
        A / B within [l, h] is ``A - l B > 0`` and ``h B - A > 0``, with no division.

        Parameters
        ----------
        values
            As in `difference`.

        Returns
        -------
        numpy.ndarray
            Shape (sides, ..., seeds).

        References
        ----------
        Schuirmann (1987) on the two one-sided tests; Sasabuchi (1980) on the ratio.

        Examples
        --------
        >>> a, b = Method("grpo", "GRPO"), Method("reinforce", "REINFORCE")
        >>> alike("entropy", a, b, 0.5).sides({a: np.array([0.5]), b: np.array([0.75])})
        array([[0.25],
               [0.75]])
        """
        difference = self.difference(values)
        if self.bounds is None:
            return np.stack([difference if self.relation == "above" else -difference])
        low, high = self.bounds
        if self.relation == "within":
            return np.stack([difference - low, high - difference])
        first, second = (values[method] for method in self.methods)
        return np.stack([first - low * second, high * second - first])


@dataclass(frozen=True)
class Claim:
    """A claim and what is tested for it.

    Parameters
    ----------
    id
        Such as ``"C4"``.
    text
        The claim.
    source
        Where it is made.
    parts
        All must hold.
    companions
        Comparisons that are reported beside, and do not enter the verdict; to these come, for every part, the same
        contrast in the companions of its quantity.

    Examples
    --------
    >>> Claim("C0", "GRPO trains", "nowhere", (positive("accuracy", Method("grpo", "GRPO")),)).companions
    ()
    """

    id: str
    text: str
    source: str
    parts: tuple[Part, ...]
    companions: tuple[Part, ...] = ()


def above(quantity: str, first: Method, second: Method) -> Part:
    """Say that the first method has more of a quantity than the second."""
    return Part(quantity, ((first, 1.0), (second, -1.0)), "above")


def below(quantity: str, first: Method, second: Method) -> Part:
    """Say that the first method has less of a quantity than the second."""
    return Part(quantity, ((first, 1.0), (second, -1.0)), "below")


def positive(quantity: str, method: Method) -> Part:
    """Say that a quantity is above 0."""
    return Part(quantity, ((method, 1.0),), "above")


def near_zero(quantity: str, method: Method, margin: float) -> Part:
    """Say that a quantity lies within ± margin."""
    return Part(quantity, ((method, 1.0),), "within", (-margin, margin))


def alike(quantity: str, first: Method, second: Method, margin: float) -> Part:
    """Say that two methods differ by less than a margin."""
    return Part(quantity, ((first, 1.0), (second, -1.0)), "within", (-margin, margin))


def comparable(quantity: str, first: Method, second: Method, low: float, high: float) -> Part:
    """Say that the first method's value divided by the second's lies between two bounds."""
    return Part(quantity, ((first, 1.0), (second, -1.0)), "ratio", (low, high))


def falling(quantity: str, points: Sequence[Method], spoken: str) -> Part:
    """Say that a quantity falls along a sweep: its least-squares slope over the exponent is below 0.

    Examples
    --------
    >>> sweep = [Method("pos_only", "Pos-Only", exponent) for exponent in (0.25, 0.5, 0.75)]
    >>> part = falling("none_solved", sweep, "slope over beta_pos")
    >>> part.difference(dict(zip(sweep, np.array([[0.3], [0.25], [0.2]]), strict=True)))
    array([-0.2])
    """
    x = np.array([method.exponent for method in points])
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    return Part(quantity, tuple(zip(points, weights.tolist(), strict=True)), "below", spoken=spoken)
