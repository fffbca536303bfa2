"""The records of several lines, and of JSON, in which AReaL, SkyRL and ROLL print the scalars of a step."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from entropy_lab.readers.console_styles import Printed
from entropy_lab.readers.scalars import as_number

_NUMBER: Final = r"[-+]?(?:\d[\d.]*(?:[eE][-+]?\d+)?|nan|inf)"
_AREAL: Final = re.compile(r"Train step (\d+)/\d+ done\.")
_STATS: Final = re.compile(r"Stats \((\d+)/\d+\):")
_CELLS: Final = re.compile(rf"(?<=[│|])\s*([\w./@-]*[A-Za-z][\w./@-]*)\s*[│|]\s*({_NUMBER})\s*(?=[│|])")
_SKYRL: Final = re.compile(r"(?:^|\s)Step (\d+):\s*$")
_ENTRY: Final = re.compile(rf"'([^']+)': '?({_NUMBER})'?(?=[,}}\s]|$)")
_ROLL: Final = "metrics_tag: "


def recorded_lines(lines: Iterable[str]) -> Iterator[Printed]:
    """Yield the scalars of records that begin with a headline, or are JSON.

    AReaL's older releases print a table a mini-batch: their means are those of the step.

    Parameters
    ----------
    lines
        Of a console log, without colours; Ray or a logger may have put something before each.

    Examples
    --------
    >>> areal = ["Epoch 1/2 Step 1/9 Train step 1/18 done.", "│ grpo_actor/update/entropy/avg │ 5.0e-01 │"]
    >>> skyrl = ["INFO - Step 2: ", "(pid=7) {'policy/policy_entropy': '0.4000',", "(pid=7)  'trainer/epoch': 0}"]
    >>> roll = 'INFO metrics_tag: {"step": 3, "metrics": {"critic/entropy/mean": 0.3}}'
    >>> for record in recorded_lines([*areal, *skyrl, roll]):
    ...     print(record.step, record.values)
    1 {'grpo_actor/update/entropy/avg': 0.5}
    2 {'policy/policy_entropy': 0.4, 'trainer/epoch': 0.0}
    3 {'critic/entropy/mean': 0.3}
    """
    step: int | None = None
    parts: list[dict[str, float]] = []
    in_table = False
    for line in lines:
        headline = _AREAL.search(line) if "Train step " in line else _SKYRL.search(line) if "Step " in line else None
        is_roll = _ROLL in line
        if headline or is_roll:
            yield from _record(step, parts)
            step, parts, in_table = None, [], False
        if headline:
            step, in_table = int(headline[1]), headline.re is _AREAL
        elif is_roll:
            yield from _json_record(line.partition(_ROLL)[2])
        elif step is not None and in_table:
            _take(parts, _CELLS.findall(line), is_new=bool(_STATS.search(line)))
        elif step is not None:
            _take(parts, _ENTRY.findall(line), is_new=False)
            if "}" in line:
                yield from _record(step, parts)
                step, parts = None, []
    yield from _record(step, parts)


def _take(parts: list[dict[str, float]], found: Sequence[tuple[str, str]], *, is_new: bool) -> None:
    if is_new:
        parts.append({})
    values = {name: value for name, text in found if (value := as_number(text)) is not None}
    if values and not parts:
        parts.append({})
    if values:
        parts[-1] |= values


def _record(step: int | None, parts: Sequence[Mapping[str, float]]) -> Iterator[Printed]:
    names = dict.fromkeys(name for part in parts for name in part)
    if step is not None and names:
        columns = {name: [part[name] for part in parts if name in part] for name in names}
        yield Printed(step, {name: sum(values) / len(values) for name, values in columns.items()})


def _json_record(text: str) -> Iterator[Printed]:
    try:
        value, _ = json.JSONDecoder().raw_decode(text)
    except ValueError:  # a line that was cut off
        return
    step, metrics = (value.get("step"), value.get("metrics")) if isinstance(value, dict) else (None, None)
    if isinstance(step, int) and isinstance(metrics, dict):
        yield Printed(step, {name: part for name, raw in metrics.items() if (part := as_number(raw)) is not None})
