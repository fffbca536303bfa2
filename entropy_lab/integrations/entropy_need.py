"""Which advantages need entropies before a loss is computed."""

from __future__ import annotations

from entropy_lab.advantages import Modulation
from entropy_lab.advantages.modulation import Constant


def needs_entropies(modulation: Modulation | None) -> bool:
    """Tell whether advantages depend on entropies of the rollouts: where they change, or tell tokens apart.

    Examples
    --------
    >>> from entropy_lab.advantages import modulation
    >>> [needs_entropies(modulation(name)) for name in ("asym_grpo", "entropy_advantage", "entropy_target")]
    [False, True, True]
    """
    if modulation is None:
        return False
    return not isinstance(modulation, Constant) or modulation.initial.token_advantage is not None
