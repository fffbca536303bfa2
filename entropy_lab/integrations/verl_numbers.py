"""The numbers that verl logs, as a line of ``metrics.jsonl``."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any, Final

from entropy_lab.integrations.verl_names import SECTION
from entropy_lab.readers.verl import DIALECT

_OURS: Final = f"{SECTION}/"


def as_metrics(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Give verl's numbers the run format's names; those that it does not name keep their own.

    Parameters
    ----------
    numbers
        As verl logs them. ``actor/entropy`` keeps its name: it is aggregated as the loss is, and the record's own
        ``entropy`` is the mean over tokens.

    Returns
    -------
    dict of str to object
        What is a number of one step.

    Examples
    --------
    >>> as_metrics({"actor/lr": 1e-6, "actor/entropy": 0.5, "entropy_lab/beta_pos": 0.9, "note": "a text"})
    {'lr': 1e-06, 'actor/entropy': 0.5, 'beta_pos': 0.9}
    """
    found = {}
    for name, value in numbers.items():
        number = value.item() if getattr(value, "ndim", None) == 0 else value
        if isinstance(number, Real):
            found[DIALECT.names.get(name, name.removeprefix(_OURS))] = number
    return found
