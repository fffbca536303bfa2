"""The releases of TRL whose private methods are known."""

from __future__ import annotations

from typing import Final

from entropy_lab.integrations.releases import Supported

TESTED: Final = ((1, 0), (1, 16))
"""Oldest and newest release (major, minor) whose private methods this was run with."""
SUPPORTED: Final = Supported("trl", "TRL", *TESTED)


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
    SUPPORTED.require(found)
