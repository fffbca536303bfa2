"""Whether a framework is there, of a release that our additions know, and has them: for `entropy-lab doctor`."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from entropy_lab.errors import EntropyLabError


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Examples
    --------
    >>> Check("release", True, "1.16.0").passed
    True
    """

    about: str
    """What was looked at."""
    passed: bool
    found: str
    """What was found, or what is wrong."""
    hint: str = ""
    """What mends it."""


Step = tuple[str, Callable[[], str], str]
"""What is looked at; a function that says what it found, or raises; and what mends it."""


def in_turn(steps: list[Step]) -> Iterator[Check]:
    """Look at one thing after another, up to the first that is wrong: the later ones build on it.

    Parameters
    ----------
    steps
        In this order.

    Yields
    ------
    Check
        Each when it is made.

    Examples
    --------
    >>> [check.found for check in in_turn([("a", lambda: "fine", ""), ("b", lambda: str(1 / 0), ""), ("c", str, "")])]
    ['fine', 'ZeroDivisionError: division by zero']
    """
    for about, look, hint in steps:
        try:
            yield Check(about, True, look())
        except EntropyLabError as error:
            yield Check(about, False, str(error), hint)
            return
        except Exception as error:  # of any kind: a framework that is half installed fails in many ways
            said = "".join(traceback.format_exception_only(error)).strip().splitlines()[0]
            yield Check(about, False, said, hint)
            return
