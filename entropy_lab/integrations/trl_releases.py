"""The releases of TRL whose private methods are known."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Final

from entropy_lab.errors import MissingExtraError

TESTED: Final = ((1, 0), (1, 16))
"""Oldest and newest release (major, minor) whose private methods this was run with."""


def require_tested(found: str | None = None) -> None:
    """Refuse a TRL whose private methods may be others than those that are overridden here.

    Parameters
    ----------
    found
        Its version; None for that of the installed one.

    Raises
    ------
    MissingExtraError
        It is not installed, or of another release than those tested.

    Examples
    --------
    >>> require_tested("1.16.0")
    >>> require_tested("0.9.6")
    Traceback (most recent call last):
    entropy_lab.errors.MissingExtraError: trl: TRL is 0.9.6; 1.0 to 1.16, tested at both ends. \
Hint: pip install 'entropy-lab[trl]'
    """
    (oldest, newest) = (".".join(map(str, each)) for each in TESTED)
    allowed, hint = f"{oldest} to {newest}, tested at both ends", "pip install 'entropy-lab[trl]'"
    try:
        found = found or version("trl")
        release = tuple(int(part) for part in found.split(".")[:2])
    except PackageNotFoundError as error:
        raise MissingExtraError("trl", "TRL is not installed", allowed, hint) from error
    except ValueError:
        release = ()
    if not TESTED[0] <= release <= TESTED[1]:
        raise MissingExtraError("trl", f"TRL is {found}", allowed, hint)
