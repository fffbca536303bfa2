"""TRL's GRPOTrainer with our estimators and our record: put `EntropyLabGRPOTrainer` in its place.

TRL has no registry of advantages and no hook for what is known at the tokens, so this overrides private methods of the
trainer: it works with the releases that `TESTED` names, and refuses others. Importing this module needs transformers;
TRL itself is loaded with the trainer's class.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from entropy_lab.integrations.trl_mixin import RecorderMixin
from entropy_lab.integrations.trl_numbers import StepMetricsCallback
from entropy_lab.integrations.trl_releases import TESTED, require_tested

__all__ = ["TESTED", "EntropyLabGRPOTrainer", "RecorderMixin", "StepMetricsCallback", "require_tested"]

if TYPE_CHECKING:
    from trl import GRPOTrainer

    class EntropyLabGRPOTrainer(RecorderMixin, GRPOTrainer):  # type: ignore[misc]
        """TRL's trainer with what `RecorderMixin` adds."""


@functools.cache
def _trainer() -> type[Any]:
    """Make the class, once: its base is TRL's."""
    require_tested()
    from trl import GRPOTrainer

    class EntropyLabGRPOTrainer(RecorderMixin, GRPOTrainer):  # type: ignore[misc]
        __doc__ = RecorderMixin.__doc__

    EntropyLabGRPOTrainer.__module__, EntropyLabGRPOTrainer.__qualname__ = __name__, "EntropyLabGRPOTrainer"
    return EntropyLabGRPOTrainer


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name == "EntropyLabGRPOTrainer":
        return _trainer()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
