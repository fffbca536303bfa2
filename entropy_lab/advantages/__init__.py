"""Advantage estimators: from the rewards of a group of rollouts to a weight for each of them.

``get("asym_grpo", beta_pos=0.9)(rewards)`` is all that a trainer needs; `fingerprint` shows what an estimator does at
every group accuracy. ``modulation("entropy_target")`` gives the estimator of each update where it changes during
training. Everything is float64 numpy.
"""

from entropy_lab.advantages.estimator import Estimator
from entropy_lab.advantages.fingerprint import Fingerprint, fingerprint
from entropy_lab.advantages.modulation import Modulation
from entropy_lab.advantages.registry import get, modulation, modulation_names, names

__all__ = ["Estimator", "Fingerprint", "Modulation", "fingerprint", "get", "modulation", "modulation_names", "names"]
