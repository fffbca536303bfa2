"""What a handful of seeds can say: coverage of intervals of a mean, and the effects that the audit would find.

``python benchmarks/few_seeds.py`` prints the two tables of docs/claims.md, in about a minute.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from entropy_lab.bootstrap import percentile_interval, resample_counts
from entropy_lab.claims.intervals import bootstrap_t_interval, student_interval
from entropy_lab.claims.rules import ALPHA

FloatArray = NDArray[np.float64]
N_STUDIES, N_BOOT, LEVEL = 4000, 2000, 0.95
TESTS = 22
"""Eleven claims in two settings."""


def percentile(values: FloatArray, rng: np.random.Generator) -> tuple[float, float]:
    """Interval between two quantiles of the resampled mean."""
    means = resample_counts(len(values), N_BOOT, rng) @ values / len(values)
    low, high = percentile_interval(means, LEVEL)
    return float(low), float(high)


def bca(values: FloatArray, rng: np.random.Generator) -> tuple[float, float]:
    """Bias-corrected and accelerated percentile interval, by scipy."""
    found = stats.bootstrap(
        (values,), np.mean, confidence_level=LEVEL, n_resamples=N_BOOT, method="BCa", rng=rng
    ).confidence_interval
    return float(found.low), float(found.high)


INTERVALS: dict[str, Callable[[FloatArray, np.random.Generator], tuple[float, float]]] = {
    "percentile": percentile,
    "BCa": bca,
    "bootstrap-t": lambda values, rng: bootstrap_t_interval(values, LEVEL, n_boot=N_BOOT, rng=rng),
    "Student t": lambda values, rng: student_interval(values, LEVEL),
}
NOISE: dict[str, Callable[[np.random.Generator, int], FloatArray]] = {
    "normal": lambda rng, n: rng.normal(size=n),
    "Student t, 3 df": lambda rng, n: rng.standard_t(3, size=n),
    "exponential": lambda rng, n: rng.exponential(size=n) - 1,
}


def coverage(kind: str, noise: str, n: int) -> str:
    """Share of intervals that hold the mean, and their median width."""
    rng = np.random.default_rng([n, len(noise)])
    bounds = np.array([INTERVALS[kind](NOISE[noise](rng, n), rng) for _ in range(N_STUDIES)])
    covered = ((bounds[:, 0] <= 0) & (bounds[:, 1] >= 0)).mean()
    width = np.median(bounds[:, 1] - bounds[:, 0])
    return f"{covered:.3f} ({width:.1f})" if np.isfinite(width) else "unbounded"


def least_effect(n: int, p: float, power: float = 0.8) -> float:
    """Give the mean difference, in standard deviations, at which p is reached with a probability."""
    threshold = stats.t.isf(p, n - 1)
    return float(optimize.brentq(lambda d: stats.nct.sf(threshold, n - 1, d * np.sqrt(n)) - power, 0, 60))


def main() -> None:
    """Print both tables."""
    print("| differences | pairs | " + " | ".join(INTERVALS) + " |\n|---|---" + "|---" * len(INTERVALS) + "|")
    for noise in NOISE:
        for n in (3, 5, 10):
            print(f"| {noise} | {n} | " + " | ".join(coverage(kind, noise, n) for kind in INTERVALS) + " |", flush=True)
    print("\n| pairs | first of 22 tests | last of 22 |\n|---|---|---|")
    for n in (3, 4, 5, 10, 20):
        print(f"| {n} | {least_effect(n, ALPHA / 2 / TESTS):.1f} | {least_effect(n, ALPHA / 2):.1f} |")


if __name__ == "__main__":
    main()
