"""verl with our estimators and our record: installed beside it, they are there under their names.

``algorithm.adv_estimator=asym_grpo +algorithm.beta_pos=0.9`` takes an estimator into any of verl's trainers;
``trainer.v1.trainer_mode=entropy_lab +trainer.v1.entropy_lab.record_to=DIR`` records the run, and is what estimators
that read entropies need. verl loads ``verl_plugin`` by itself; see docs/integrations.md.
"""

from __future__ import annotations

from entropy_lab.integrations.verl_mixin import RecordingMixin
from entropy_lab.integrations.verl_names import PREFIX, TRAINERS, advantage_of, estimator_names, words_of
from entropy_lab.integrations.verl_releases import SUPPORTED
from entropy_lab.integrations.verl_settings import RecordSettings

__all__ = [
    "PREFIX",
    "SUPPORTED",
    "TRAINERS",
    "RecordSettings",
    "RecordingMixin",
    "advantage_of",
    "estimator_names",
    "words_of",
]
