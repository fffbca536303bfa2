"""What a sink is, and how several are fed so that none of them can stop a run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol

from entropy_lab.json_values import json_value
from entropy_lab.run import Run, RunWarning

_NOT_A_VALUE: Final = "step"
_GROUP: Final = "train/"
"""Sinks draw values of one group together, and a group is what stands before a slash."""


@dataclass(frozen=True)
class LoggedRun:
    """What a sink is told of a run.

    Parameters
    ----------
    path
        Its directory.
    name
        Its name.
    group
        What runs that differ only in seed have in common.
    config
        Its configuration, and ``method``.
    """

    path: Path
    name: str
    group: str
    config: Mapping[str, Any]

    @classmethod
    def of(cls, run: Run) -> LoggedRun:
        """Take it from ``run.json``.

        Parameters
        ----------
        run
            The run.
        """
        method, info = run.method, run.info
        label = str(method.get("label") or method["name"])
        group = " / ".join(str(part) for part in (info.get("setting"), label) if part)
        return cls(run.path, run.name, group, {**info.get("config", {}), "method": label})


class Sink(Protocol):
    """Takes the numbers of a run, update by update."""

    last: int
    """The last update that it has; -1 for none."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of an update later than the last one."""
        ...

    def close(self, failed: bool) -> None:
        """Pass on what is still under way, and say whether the run was stopped by an error."""
        ...


class Sinks:
    """Several sinks, closed at the end of a ``with`` block however it ends.

    What one of them raises costs a `RunWarning`, the first time, and nothing else: it gets the next update too.

    Parameters
    ----------
    sinks
        Name -> sink, open.

    Examples
    --------
    >>> class Printer:
    ...     last = -1
    ...     def log(self, step, values):
    ...         print(step, values)
    ...     def close(self, failed):
    ...         print("closed", failed)
    >>> with Sinks({"printer": Printer()}) as sinks:
    ...     sinks.log(0, {"step": 0, "entropy": 0.5, "loss": float("nan"), "validation/mean": 1.0})
    ...     sinks.log(0, {"step": 0, "entropy": 0.5})
    0 {'train/entropy': 0.5, 'validation/mean': 1.0}
    closed False
    """

    def __init__(self, sinks: Mapping[str, Sink]) -> None:
        self._sinks = dict(sinks)
        self._warned: set[str] = set()

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Hand an update's numbers to every sink that does not have it.

        Parameters
        ----------
        step
            Index of the update.
        metrics
            Name -> value. A name without a group gets the group ``train``; what is not a finite number is left out, as
            is ``step``.
        """
        values = numbers(metrics) if self._sinks else {}
        for name, sink in self._sinks.items():
            if step > sink.last:
                # Whatever happens, an update is not handed over again: no step may be there twice.
                sink.last = step
                try:
                    sink.log(step, values)
                except Exception as error:
                    self._warn(name, error)

    def __enter__(self) -> Sinks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for name, sink in self._sinks.items():
            try:
                sink.close(kind is not None)
            except Exception as failure:
                self._warn(name, failure)

    def _warn(self, name: str, error: Exception) -> None:
        if name not in self._warned:
            self._warned.add(name)
            said = f"{type(error).__name__}: {error}".partition("\n")[0]
            warnings.warn(
                f"log_to {name}: failed ({said}); the run goes on, metrics.jsonl has all", RunWarning, stacklevel=3
            )


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Give what can be drawn over steps, each with its group.

    Parameters
    ----------
    metrics
        Name -> value, of ``metrics.jsonl`` or on its way there.

    Returns
    -------
    dict of str to float
        Finite numbers.

    Examples
    --------
    >>> numbers({"step": 3, "entropy": 0.5, "loss": None, "note": "x"})
    {'train/entropy': 0.5}
    """
    plain = {name: json_value(value) for name, value in metrics.items() if name != _NOT_A_VALUE}
    return {
        name if "/" in name else f"{_GROUP}{name}": value
        for name, value in plain.items()
        if isinstance(value, int | float)
    }
