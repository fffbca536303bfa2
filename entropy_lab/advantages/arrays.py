"""Arrays at the door of an estimator: rewards, group indices and token arrays, checked once and never again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from entropy_lab.errors import ParameterError

_RAGGED: Final = "groups of unequal size: pass 1-D rewards and an integer group index for each of them"

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Indices = NDArray[np.int64]


def rectangular(where: str, what: str, values: ArrayLike) -> NDArray[Any]:
    """Read an array of any dtype.

    Parameters
    ----------
    where
        Name of the estimator, for the message.
    what
        Name of the argument, for the message.
    values
        Array of any shape.

    Returns
    -------
    ndarray
        The same values, in their own dtype.

    Raises
    ------
    ParameterError
        When rows differ in length.

    Examples
    --------
    >>> rectangular("grpo", "groups", [3, 3, 7])
    array([3, 3, 7])
    """
    try:
        return np.asarray(values)
    except ValueError:
        raise ParameterError(where, f"{what} are not a rectangular array", "rows of one length", _RAGGED) from None


def numbers(where: str, what: str, values: ArrayLike) -> Array:
    """Read finite numbers (or Booleans) as float64.

    Parameters
    ----------
    where
        Name of the estimator, for the message.
    what
        Name of the argument, for the message.
    values
        Array of any shape.

    Returns
    -------
    ndarray
        The same values and shape, float64.

    Raises
    ------
    ParameterError
        When the values are not numbers, not rectangular, or not finite (NaN included).

    Examples
    --------
    >>> numbers("grpo", "rewards", [[True, False]])
    array([[1., 0.]])
    """
    array = rectangular(where, what, values)
    if array.dtype.kind not in "biuf":
        raise ParameterError(where, f"{what} have dtype {array.dtype}", "finite numbers or Booleans")
    result = array.astype(np.float64)
    if not np.isfinite(result).all():
        bad = result[~np.isfinite(result)].flat[0]
        raise ParameterError(where, f"{what} contain {bad}", "finite numbers")
    return result


def rewards_array(where: str, rewards: ArrayLike, *, binary: bool) -> Array:
    """Read rewards, of shape (groups, G) or (rollouts,).

    Parameters
    ----------
    where
        Name of the estimator, for the message.
    rewards
        Shape (groups, G) or (rollouts,).
    binary
        True when only rewards in {0, 1} make sense.

    Returns
    -------
    ndarray
        The same shape, float64.

    Raises
    ------
    ParameterError
        When the rewards are not finite numbers, not 1-D or 2-D, or outside {0, 1} where that is asked for.

    Examples
    --------
    >>> rewards_array("psr", [1, 0, 1], binary=True)
    array([1., 0., 1.])
    """
    values = numbers(where, "rewards", rewards)
    if values.ndim not in (1, 2):
        raise ParameterError(where, f"rewards have shape {values.shape}", "(groups, G) or (rollouts,)")
    outside = (values != 0) & (values != 1)
    if binary and outside.any():
        wrong = f"rewards contain {values[outside].flat[0]:g}"
        raise ParameterError(where, wrong, "rewards in {0, 1}", "grpo, dr_grpo, rloo and qae take graded rewards")
    return values


def group_indices(where: str, shape: tuple[int, ...], groups: ArrayLike | None) -> Iterator[Indices]:
    """Walk over the groups of a batch, those of one size together.

    Parameters
    ----------
    where
        Name of the estimator, for the message.
    shape
        Shape of the rewards: (groups, G), or (rollouts,).
    groups
        Group index of each rollout, shape (rollouts,), any integers in any order; None with 2-D rewards.

    Yields
    ------
    ndarray
        Flat positions of the rollouts of all groups of one size, shape (n_groups, size).

    Raises
    ------
    ParameterError
        When 1-D rewards come without groups, 2-D ones with groups, or the lengths differ.

    Examples
    --------
    >>> [index.tolist() for index in group_indices("grpo", (5,), [7, 3, 7, 3, -1])]
    [[[4]], [[1, 3], [0, 2]]]
    """
    if groups is None:
        if len(shape) == 1 and shape != (0,):
            raise ParameterError(where, f"rewards of shape {shape} came without groups", "", _RAGGED)
        yield np.arange(np.prod(shape), dtype=np.int64).reshape(shape if len(shape) == 2 else (0, 1))
        return
    index = rectangular(where, "groups", groups)
    if index.shape != shape or len(shape) != 1:
        wrong = f"rewards have shape {shape} and groups have shape {index.shape}"
        raise ParameterError(where, wrong, "groups go with 1-D rewards, one index for each rollout")
    if index.size and index.dtype.kind not in "iu":
        raise ParameterError(where, f"groups have dtype {index.dtype}", "integers")
    yield from _buckets(index)


def _buckets(groups: NDArray[np.integer]) -> Iterator[Indices]:
    """Gather groups of equal size, so that a kernel sees rectangles only."""
    order = np.argsort(groups, kind="stable")
    _, starts, sizes = np.unique(groups[order], return_index=True, return_counts=True)
    for size in np.unique(sizes):
        yield order[starts[sizes == size][:, None] + np.arange(size)]
