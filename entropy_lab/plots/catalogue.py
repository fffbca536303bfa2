"""Panels that several figures of the paper show, each with its own letter and methods."""

from __future__ import annotations

from typing import Final

from entropy_lab.plots.panels import Panel

_SHARES: Final = {"all_solved": "All solved (p = 1)", "none_solved": "None solved (p = 0)"}


def policy_entropy(key: str, methods: tuple[str, ...]) -> Panel:
    """Show policy entropy over training steps (Figures 2a, 3a, 4a).

    Examples
    --------
    >>> policy_entropy("a", ("grpo",)).unit
    'nats/token'
    """
    return Panel(
        key=key,
        title="Policy entropy",
        analysis="entropy",
        x=("step",),
        y="entropy",
        y_label="entropy",
        unit="nats/token",
        low="ci_low",
        high="ci_high",
        methods=methods,
        bounds=(0, None),
    )


def validation_accuracy(key: str, methods: tuple[str, ...], *, each_benchmark: bool = False) -> Panel:
    """Show validation accuracy over training steps, the mean over benchmarks (Figures 2b, 3b, 4b) or each alone (5).

    Examples
    --------
    >>> validation_accuracy("b", ("grpo",)).average_over
    'benchmark'
    """
    return Panel(
        key=key,
        title="Validation",
        analysis="validation",
        x=("step",),
        y="accuracy",
        y_label="accuracy",
        unit="%",
        low="ci_low",
        high="ci_high",
        interval="bootstrap interval over problems",
        methods=methods,
        decoding=True,
        average_over="" if each_benchmark else "benchmark",
        one_per="benchmark" if each_benchmark else "",
        note="not smoothed",
        baseline=True,
        bounds=(0, 1),
    )


def solved_share(key: str, share: str, methods: tuple[str, ...]) -> Panel:
    """Show the share of all-solved or none-solved groups, per step where the tables have steps, else per epoch (2c, 5).

    Parameters
    ----------
    key
        Letter of the panel.
    share
        ``"all_solved"`` or ``"none_solved"``.
    methods
        As in `Panel`.

    Examples
    --------
    >>> solved_share("c", "none_solved", ("grpo",)).title
    'None solved (p = 0)'
    """
    return Panel(
        key=key,
        title=_SHARES[share],
        analysis="solve_rates",
        x=("step", "epoch"),
        y=share,
        y_label="share of groups",
        unit="%",
        methods=methods,
        window=11,
        bounds=(0, 1),
    )
