"""What an advantage estimator is, and the machinery that every one of them shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from entropy_lab.advantages.arrays import Array, Mask, group_indices, numbers, rectangular, rewards_array
from entropy_lab.errors import ParameterError

Kernel = Callable[[Array, float], Array]
"""Advantages (n, G) of n groups of one size from their rewards (n, G) and the mean reward of the whole batch."""

TokenAdvantage = Callable[[Array, Array, Mask], Array]
"""Advantages (B, T) of tokens from their rollouts' (B, 1), the tokens' entropies (B, T) and the mask (B, T)."""

INVARIANCES: Final = frozenset({"zero_sum", "shift", "scale", "permutation"})


def _every_rollout(rewards: Array) -> Mask:
    return np.ones(rewards.shape, dtype=np.bool_)


@dataclass(frozen=True)
class Estimator:
    """Advantages of rollouts from the rewards of their groups.

    Two estimators are equal when name and parameters are.

    Parameters
    ----------
    name
        The name that `get` knows it by.
    params
        Every parameter with its value, defaults included; read-only.
    formula
        One printable line, with r the reward, p the group accuracy and the parameters' values filled in.
    reference
        arXiv number and equation.
    label
        Short name for a legend.
    kernel
        The numbers: see `Kernel`.
    binary
        True when only rewards in {0, 1} make sense.
    invariances
        What is promised, out of ``zero_sum`` (advantages of a group sum to 0), ``shift`` and ``scale`` (adding a
        constant to a group's rewards, or multiplying them by a positive one, changes nothing) and ``permutation``
        (reordering the rollouts of a group reorders their advantages).
    aggregation
        The loss aggregation that its paper prescribes.
    kept
        The rollouts that enter the loss, from rewards of any shape.
    token_advantage
        Advantage of each token (B, T) from advantages (B, 1), token entropies (B, T) in nats, 0 outside the mask, and
        the mask (B, T) of response tokens; None where each token gets its rollout's own.
    reads_batch
        True when a group's advantages depend on the mean reward of the batch too.

    Examples
    --------
    >>> from entropy_lab.advantages import get
    >>> grpo = get("grpo")
    >>> grpo.formula, grpo.label
    ('A = (r − r̄) / s', 'GRPO')
    >>> grpo([[1, 0, 0, 0, 0]])
    array([[ 2. , -0.5, -0.5, -0.5, -0.5]])
    """

    name: str
    params: Mapping[str, float | int | str] = field(hash=False)
    formula: str = field(compare=False)
    reference: str = field(compare=False)
    label: str = field(compare=False)
    kernel: Kernel = field(compare=False, repr=False)
    binary: bool = field(compare=False)
    invariances: frozenset[str] = field(default=frozenset({"permutation"}), compare=False)
    aggregation: str = field(default="token-mean", compare=False)
    kept: Callable[[Array], Mask] = field(default=_every_rollout, compare=False, repr=False)
    token_advantage: TokenAdvantage | None = field(default=None, compare=False, repr=False)
    reads_batch: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", MappingProxyType(dict(self.params)))

    def __call__(self, rewards: ArrayLike, groups: ArrayLike | None = None) -> Array:
        """Advantage of every rollout of a batch.

        Parameters
        ----------
        rewards
            Shape (groups, G); or (rollouts,) when groups differ in size.
        groups
            With 1-D rewards, the group index of each rollout: any integers, in any order.

        Returns
        -------
        ndarray
            Shape of ``rewards``, float64, any sign; empty for an empty batch. What a group of one gets is said by
            each estimator.

        Raises
        ------
        ParameterError
            When rewards are not finite, lie outside {0, 1} although the estimator is binary, do not fit the groups,
            or when an advantage overflows.

        Examples
        --------
        >>> from entropy_lab.advantages import get
        >>> get("dr_grpo")([1, 0, 0, 0, 1], groups=[7, 7, 7, 7, 2])
        array([ 0.75, -0.25, -0.25, -0.25,  0.  ])
        """
        values = rewards_array(self.name, rewards, binary=self.binary)
        flat = values.reshape(-1)
        advantage = np.zeros_like(flat)
        batch_mean = float(flat.mean()) if flat.size else 0.0
        for index in group_indices(self.name, values.shape, groups):
            if index.size:
                with np.errstate(over="ignore", invalid="ignore"):
                    advantage[index] = self.kernel(flat[index], batch_mean)
        return self._finite(advantage).reshape(values.shape) + 0.0  # -0.0 would print as "-0."

    def keep(self, rewards: ArrayLike) -> Mask:
        """Tell which rollouts enter the loss at all; the tokens of the others leave the token mean's denominator.

        Parameters
        ----------
        rewards
            Shape (groups, G) or (rollouts,).

        Returns
        -------
        ndarray of bool
            Shape of ``rewards``. All True but for ``psr`` (rewards of 1 only) and ``nsr`` (rewards of 0 only).

        Raises
        ------
        ParameterError
            As for the call.

        Examples
        --------
        >>> from entropy_lab.advantages import get
        >>> get("psr").keep([1, 0, 1]), get("grpo").keep([1, 0, 1])
        (array([ True, False,  True]), array([ True,  True,  True]))
        """
        return self.kept(rewards_array(self.name, rewards, binary=self.binary))

    def at_tokens(self, advantage: ArrayLike, entropy: ArrayLike | None, mask: ArrayLike) -> Array:
        """Advantage of every response token; the rollout's own, unless the estimator tells tokens apart.

        Parameters
        ----------
        advantage
            Rollout-level advantages, shape (B,).
        entropy
            Token entropies in nats, shape (B, T); read only by estimators that tell tokens apart, and only where
            ``mask`` is True. May be None for all others.
        mask
            True (or 1) at response tokens, shape (B, T).

        Returns
        -------
        ndarray
            Shape (B, T), float64; 0 where ``mask`` is False.

        Raises
        ------
        ParameterError
            When shapes do not fit, a value that is read is not finite, an entropy is needed and missing, or an
            advantage overflows.

        Examples
        --------
        >>> from entropy_lab.advantages import get
        >>> get("grpo").at_tokens([1.0, -2.0], None, [[1, 1], [1, 0]])
        array([[ 1.,  1.],
               [-2.,  0.]])
        """
        rollout = numbers(self.name, "advantages", advantage)
        inside = _token_mask(self.name, mask)
        if rollout.ndim != 1 or inside.shape[0] != rollout.shape[0]:
            wrong = f"advantages have shape {rollout.shape} and the mask has shape {inside.shape}"
            raise ParameterError(self.name, wrong, "(B,) and (B, T)")
        column = rollout[:, None]
        if self.token_advantage is None:
            return np.where(inside, column, 0.0)
        with np.errstate(over="ignore", invalid="ignore"):
            token = self.token_advantage(column, self._entropy(entropy, inside), inside)
        return self._finite(np.where(inside, token, 0.0))

    def _finite(self, advantage: Array) -> Array:
        """Refuse advantages that overflowed."""
        if not np.isfinite(advantage).all():
            raise ParameterError(self.name, f"an advantage overflows with {dict(self.params)}", "moderate exponents")
        return advantage

    def _entropy(self, entropy: ArrayLike | None, inside: Mask) -> Array:
        """Token entropies with 0 at masked positions, where a padded array may hold anything, NaN included."""
        if entropy is None:
            raise ParameterError(self.name, "token entropies are missing", f"an array of shape {inside.shape}")
        given = rectangular(self.name, "entropies", entropy)
        if given.shape != inside.shape:
            raise ParameterError(self.name, f"entropies have shape {given.shape}", f"{inside.shape}, as the mask")
        return numbers(self.name, "entropies", np.where(inside, given, 0))


def _token_mask(where: str, mask: ArrayLike) -> Mask:
    """Read a (B, T) mask of Booleans, or of zeros and ones."""
    values = numbers(where, "mask values", mask)
    if values.ndim != 2 or not ((values == 0) | (values == 1)).all():
        raise ParameterError(where, f"the mask has shape {values.shape}", "(B, T), True or 1 at response tokens")
    inside: Mask = values == 1
    return inside
