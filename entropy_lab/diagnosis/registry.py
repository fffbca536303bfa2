"""Every check, in the order in which findings of one severity are told.

A new check is a function with a `Check` in a file of its family, and its family's line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from entropy_lab.diagnosis import advantages, entropy, exchange, groups, lengths, payoff, rows, updates
from entropy_lab.diagnosis.checks import Check

_FAMILIES: Final = (rows, entropy, updates, advantages, groups, lengths, payoff, exchange)

CHECKS: Final[Mapping[str, Check]] = MappingProxyType(
    {check.name: check for family in _FAMILIES for check in family.CHECKS}
)


def names() -> tuple[str, ...]:
    """Names of all findings, as ``--fail-on`` takes them.

    Examples
    --------
    >>> "collapse" in names()
    True
    """
    return tuple(CHECKS)
