"""An entropy bonus that comes when entropy is below its target, and goes again."""

from __future__ import annotations

import math
from collections.abc import Mapping

from entropy_lab.errors import ParameterError


class AdaptiveEntropyCoef:
    """Coefficient of the entropy bonus, moved by a fixed step after every update.

    With the entropy H_k of update k and a coefficient c_k that starts at `start`,

        applied to update k: c_k if H_k < target, else 0
        c_(k+1) = clip(c_k + change if H_k < target else c_k - change, 0, maximum)

    Parameters
    ----------
    target
        Entropy in nats per token, above 0.
    change
        Step of the coefficient, above 0.
    maximum
        Its upper bound, above 0.
    start
        Its first value, 0 to `maximum`.

    Raises
    ------
    ParameterError
        When a parameter is outside its range.

    References
    ----------
    Skywork-OR1, arXiv 2505.22312, Section 3.2.5; the upper bound and the defaults are those of its released scripts.

    Examples
    --------
    >>> bonus = AdaptiveEntropyCoef(target=0.2, start=0.0005)
    >>> [round(bonus.at(entropy), 4) for entropy in (0.1, 0.1, 0.3, 0.1)]
    [0.0005, 0.0006, 0.0, 0.0006]
    >>> bonus.state()["entropy_coef_next"] == bonus.values()["entropy_coef"] + 0.0001
    True
    """

    def __init__(self, target: float, change: float = 1e-4, maximum: float = 0.005, start: float = 0.0) -> None:
        for name, value in (("target", target), ("change", change), ("maximum", maximum)):
            if not 0 < value < math.inf:
                raise ParameterError(f"entropy_coef {name}", f"is {value}", "above 0 and finite")
        if not 0 <= start <= maximum:
            raise ParameterError("entropy_coef start", f"is {start}", f"0 to maximum = {maximum}")
        self._target, self._change, self._maximum = target, change, maximum
        self._next, self._applied = start, 0.0

    def at(self, entropy: float) -> float:
        """Give the coefficient of an update, and move it for the next one.

        Parameters
        ----------
        entropy
            Policy entropy of the update's rollouts before the update, mean over response tokens, in nats per token.

        Returns
        -------
        float
            0 to `maximum`.

        Raises
        ------
        ParameterError
            When the entropy is negative or not a number.
        """
        if not (math.isfinite(entropy) and entropy >= 0):
            raise ParameterError("entropy", f"is {entropy}", "finite, 0 or more")
        below = entropy < self._target
        self._applied = self._next if below else 0.0
        self._next = min(max(self._next + (self._change if below else -self._change), 0.0), self._maximum)
        return self._applied

    def values(self) -> dict[str, float]:
        """Give what to log for the latest update: the coefficient applied."""
        return {"entropy_coef": self._applied}

    def state(self) -> dict[str, float]:
        """Give all that a fresh object of the same parameters needs to continue, JSON-able."""
        return {"entropy_coef": self._applied, "entropy_coef_next": self._next}

    def restore(self, state: Mapping[str, float]) -> None:
        """Continue where another object of the same parameters stopped.

        Parameters
        ----------
        state
            What `state` gave there.

        Raises
        ------
        ParameterError
            When it is the state of something else.
        """
        if set(state) != set(self.state()):
            raise ParameterError("entropy_coef", f"the state to restore holds {', '.join(state)}", "what state() gave")
        self._applied, self._next = state["entropy_coef"], state["entropy_coef_next"]
