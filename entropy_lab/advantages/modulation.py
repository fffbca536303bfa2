"""Advantages that change during training: what the trainer asks before every update, and the answer that never changes.

An `Estimator` is a function of rewards. A `Modulation` gives the estimator of each update, from the step and from the
policy's entropy; an estimator that stays is a `Constant` one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from entropy_lab.advantages.estimator import Estimator
from entropy_lab.errors import ParameterError


@dataclass(eq=False)
class Modulation(ABC):
    """An advantage estimator that may change from one policy update to the next.

    Ask `at` once for every update, in order; then `values` are those of that update, and `state` is what a checkpoint
    made after it has to hold.

    Parameters
    ----------
    name
        The name that `modulation` knows it by.
    params
        Every parameter with its value, defaults included; read-only.
    formula
        One printable line.
    reference
        arXiv number and equation.
    label
        Short name for a legend.
    initial
        The estimator of the first update. What the later ones share with it (their loss aggregation, the group sizes
        that they take) can be read from it without counting as an update.

    Examples
    --------
    >>> from entropy_lab.advantages import modulation
    >>> schedule = modulation("asym_grpo_schedule", shape="linear")
    >>> [schedule.at(step, steps=3, entropy=0.4).label for step in range(3)]
    ['AsymGRPO 0.9/0.4', 'AsymGRPO 0.7/0.45', 'AsymGRPO 0.5/0.5']
    >>> schedule.values()
    {'beta_pos': 0.5, 'beta_neg': 0.5}
    """

    name: str
    params: Mapping[str, float | int | str]
    formula: str
    reference: str
    label: str
    initial: Estimator

    def __post_init__(self) -> None:
        self.params = MappingProxyType(dict(self.params))

    @property
    def aggregation(self) -> str:
        """The loss aggregation that its paper prescribes, the same at every update."""
        return self.initial.aggregation

    @abstractmethod
    def at(self, step: int, steps: int, entropy: float) -> Estimator:
        """Give the estimator of an update.

        Parameters
        ----------
        step
            Index of the update, from 0.
        steps
            Number of updates of the whole run.
        entropy
            Policy entropy of the update's rollouts, before the update: mean over response tokens, nats/token.

        Returns
        -------
        Estimator
            With the loss aggregation of ``initial``.

        Raises
        ------
        ParameterError
            When it depends on a number that makes no sense.
        """

    def values(self) -> dict[str, float]:
        """Give what to log for the latest update, by name in ``schema.METRICS``; empty for what never changes."""
        return {}

    def state(self) -> dict[str, float]:
        """Give all that a fresh object of the same parameters needs to continue, JSON-able; empty for nothing."""
        return {}

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

        Examples
        --------
        >>> from entropy_lab.advantages import modulation
        >>> modulation("grpo").restore({"beta_pos": 0.5})
        Traceback (most recent call last):
        entropy_lab.errors.ParameterError: grpo: the state to restore holds beta_pos; expected nothing
        """
        self._require(state, ())

    def _require(self, state: Mapping[str, float], expected: tuple[str, ...]) -> None:
        """Refuse a state with other names than expected."""
        if set(state) != set(expected):
            wrong = f"the state to restore holds {', '.join(sorted(state)) or 'nothing'}"
            raise ParameterError(self.name, wrong, f"expected {', '.join(expected) or 'nothing'}")


class Constant(Modulation):
    """One estimator at every update.

    Parameters
    ----------
    estimator
        The estimator; name, parameters, formula, reference and label are its own.

    Examples
    --------
    >>> from entropy_lab.advantages import get
    >>> grpo = Constant(get("grpo"))
    >>> grpo.at(7, steps=10, entropy=0.4) is grpo.initial, grpo.label, grpo.values(), grpo.state()
    (True, 'GRPO', {}, {})
    """

    def __init__(self, estimator: Estimator) -> None:
        e = estimator
        super().__init__(e.name, e.params, e.formula, e.reference, e.label, initial=e)

    def at(self, step: int, steps: int, entropy: float) -> Estimator:
        """Give the estimator, whatever the step and the entropy."""
        return self.initial
