"""Accuracy on held-out problems over training: Avg@k and pass@k per benchmark (Figure 2b, Table 1)."""

import warnings

import numpy as np
import polars as pl

from entropy_lab.batches import FloatArray
from entropy_lab.bootstrap import percentile_interval, resampled_sums
from entropy_lab.pass_at_k import pass_at_k
from entropy_lab.run import Run, RunWarning
from entropy_lab.table import Table

NEEDS = ("evals.benchmark", "evals.problem_id", "evals.correct")


def analyze(run: Run, *, n_boot: int = 1000, confidence: float = 0.95, seed: int = 0) -> Table:
    """Mean accuracy and unbiased pass@k of each validation pass, greedy and sampled answers apart.

    Parameters
    ----------
    run
        A run with files in ``evals/``.
    n_boot, confidence, seed
        Resamples (of problems), coverage and seed of the interval; a benchmark of one problem has none.

    Returns
    -------
    Table
        One row per step, benchmark and way of decoding: step, benchmark, greedy (null when not recorded), k (fewest
        verified answers of a problem), accuracy (mean over problems of correct / answers), ci_low, ci_high, and
        ``pass_at_1``, ``pass_at_2``, ``pass_at_4``, … up to the largest k (null above a row's own k). Problems
        without a verified answer are left out.

    Warns
    -----
    RunWarning
        Answers of one row were sampled at several temperatures, so that its pass@k is that of no one policy.
    """
    rows: list[dict[str, object]] = []
    by = ["benchmark", "greedy"]
    pooled: set[str] = set()
    for answers in run.evals():
        verified = answers.filter(pl.col("correct").is_not_null())
        temperatures = verified.group_by(by).agg(n=pl.col("temperature").drop_nulls().n_unique())
        pooled |= set(temperatures.filter(pl.col("n") > 1)["benchmark"])
        problems = verified.group_by(*by, "problem_id").agg(pl.col("correct").sum().alias("c"), pl.len().alias("n"))
        for key, group in sorted(problems.partition_by(by, as_dict=True).items(), key=lambda item: str(item[0])):
            c, n = (group.sort("problem_id")[name].to_numpy().astype(float) for name in ("c", "n"))
            low, high = _interval(c / n, n_boot, confidence, seed)
            k = int(n.min())
            passes = {f"pass_at_{j}": float(pass_at_k(c, n, j).mean()) for j in _powers_of_two(k)}
            head = {"step": answers["step"][0], "benchmark": key[0], "greedy": key[1], "k": k}
            rows.append({**head, "accuracy": float((c / n).mean()), "ci_low": low, "ci_high": high, **passes})
    if pooled:
        text = f"answers at several temperatures count together: {', '.join(sorted(pooled))}"
        warnings.warn(text, RunWarning, stacklevel=2)
    names = ["step", "benchmark", "greedy", "k", "accuracy", "ci_low", "ci_high"]
    names += [f"pass_at_{j}" for j in _powers_of_two(max((int(str(row["k"])) for row in rows), default=0))]
    columns = {name: [row.get(name) for row in rows] for name in names}
    return Table.of("validation", columns, n_boot=n_boot, confidence=confidence, seed=seed)


def _interval(accuracy: FloatArray, n_boot: int, confidence: float, seed: int) -> tuple[float, float]:
    if len(accuracy) < 2:
        return float("nan"), float("nan")
    means = resampled_sums(accuracy[:, None], n_boot, np.random.default_rng(seed))[:, 0] / len(accuracy)
    low, high = percentile_interval(means, confidence)
    return float(low), float(high)


def _powers_of_two(limit: int) -> list[int]:
    return [2**i for i in range(limit.bit_length())]
