"""What an analysis says at a glance: a few numbers out of its tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from entropy_lab.analysis import Results
from entropy_lab.run import Run
from entropy_lab.table import Table


def summarise(run: Run, results: Results) -> dict[str, Any]:
    """Condense the tables of one run.

    Parameters
    ----------
    run
        The run.
    results
        Its analyses.

    Returns
    -------
    dict
        JSON values: ``run``, ``method``, ``steps``, and, for each analysis that ran, ``entropy`` (start, end and
        change in nats/token), ``covariance`` (slope with interval, spearman), ``solve_rates`` (all-/none-solved of the
        first and last epoch), ``likelihood`` (mean over steps, nats/rollout), ``ledger`` (predicted entropy change by
        channel, and the measured one), ``entropy_audit`` (what each logged entropy is), ``training`` (reward),
        ``validation`` (accuracy of the first and last pass, mean over the benchmarks that both have); ``skipped``
        (analysis -> missing columns) and ``left_out`` (files with rows and reason). Of a run that another framework
        wrote, also ``imported`` (format, version, source), ``logged`` (what its scalars say of entropy, reward, length
        and truncation) and ``record`` (what is missing, and how that framework records it).
    """
    parts = {
        "entropy": _entropy,
        "covariance": _covariance,
        "solve_rates": _solve_rates,
        "likelihood": _likelihood,
        "ledger": _ledger,
        "entropy_audit": _entropy_audit,
        "training": _training,
        "validation": _validation,
    }
    steps = [file.step for file in run.readable_files]
    summary: dict[str, Any] = {
        "run": run.name,
        "method": dict(run.method),
        "steps": {"first": steps[0], "last": steps[-1], "n": len(steps)} if steps else {"n": 0},
    }
    for name, part in parts.items():
        if name in results.tables and len(results.tables[name]):
            summary[name] = part(results.tables[name])
    summary["skipped"] = {name: list(columns) for name, columns in results.missing.items()}
    summary["left_out"] = [{"file": item.file, "rows": item.rows, "why": item.why} for item in run.skipped]
    imported = run.info.get("imported")
    if isinstance(imported, Mapping):
        summary["imported"] = {key: imported.get(key) for key in ("format", "version", "source")}
        summary["logged"] = _logged(run)
        summary["record"] = _record(run, imported.get("how_to_record") or {}, results)
    return summary


def _logged(run: Run) -> dict[str, Any]:
    scalars = run.metrics()
    names = [name for name in ("entropy", "reward", "mean_length", "truncated") if name in scalars.columns]
    return {name: _ends(Table("metrics", scalars), name) for name in names}


def _record(run: Run, how: Mapping[str, str], results: Results) -> list[dict[str, Any]]:
    """Group what the skipped analyses miss by the way to record it; without any rollout, that comes first."""
    missing = [column.partition(".")[0] for columns in results.missing.values() for column in columns]
    wanted = [name for name in dict.fromkeys(missing) if name in how] if run.step_files else ["rollouts"]
    by_way: dict[str, list[str]] = {}
    for name in wanted:
        if name in how:
            by_way.setdefault(how[name], []).append(name)
    return [{"columns": names, "how": way} for way, names in by_way.items()]


def _ends(table: Table, column: str) -> dict[str, Any]:
    values = table.frame[column].drop_nulls()
    start, end = (values[0], values[-1]) if len(values) else (None, None)
    return {"start": start, "end": end}


def _entropy(table: Table) -> dict[str, Any]:
    ends = _ends(table, "entropy")
    change = ends["end"] / ends["start"] - 1 if ends["start"] else None
    return {**ends, "change": change, "mean": table.frame["entropy"].mean(), "unit": "nats/token"}


def _covariance(table: Table) -> dict[str, Any]:
    keys = ("slope", "slope_ci_low", "slope_ci_high", "spearman", "first_steps", "advantage")
    return {key: table.metadata.get(key) for key in keys}


def _solve_rates(table: Table) -> dict[str, Any]:
    by = str(table.metadata["by"])
    return {
        "by": by,
        "first": table.frame[by][0],
        "last": table.frame[by][-1],
        **{name: _ends(table, name) for name in ("all_solved", "none_solved")},
    }


def _likelihood(table: Table) -> dict[str, Any]:
    columns = ("increment_correct", "increment_wrong")
    means: Mapping[str, Any] = {name: table.frame[name].mean() for name in columns}
    return {**means, "unit": "nats/rollout", "reduction": "mean over steps"}


def _ledger(table: Table) -> dict[str, Any]:
    predictor = str(table.metadata["predictor"])
    return {"predictor": predictor, "fit": table.metadata["fits"][predictor], **table.metadata["totals"]}


def _entropy_audit(table: Table) -> list[dict[str, Any]]:
    return table.frame.select("name", "verdict", "definition", "estimator", "nats_per_token", "note").to_dicts()


def _training(table: Table) -> dict[str, Any]:
    return {"reward": _ends(table, "reward"), "accuracy": _ends(table, "accuracy")}


def _validation(table: Table) -> dict[str, Any]:
    by = pl.col("greedy").replace_strict({True: "greedy", False: "sampled"}, default="answers")
    ways = table.frame.with_columns(by.alias("decoding")).partition_by(["decoding"], as_dict=True)
    ends = {str(key[0]): _passes(part) for key, part in ways.items()}
    return {"n_benchmarks": table.frame["benchmark"].n_unique(), **ends}


def _passes(part: pl.DataFrame) -> dict[str, Any]:
    """Compare the last pass with the first that has any of its benchmarks, over those that both have."""
    last = part.filter(pl.col("step") == pl.col("step").max())
    comparable = part.filter(pl.col("benchmark").is_in(last["benchmark"].implode()))
    first = comparable.filter(pl.col("step") == pl.col("step").min())
    last = last.filter(pl.col("benchmark").is_in(first["benchmark"].implode()))
    start, end = first["accuracy"].mean(), last["accuracy"].mean()
    return {"start": start, "end": end, "first_step": first["step"][0], "n_benchmarks": len(first)}
