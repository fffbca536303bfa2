"""Values as JSON can hold them."""

from __future__ import annotations

import json
import math
from typing import Any


def json_value(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Give a value that JSON can hold: a number out of its numpy or torch scalar; NaN and infinity as None.

    Examples
    --------
    >>> json_value(float("nan")) is None
    True
    """
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def json_text(value: object) -> str | None:
    """Give a value as text: a text as it is, None as None, anything else as JSON.

    Examples
    --------
    >>> json_text("7"), json_text(7), json_text(["7", "seven"]), json_text(None)
    ('7', '7', '["7", "seven"]', None)
    """
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)
