"""What claims compare: one number per run and quantity, out of the tables of its analyses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import polars as pl

from entropy_lab.claims.common_ground import LAST_PASSES, CommonGround
from entropy_lab.plots.series import RunTables

LAST_STEPS: Final = 10
"""Updates that "the end" of a run averages over."""
FIRST_STEPS: Final = 40
"""Updates within which the covariance must have been measured, as in the paper."""


@dataclass(frozen=True)
class Quantity:
    """One number of a run.

    Parameters
    ----------
    spoken
        Its name for a reader.
    unit
        ``"fraction"`` is shown in percentage points.
    meaning
        How it is computed.
    of
        The function that computes it; None where the run lacks what it needs.
    companions
        Quantities that are reported beside it and enter no verdict.
    """

    spoken: str
    unit: str
    meaning: str
    of: Callable[[RunTables, CommonGround], float | None]
    companions: tuple[str, ...] = ()


def measure(run: RunTables, common: CommonGround) -> dict[str, float]:
    """Compute every quantity of a run.

    Parameters
    ----------
    run
        The run.
    common
        What its setting is compared on.

    Returns
    -------
    dict
        Quantity -> value; those that its tables do not give have no key.

    Examples
    --------
    >>> from entropy_lab.table import Table
    >>> tables = {"entropy": Table.of("entropy", {"step": [0, 1], "entropy": [0.5, 0.4]})}
    >>> found = measure(RunTables("GRPO", "grpo", {}, 0, 8, tables), CommonGround((), (), None, None))
    >>> {name: round(value, 3) for name, value in found.items()}
    {'entropy': 0.45, 'entropy_end': 0.45}
    """
    values = {name: quantity.of(run, common) for name, quantity in QUANTITIES.items()}
    return {name: float(value) for name, value in values.items() if value is not None}


def _mean(table: str, column: str, last: int | None = None) -> Callable[[RunTables, CommonGround], float | None]:
    """Mean of a column over steps, or over the last of them."""

    def of(run: RunTables, _: CommonGround) -> float | None:
        if table not in run.tables or column not in run.tables[table].columns:
            return None
        values = run.tables[table].frame.sort("step")[column]
        return _number((values.tail(last) if last else values).mean())

    return of


def _share(column: str) -> Callable[[RunTables, CommonGround], float | None]:
    """Share of all groups of a run."""

    def of(run: RunTables, _: CommonGround) -> float | None:
        if "solve_rates" not in run.tables:
            return None
        n = pl.col("n_groups")
        return _number(run.tables["solve_rates"].frame.select((pl.col(column) * n).sum() / n.sum()).item())

    return of


def _covariance(key: str) -> Callable[[RunTables, CommonGround], float | None]:
    def of(run: RunTables, _: CommonGround) -> float | None:
        facts = run.tables["covariance"].metadata if "covariance" in run.tables else {}
        as_defined = facts.get("first_steps") == FIRST_STEPS and facts.get("advantage") == "recorded"
        return _number(facts.get(key)) if as_defined else None

    return of


def _target_error(run: RunTables, common: CommonGround) -> float | None:
    """By the parameters of the estimator ``entropy_target``: a target in nats, or as a share of the first entropy."""
    target, end = _number(run.params.get("target")), _mean("entropy", "entropy", LAST_STEPS)(run, common)
    if not target or end is None:
        return None
    first = _number(run.tables["entropy"].frame.sort("step")["entropy"].first())
    unit = {"nats": 1.0, "first_entropy": first}.get(str(run.params.get("unit")))
    return end / (target * unit) - 1 if unit else None


def _accuracy(run: RunTables, common: CommonGround) -> float | None:
    return _validation(run, common, pl.col("greedy"), common.passes, "accuracy")


def _sampled(run: RunTables, common: CommonGround) -> float | None:
    return _validation(run, common, ~pl.col("greedy"), _only(common.sampled), "accuracy")


def _pass_at_k(run: RunTables, common: CommonGround) -> float | None:
    return _validation(run, common, ~pl.col("greedy"), _only(common.sampled), f"pass_at_{common.k}")


def _validation(
    run: RunTables, common: CommonGround, decoding: pl.Expr, passes: Sequence[int], column: str
) -> float | None:
    """Mean over the setting's benchmarks and passes; None where one is missing: a mean over fewer is another number."""
    frame = run.tables["validation"].frame if "validation" in run.tables else pl.DataFrame()
    if column not in frame.columns or not passes:
        return None
    values = frame.filter(decoding & pl.col("step").is_in(list(passes)))[column].drop_nulls()
    return _number(values.mean()) if len(values) == len(passes) * len(common.benchmarks) else None


def _only(step: int | None) -> tuple[int, ...]:
    return () if step is None else (step,)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and value == value else None


QUANTITIES: Final[Mapping[str, Quantity]] = MappingProxyType(
    {
        "covariance_slope": Quantity(
            "covariance slope",
            "nats/token",
            f"least-squares slope of the within-group covariance over group accuracy, first {FIRST_STEPS} updates, "
            "recorded advantage (`slope` of the covariance table), per unit of accuracy",
            _covariance("slope"),
            ("covariance_spearman",),
        ),
        "covariance_spearman": Quantity(
            "covariance Spearman",
            "1",
            "rank correlation of accuracy and covariance, same rows",
            _covariance("spearman"),
        ),
        "entropy": Quantity(
            "entropy",
            "nats/token",
            "mean over all updates of the policy entropy",
            _mean("entropy", "entropy"),
            ("entropy_end",),
        ),
        "entropy_end": Quantity(
            "entropy at the end",
            "nats/token",
            f"the same over the last {LAST_STEPS} updates",
            _mean("entropy", "entropy", LAST_STEPS),
        ),
        "none_solved": Quantity(
            "none-solved", "fraction", "share of all training groups with no correct rollout", _share("none_solved")
        ),
        "all_solved": Quantity(
            "all-solved", "fraction", "share of all training groups with only correct rollouts", _share("all_solved")
        ),
        "increment_correct": Quantity(
            "increment",
            "nats/rollout",
            "mean over updates of the log-probability increment of correct rollouts",
            _mean("likelihood", "increment_correct"),
            ("increment_correct_per_token",),
        ),
        "increment_correct_per_token": Quantity(
            "increment per token",
            "nats/token",
            "the same with each rollout's increment divided by its length",
            _mean("likelihood", "increment_correct_per_token"),
        ),
        "accuracy": Quantity(
            "accuracy",
            "fraction",
            f"greedy validation accuracy, mean over all benchmarks and the last {LAST_PASSES} passes",
            _accuracy,
            ("accuracy_sampled", "pass_at_k"),
        ),
        "accuracy_sampled": Quantity(
            "sampled accuracy",
            "fraction",
            "avg@k, mean over all benchmarks, at the last pass with sampled answers",
            _sampled,
        ),
        "pass_at_k": Quantity(
            "pass@k", "fraction", "the same pass, at the largest power of two that every run has as its k", _pass_at_k
        ),
        "target_error": Quantity(
            "entropy over target",
            "1",
            f"entropy over the last {LAST_STEPS} updates divided by the controller's target, minus 1",
            _target_error,
        ),
    }
)
"""Name -> quantity."""
