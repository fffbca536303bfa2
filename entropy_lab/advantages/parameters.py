"""Ranges of estimators' parameters, written once in the signature of the function that builds the estimator.

``def pos_only(beta_pos: Annotated[float, Real(0)] = 0.5)`` states the default, the type and the range; the registry
reads them from there, so a message can never disagree with the code.
"""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Protocol, get_type_hints, runtime_checkable

from entropy_lab.errors import ParameterError


@runtime_checkable
class Range(Protocol):
    """What a parameter may be; ``str`` of it is what a message prints."""

    def accept(self, value: object) -> float | int | str | None:
        """Give the value in its own type, or None when it is not allowed."""


@dataclass(frozen=True)
class Real:
    """A finite number from ``low`` to ``high``, open at the ends named in ``open_at``.

    Parameters
    ----------
    low, high
        Ends of the interval.
    open_at
        ``""``, ``"low"``, ``"high"`` or ``"both"``.

    Examples
    --------
    >>> str(Real(0)), str(Real(0, 1, open_at="both"))
    ('[0, ∞)', '(0, 1)')
    >>> Real(0).accept(2), Real(0).accept(-1), Real(0).accept("2")
    (2.0, None, None)
    """

    low: float
    high: float = math.inf
    open_at: str = ""

    def accept(self, value: object) -> float | None:
        """Give the number as a float, or None."""
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            return None
        number = float(value)
        above = number > self.low or (number == self.low and self.open_at not in ("low", "both"))
        below = number < self.high or (number == self.high and self.open_at not in ("high", "both"))
        return number if math.isfinite(number) and above and below else None

    def __str__(self) -> str:
        left = "(" if self.open_at in ("low", "both") else "["
        right = ")" if self.open_at in ("high", "both") or math.isinf(self.high) else "]"
        return f"{left}{self.low:g}, {'∞' if math.isinf(self.high) else format(self.high, 'g')}{right}"


@dataclass(frozen=True)
class Whole:
    """An integer of at least ``low``.

    Parameters
    ----------
    low
        Smallest value allowed.

    Examples
    --------
    >>> str(Whole(1)), Whole(1).accept(4), Whole(1).accept(0), Whole(1).accept(4.0)
    ('integers from 1', 4, None, None)
    """

    low: int

    def accept(self, value: object) -> int | None:
        """Give the number as an int, or None."""
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            return None
        return int(value) if int(value) >= self.low else None

    def __str__(self) -> str:
        return f"integers from {self.low}"


class Choice:
    """One of a few values.

    Parameters
    ----------
    *options
        The values, all of one type.

    Examples
    --------
    >>> str(Choice("paper", "released")), Choice(0, 1).accept(1), Choice(0, 1).accept(True), Choice(0, 1).accept(2)
    ('{paper, released}', 1, None, None)
    """

    def __init__(self, *options: int | str) -> None:
        self.options = options

    def accept(self, value: object) -> int | str | None:
        """Give the option that equals the value, or None."""
        return next((option for option in self.options if not isinstance(value, bool) and option == value), None)

    def __str__(self) -> str:
        return "{" + ", ".join(map(str, self.options)) + "}"


def ranges(build: Callable[..., Any]) -> dict[str, Range]:
    """Read the range of each parameter from a function's annotations.

    Parameters
    ----------
    build
        Function whose parameters are all ``Annotated[type, Range]``.

    Returns
    -------
    dict
        Parameter name -> range, in the order of the signature.

    Examples
    --------
    >>> from entropy_lab.advantages.centred import grpo
    >>> {name: str(allowed) for name, allowed in ranges(grpo).items()}
    {'ddof': '{0, 1}', 'eps': '[0, ∞)'}
    """
    hints = get_type_hints(build, include_extras=True)
    return {name: hints[name].__metadata__[0] for name in inspect.signature(build).parameters}


def checked(name: str, build: Callable[..., Any], given: Mapping[str, object]) -> dict[str, float | int | str]:
    """Check parameters against the ranges in a function's signature.

    Parameters
    ----------
    name
        Name of the estimator, for the message.
    build
        The function that builds it.
    given
        Parameters as the user gave them.

    Returns
    -------
    dict
        The given parameters, each as its own type.

    Raises
    ------
    ParameterError
        For an unknown parameter or a value out of range; the message names all parameters with their ranges.

    Examples
    --------
    >>> from entropy_lab.advantages.power import pos_only
    >>> checked("pos_only", pos_only, {"beta_pos": 1})
    {'beta_pos': 1.0}
    >>> checked("pos_only", pos_only, {"beta": 1})
    Traceback (most recent call last):
    entropy_lab.errors.ParameterError: pos_only: there is no parameter 'beta'; parameters: beta_pos in [0, ∞). \
Hint: did you mean beta_pos?
    """
    allowed = ranges(build)
    listed = "parameters: " + (", ".join(f"{key} in {allowed[key]}" for key in allowed) or "none")
    values: dict[str, float | int | str] = {}
    for key, value in given.items():
        if key not in allowed:
            close = get_close_matches(key, allowed, n=1, cutoff=0.4)
            hint = f"did you mean {close[0]}?" if close else ""
            raise ParameterError(name, f"there is no parameter {key!r}", listed, hint)
        accepted = allowed[key].accept(value)
        if accepted is None:
            raise ParameterError(name, f"{key} is {value!r}", listed)
        values[key] = accepted
    return values
