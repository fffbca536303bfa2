"""Ranges of a trainer's settings, written once, in the type of the field.

``steps: Count = 80`` states type, range and default side by side; `require_in_range` reads them from there.
"""

from __future__ import annotations

from typing import Annotated, Any, get_type_hints

from entropy_lab.advantages.parameters import Range, Real, Whole
from entropy_lab.errors import ParameterError

Count = Annotated[int, Whole(1)]
CountOrNone = Annotated[int, Whole(0)]
Positive = Annotated[float, Real(0, open_at="low")]
NotNegative = Annotated[float, Real(0)]


def require_in_range(config: Any) -> None:  # noqa: ANN401 - a trainer's own dataclass
    """Refuse a setting outside the range of its type.

    Parameters
    ----------
    config
        A dataclass instance; fields without a range are not looked at.

    Raises
    ------
    ParameterError
        For the first field whose value is out of range.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Config:
    ...     steps: Count = 80
    ...     label: str = ""
    >>> require_in_range(Config(steps=1))
    >>> require_in_range(Config(steps=0))
    Traceback (most recent call last):
    entropy_lab.errors.ParameterError: steps: is 0; integers from 1
    """
    for name, hint in get_type_hints(type(config), include_extras=True).items():
        value = getattr(config, name)
        for allowed in getattr(hint, "__metadata__", ()):
            # Other notes in a type, as the command line's, are not ranges.
            if isinstance(allowed, Range) and allowed.accept(value) is None:
                raise ParameterError(name, f"is {value!r}", str(allowed))
