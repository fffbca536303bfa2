"""Numbers that the paper published: read from one file, and never used as if they had been measured here."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from entropy_lab.plots.series import PAPER, exponent, family

_FILE: Final = Path(__file__).parents[1] / "published" / "arxiv-2604.04894.toml"
MARK: Final = "†"
"""Stands behind every published number on a page."""


@dataclass(frozen=True)
class Row:
    """Published accuracies of one method.

    Parameters
    ----------
    label
        As the paper spells it.
    method
        As `entropy_lab.plots.series.family` names it.
    accuracy
        On each benchmark, per cent.
    average
        The paper's own column, per cent.
    """

    label: str
    method: str
    accuracy: tuple[float, ...]
    average: float


@dataclass(frozen=True)
class Published:
    """A published table.

    Parameters
    ----------
    source
        Paper and table.
    model
        What was trained.
    protocol
        How it was measured.
    benchmarks, answers
        Names, and answers per problem of each.
    rows
        In the paper's order.
    """

    source: str
    model: str
    protocol: str
    benchmarks: tuple[str, ...]
    answers: tuple[int, ...]
    rows: tuple[Row, ...]


@cache
def published() -> Published:
    """Read Table 1 of arXiv 2604.04894.

    Returns
    -------
    Published
        Fifteen methods on five benchmarks.

    Examples
    --------
    >>> [row.average for row in published().rows if row.method == "asym_grpo"]
    [59.36]
    """
    content = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    rows = tuple(Row(row["label"], row["method"], tuple(row["accuracy"]), row["average"]) for row in content["rows"])
    lists = tuple(content["benchmarks"]), tuple(content["answers"])
    return Published(content["source"], content["model"], content["protocol"], *lists, rows)


def counterparts(series: Sequence[tuple[str, str, Mapping[str, object]]]) -> dict[str, Row]:
    """Find the published row of each series that has one.

    Parameters
    ----------
    series
        (label, method, params), as in `entropy_lab.plots.series.RunTables`.

    Returns
    -------
    dict
        Label -> row. Of a sweep only the exponent 0.5 has one; of several series of one method only the first label in
        alphabetical order, so that no published number stands twice.

    Examples
    --------
    >>> sweep = [(f"Pos-Only {beta}", "pos_only", {"beta_pos": beta}) for beta in (0.25, 0.5)]
    >>> {label: row.average for label, row in counterparts([*sweep, ("mine", "rloo", {})]).items()}
    {'Pos-Only 0.5': 55.31}
    """
    rows = {row.method: row for row in published().rows}
    found: dict[str, Row] = {}
    for label, method, params in sorted(series, key=lambda one: one[0]):
        name = family(label, method, params)
        if name in rows and exponent(name, params) == 0.5:
            found[label] = rows.pop(name)
    return found


def table_order(series: Sequence[tuple[str, str, Mapping[str, object]]]) -> tuple[list[str], list[str]]:
    """Order series as the paper's Table 1 does: the base policy first, sweeps by exponent.

    Parameters
    ----------
    series
        (label, method, params), as in `entropy_lab.plots.series.RunTables`.

    Returns
    -------
    paper : list of str
        Labels of the paper's methods.
    beyond : list of str
        Labels of all others, by name.

    Examples
    --------
    >>> table_order([("RLOO", "rloo", {}), ("G", "grpo", {}), ("start", "base", {})])
    (['start', 'G'], ['RLOO'])
    """
    names = {label: (family(label, method, params), params) for label, method, params in series}
    known = [label for label, (name, _) in names.items() if name in PAPER]
    ranks = {label: (PAPER.index(names[label][0]), exponent(*names[label]), label) for label in known}
    return sorted(known, key=lambda label: ranks[label]), sorted(set(names) - set(known))
