"""Advantage estimators: from the rewards of a group of rollouts to a weight for each of them.

``get("asym_grpo", beta_pos=0.9)(rewards)`` is all that a trainer needs; `fingerprint` shows what an estimator does at
every group accuracy. Everything is float64 numpy.
"""

from entropy_lab.advantages.estimator import Estimator
from entropy_lab.advantages.fingerprint import Fingerprint, fingerprint
from entropy_lab.advantages.registry import get, names

__all__ = ["Estimator", "Fingerprint", "fingerprint", "get", "names"]
