"""Scalars per step: from one or more logs of a run, joined, and put under our names where the meaning is the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from entropy_lab.errors import RunFormatError
from entropy_lab.readers.columns import kept_name
from entropy_lab.schema import METRICS

if TYPE_CHECKING:
    from entropy_lab.readers.sink import Sink

Scalars = dict[int, dict[str, float]]
"""The source's step -> name -> value."""

_CLOSE: Final = 2e-3
"""Relative difference within which two logs state the same number: consoles round to three decimals."""

_SAME_RUN: Final = 0.95
"""Share of the numbers that two logs of one run have in common and agree on, at least."""


@dataclass(frozen=True)
class TableRef:
    """A table that a log mentions, loaded when it is wanted."""

    step: int
    name: str
    load: Callable[[], tuple[list[str], list[list[Any]]]]


@dataclass
class Log:
    """The scalars of one log of one run.

    Attributes
    ----------
    label
        The file, as its owner would name it.
    kind
        ``"TensorBoard"``, ``"console"``, ….
    rows
        The source's step -> name -> value; NaN where the log says so.
    config
        Settings that the log holds.
    tables
        Tables that it mentions.
    """

    label: str
    kind: str
    rows: Scalars = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    tables: list[TableRef] = field(default_factory=list)

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """Take the numbers among some values; a later value of the same step and name replaces an earlier one.

        Examples
        --------
        >>> log = Log("a", "console")
        >>> log.add(1, {"x": 2, "y": "0.5", "z": "text", "w": None, "v": True})
        >>> log.rows
        {1: {'x': 2.0, 'y': 0.5}}
        """
        numbers = {name: number for name, value in values.items() if (number := as_number(value)) is not None}
        if numbers:
            self.rows.setdefault(step, {}).update(numbers)


def as_number(value: object) -> float | None:
    """Read a number, also out of a text such as ``"0.05"``, ``"nan"`` or ``"np.float64(0.05)"``; None if there is none.

    Examples
    --------
    >>> as_number("np.float64(0.5)"), as_number("1e-6"), as_number("grpo"), as_number(True)
    (0.5, 1e-06, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str):
        value = value.strip()
        if value.endswith(")") and "(" in value:  # numpy 2 prints its scalars with their type
            value = value[value.index("(") + 1 : -1].split(",")[0]
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def as_step(value: object) -> int | None:
    """Read a step out of a number or its text; None when it is no whole number.

    Examples
    --------
    >>> as_step("3"), as_step(3.0), as_step(2.5), as_step(float("inf"))
    (3, 3, None, None)
    """
    number = as_number(value)
    return int(number) if number is not None and math.isfinite(number) and number == int(number) else None


@dataclass(frozen=True)
class Dialect:
    """How one framework names its scalars.

    Parameters
    ----------
    signature
        Names that give the framework away, after ``spell``.
    names
        The framework's name -> ours, only where the definitions agree.
    spell
        Undoes what a sink does to names, as TensorBoard's ``train/``.
    foreign
        Names of another framework that logs some of the signature, too: a log with one of them is not this one's.

    Examples
    --------
    >>> dialect = Dialect(frozenset({"critic/score/mean"}), {}, foreign=frozenset({"critic/entropy/mean"}))
    >>> dialect.spoken(["critic/score/mean"]), dialect.spoken(["critic/score/mean", "critic/entropy/mean"])
    (('critic/score/mean',), ())
    """

    signature: frozenset[str]
    names: Mapping[str, str]
    spell: Callable[[str], str] = str
    foreign: frozenset[str] = frozenset()

    def spoken(self, names: Iterable[str]) -> tuple[str, ...]:
        """Give the names that are of this framework."""
        given = {self.spell(name) for name in names}
        return () if given & self.foreign else tuple(sorted(self.signature & given))


def join(logs: Sequence[Log], sink: Sink, spell: Callable[[str], str] = str) -> Scalars:
    """Join the logs of one run: where two have a number, the earlier log of the list wins.

    Logs that disagree are taken for a run and its continuation when one begins later than the other: from there on the
    later one counts.

    Parameters
    ----------
    logs
        The most exact first.
    sink
        Takes notes.
    spell
        Gives names their common spelling.

    Returns
    -------
    dict
        The source's step -> name -> value.

    Raises
    ------
    RunFormatError
        The logs are of several runs.
    """
    parts: list[tuple[str, Scalars]] = []
    for log in logs:
        sink.meet(name for row in log.rows.values() for name in row)
        rows = {step: {spell(name): value for name, value in row.items()} for step, row in log.rows.items()}
        parts = _joined(parts, (log.label, rows), sink) if rows else parts
    whole: Scalars = {}
    for _, rows in parts:
        for step, row in rows.items():
            whole[step] = {**row, **whole.get(step, {})}
    return dict(sorted(whole.items()))


def _joined(parts: list[tuple[str, Scalars]], new: tuple[str, Scalars], sink: Sink) -> list[tuple[str, Scalars]]:
    label, rows = new
    kept = []
    for other, theirs in parts:
        if agreement(theirs, rows) < _SAME_RUN:
            if min(rows) == min(theirs):
                names = ", ".join([*(name for name, _ in parts), label])
                wrong = f"disagree from step {min(rows)} on: logs of several runs"
                raise RunFormatError(names, wrong, "the logs of one run", "name one run's directory or file")
            (first, early), (second, late) = sorted([(other, theirs), (label, rows)], key=lambda part: min(part[1]))
            cut = {step: row for step, row in early.items() if step < min(late)}
            sink.note(f"{second} goes on where {first} was left, at step {min(late)}: it counts from there on")
            theirs, rows = (cut, rows) if first == other else (theirs, cut)
        kept.append((other, theirs))
    return [*kept, (label, rows)]


def agreement(first: Scalars, second: Scalars) -> float:
    """Give the share of numbers that two logs both have and agree on; 1 when they have none in common.

    Numbers that are 0 or 1 in both are not counted, since different runs share those.

    Examples
    --------
    >>> agreement({1: {"x": 0.5, "y": 0.0}}, {1: {"x": 0.7, "y": 0.0}})
    0.0
    """
    same = total = 0
    for step in first.keys() & second.keys():
        for name in first[step].keys() & second[step].keys():
            a, b = first[step][name], second[step][name]
            if a == b and a in (0.0, 1.0):
                continue
            total += 1
            same += abs(a - b) <= _CLOSE * max(abs(a), abs(b)) + 6e-4 or (math.isnan(a) and math.isnan(b))
    return same / total if total else 1.0


def deliver(rows: Scalars, names: Mapping[str, str], sink: Sink, spell: Callable[[str], str] = str) -> None:
    """Write scalars under our names where they mean the same, and under their own where not.

    Parameters
    ----------
    rows
        The source's step -> name -> value; ``sink.step_offset`` is taken off. What was logged before the first update
        goes with the first, under names of its own.
    names
        The source's name -> ours; names that the user maps come first.
    sink
        Takes the rows.
    spell
        How the names were spelled when the logs were joined: the user may map either.
    """
    sink.meet(name for row in rows.values() for name in row)
    mapped = {**names, **{spell(theirs): ours for ours, theirs in sink.options.columns.items() if ours in METRICS}}
    out: dict[int, dict[str, float]] = {}
    for step, row in rows.items():
        ours = max(step - sink.step_offset, 0)
        for name, value in row.items():
            target = mapped.get(name) or kept_name(name, sink.framework)
            if step < sink.step_offset:
                target = f"before_training/{name}"
            if target in METRICS and target != name:
                sink.metric_names[target] = name
            out.setdefault(ours, {})[target] = value
    for step, epoch in sink.epochs.items():
        if (ours := step - sink.step_offset) in out:
            out[ours].setdefault("epoch", epoch)
    sink.metrics({step: {name: _typed(name, value) for name, value in row.items()} for step, row in out.items()})


def _typed(name: str, value: float) -> float | int:
    whole = name in METRICS and METRICS[name].dtype.startswith("Int") and math.isfinite(value)
    return int(value) if whole else value
