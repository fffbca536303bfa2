"""Series by step of runs that fare well or badly, and what one check says of them."""

import numpy as np

from entropy_lab.diagnosis.observed import Observed
from entropy_lab.diagnosis.registry import CHECKS
from entropy_lab.diagnosis.series import Series

T = np.arange(60.0)
RNG = np.random.default_rng(0)
NOISE = RNG.normal(size=(8, 60))


def wobbling(values, size=0.02, row=0):
    return np.asarray(values) * (1 + size * NOISE[row])


def ask(name, run, baseline=None, **series):
    """What one check says of a run that has these series, and nothing else."""
    made = {key: Series.of(T[: len(values)], values, f"test: {key}") for key, values in series.items()}
    return CHECKS[name].judge(Observed(run, made, baseline=baseline))


RISING = wobbling(0.3 + 0.5 * (1 - np.exp(-T / 20)), row=1)
STILL = wobbling(np.full(60, 0.5), row=2)
HEALTHY = wobbling(0.5 + 0.5 * np.exp(-T / 25))
FALLING = wobbling(np.exp(-np.maximum(T - 20, 0) / 35))


def shares(level, row=0):
    return np.clip(level + 0.03 * NOISE[row], 0, 1)
