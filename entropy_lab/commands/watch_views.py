"""What ``entropy-lab watch`` prints: a live table on a terminal, lines elsewhere, or JSON lines."""

from __future__ import annotations

import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table as Listing

from entropy_lab.commands.diagnose import STYLES, show
from entropy_lab.commands.terminal import console
from entropy_lab.diagnosis.finding import Finding
from entropy_lab.diagnosis.registry import CHECKS
from entropy_lab.diagnosis.series import FloatArray, Series
from entropy_lab.diagnosis.wording import number, reasons, spoken_onset
from entropy_lab.json_values import json_value
from entropy_lab.monitoring.monitor import Monitor
from entropy_lab.trends import condense

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_SPARK: Final = 24
"""Characters of a sparkline, at most."""
_ENDS: Final = 3
"""Values of which the start and the present level of a series are the medians."""


@dataclass(frozen=True)
class _Kind:
    """How a series is shown: its name for people, its unit, and whether changes are ratios."""

    label: str
    unit: str = ""
    ratio: bool = False


_SHOWN: Final[Mapping[str, _Kind]] = {
    "entropy": _Kind("entropy", "nats/token", ratio=True),
    "surprisal": _Kind("-log-probability", "nats/token", ratio=True),
    "reward": _Kind("reward"),
    "accuracy": _Kind("accuracy"),
    "validation": _Kind("validation"),
    "length": _Kind("length", "tokens", ratio=True),
    "zero_signal": _Kind("zero-signal", "of groups"),
    "truncated": _Kind("truncated", "of rollouts"),
    "clipped": _Kind("clipped", "of tokens"),
    "mismatch": _Kind("mismatch", "nats/token"),
}


def readings(series: Mapping[str, Series]) -> dict[str, Series]:
    """Choose the series to show: minus log-probability only without an entropy, accuracy only where it is no reward.

    Examples
    --------
    >>> one = Series.of([0, 1], [0.5, 0.4], "")
    >>> list(readings({"accuracy": one, "entropy": one, "surprisal": one, "reward": one}))
    ['entropy', 'reward']
    """
    chosen = {name: series[name] for name in _SHOWN if name in series}
    if "entropy" in chosen:
        chosen.pop("surprisal", None)
    if "accuracy" in chosen and "reward" in chosen:
        same = np.array_equal(chosen["accuracy"].values, chosen["reward"].values)
        return {name: one for name, one in chosen.items() if not (same and name == "accuracy")}
    return chosen


def change(one: Series, *, ratio: bool) -> str:
    """Word the change of a series since its start, of medians of three values; empty where there are too few.

    Examples
    --------
    >>> falling = Series.of(range(6), [0.5, 0.5, 0.5, 0.4, 0.4, 0.4], "")
    >>> change(falling, ratio=True), change(falling, ratio=False), change(falling.between(2), ratio=True)
    ('-20%', '-0.100', '')
    >>> change(Series.of(range(6), [0.0, 0.0, 0.0, -1e-9, -1e-9, -1e-9], ""), ratio=False)
    '+0.000'
    """
    if len(one) < 2 * _ENDS:
        return ""
    start, end = (float(np.median(part)) for part in (one.values[:_ENDS], one.values[-_ENDS:]))
    if ratio and start > 0:
        return f"{end / start - 1:+.0%}"
    return f"{round(end - start, 3) + 0.0:+.3f}"  # no minus before a zero


def sparkline(values: FloatArray) -> str:
    """Draw a series with block characters, its lowest value as the lowest block.

    Examples
    --------
    >>> sparkline(np.array([0.0, 1.0, 2.0, 7.0])), sparkline(np.ones(3))
    ('▁▂▃█', '▁▁▁')
    """
    _, short = condense(np.arange(len(values), dtype=np.float64), values, _SPARK)
    low, spread = short.min(), np.ptp(short)
    heights = np.round((short - low) / spread * (len(_BLOCKS) - 1)) if spread > 0 else np.zeros(len(short))
    return "".join(_BLOCKS[int(height)] for height in heights)


class View(ABC):
    """Shows a run that is watched."""

    def __enter__(self) -> View:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    @abstractmethod
    def show(self, monitor: Monitor, new: Sequence[Finding]) -> None:
        """Show the state after a look, and what it told."""

    @abstractmethod
    def end(self, monitor: Monitor, why: str, failed: Sequence[str]) -> None:
        """Sum up."""


def view_of(as_json: bool) -> View:
    """Choose the view: JSON lines where asked for, else a table on a terminal and lines in a file or a pipe."""
    if as_json:
        return JsonView()
    return TerminalView() if sys.stdout.isatty() else LineView()


class LineView(View):
    """A line for each look that saw a new step, and one for each finding."""

    def __init__(self) -> None:
        self._n_steps = -1

    def show(self, monitor: Monitor, new: Sequence[Finding]) -> None:
        """Append what is new."""
        if monitor.n_steps != self._n_steps:
            self._n_steps = monitor.n_steps
            _say(f"{_clock()} {': '.join((_progress(monitor), *_words(monitor.series)))}")
        for line in _news(monitor, new):
            _say(f"{_clock()} {line}")

    def end(self, monitor: Monitor, why: str, failed: Sequence[str]) -> None:
        """Append the whole diagnosis."""
        _say(f"{_clock()} ended: {why}")
        if monitor.diagnosis is not None:
            show(monitor.diagnosis, console())
            sys.stdout.flush()


class JsonView(View):
    """A JSON object for each look that saw something new, and one at the end."""

    def __init__(self) -> None:
        self._shown: object = None

    def show(self, monitor: Monitor, new: Sequence[Finding]) -> None:
        """Append an object if the diagnosis was made anew."""
        diagnosis = monitor.diagnosis
        if diagnosis is None or diagnosis is self._shown:
            return
        self._shown = diagnosis
        told = diagnosis.as_dict()["findings"]
        named = {finding.name for finding in new}
        _put(
            {
                "step": None if diagnosis.steps is None else json_value(diagnosis.steps[1]),
                "steps": monitor.n_steps,
                "per_minute": monitor.pace,
                "series": {name: _numbers(one) for name, one in readings(monitor.series).items()},
                "new": [finding for finding in told if finding["name"] in named],
                "withdrawn": list(monitor.withdrawn),
                "findings": [finding.name for finding in monitor.findings],
                "unconfirmed": [finding.name for finding in monitor.unconfirmed],
                "skipped": [skip.name for skip in diagnosis.skipped],
            }
        )

    def end(self, monitor: Monitor, why: str, failed: Sequence[str]) -> None:
        """Append the whole diagnosis."""
        diagnosis = monitor.diagnosis.as_dict() if monitor.diagnosis is not None else None
        _put({"ended": why, "failed_on": list(failed), "diagnosis": diagnosis})


class TerminalView(View):
    """A table that is drawn anew after each look; findings are printed above it, once."""

    def __init__(self, screen: Console | None = None) -> None:
        self._screen = screen or console()
        self._live = Live(console=self._screen, auto_refresh=False, transient=True)

    def __enter__(self) -> TerminalView:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, monitor: Monitor, new: Sequence[Finding]) -> None:
        """Draw the table anew."""
        for line in _news(monitor, new):
            self._screen.print(f"[bold]{_clock()}[/] {escape(line)}")
        self._live.update(Group(*_parts(monitor, self._screen)), refresh=True)

    def end(self, monitor: Monitor, why: str, failed: Sequence[str]) -> None:
        """Leave the last table, and print the whole diagnosis below it."""
        self._live.stop()
        self._screen.print(_head(monitor), _table(monitor.series, self._screen), sep="\n")
        self._screen.print(f"{_clock()} ended: {why}")
        if monitor.diagnosis is not None:
            show(monitor.diagnosis, self._screen)


def _parts(monitor: Monitor, screen: Console) -> Iterator[RenderableType]:
    """Yield what the terminal shows of a run, from top to bottom."""
    yield _head(monitor)
    yield _table(monitor.series, screen)
    for finding in monitor.findings:
        yield f"[{STYLES[finding.severity]}]{finding.severity}[/] {escape(_spoken(finding))}"
    if monitor.unconfirmed:
        yield f"[dim]not confirmed yet: {', '.join(finding.title for finding in monitor.unconfirmed)}[/]"
    if monitor.diagnosis is not None and not (monitor.findings or monitor.unconfirmed):
        yield "[green]nothing found[/]"
    if monitor.diagnosis is not None:
        for why, titled in reasons(monitor.diagnosis).items():
            yield f"[dim]not checked: {escape(', '.join(titled))}: {escape(why)}[/]"


def _head(monitor: Monitor) -> str:
    newest = f", last written {_ago(monitor.newest)} ago" if monitor.newest else ""
    return f"[bold]{escape(str(monitor.path))}[/]: {_progress(monitor)}{newest}"


def _table(series: Mapping[str, Series], screen: Console) -> Listing:
    listing = Listing(box=None, show_header=False, pad_edge=False)
    for justify in ("left", "right", "left", "right", "left"):
        listing.add_column(justify=justify, no_wrap=True)
    drawable = _drawable(screen.encoding)
    for name, one in readings(series).items():
        kind = _SHOWN[name]
        spark = sparkline(one.values) if drawable else ""
        listing.add_row(f"[cyan]{kind.label}[/]", _latest(one), kind.unit, change(one, ratio=kind.ratio), spark)
    return listing


def _drawable(encoding: str) -> bool:
    try:
        _BLOCKS.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _progress(monitor: Monitor) -> str:
    if monitor.diagnosis is None or monitor.diagnosis.steps is None:
        return "no step yet"
    pace = f", {number(monitor.pace)} steps/min" if monitor.pace is not None else ""
    return f"step {monitor.diagnosis.steps[1]:g} ({monitor.n_steps} recorded{pace})"


def _words(series: Mapping[str, Series]) -> list[str]:
    """Word the series in one text; in none where there are none."""
    words = []
    for name, one in readings(series).items():
        changed = change(one, ratio=_SHOWN[name].ratio)
        words.append(f"{_SHOWN[name].label} {_latest(one)}" + (f" ({changed})" if changed else ""))
    return [", ".join(words)] if words else []


def _latest(one: Series) -> str:
    value = float(one.values[-1])
    return f"{round(value, 3) + 0.0:.3f}" if abs(value) < 10 else number(value)


def _news(monitor: Monitor, new: Sequence[Finding]) -> Iterator[str]:
    yield from (f"{finding.severity}: {_spoken(finding)}" for finding in new)
    yield from (f"withdrawn: {CHECKS[name].title} ({name}) is not seen any more" for name in monitor.withdrawn)


def _spoken(finding: Finding) -> str:
    since = f" {spoken_onset(finding.since)}" if finding.since else ""
    return f"{finding.title}{since}: {finding.what} ({finding.name})"


def _numbers(one: Series) -> dict[str, Any]:
    start, end = (json_value(float(np.median(part))) for part in (one.values[:_ENDS], one.values[-_ENDS:]))
    return {"step": float(one.steps[-1]), "value": float(one.values[-1]), "start": start, "now": end}


def _put(told: Mapping[str, Any]) -> None:
    _say(json.dumps({"time": datetime.now(UTC).isoformat(timespec="seconds"), **told}, allow_nan=False))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _clock() -> str:
    return f"{datetime.now():%H:%M:%S}"


def _ago(moment: float) -> str:
    seconds = max(0.0, time.time() - moment)
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
