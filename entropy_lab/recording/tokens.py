"""Which of the values given are of response tokens: by a mask, by lengths, or by ragged rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from entropy_lab.errors import ParameterError
from entropy_lab.recording.arrays import Rows, TensorLike, array, is_ragged, require_one_each, rows


@dataclass(frozen=True)
class Tokens:
    """How many response tokens B rollouts have, and where they lie in padded arrays.

    Parameters
    ----------
    n_B
        Response tokens of each rollout.
    mask
        True at response tokens; None when padding, if there is any, is on the right.

    Examples
    --------
    >>> tokens = Tokens.of(2, mask=[[1, 1, 0], [1, 0, 0]])
    >>> tokens.take("logps", np.array([[-1.0, -2.0, 0.0], [-3.0, 0.0, 0.0]]))
    array([-1., -2., -3.])
    >>> tokens.sums(tokens.take("logps", [[-1.0, -2.0], [-3.0]]))
    array([-3., -3.])
    """

    n_B: NDArray[np.int64]
    mask: Rows | None

    @classmethod
    def of(
        cls,
        n_rollouts: int,
        mask: TensorLike = None,
        n_tokens: TensorLike = None,
        named: Iterable[tuple[str, TensorLike]] = (),
        mask_name: str = "mask",
    ) -> Tokens | None:
        """Find the tokens of B rollouts.

        Parameters
        ----------
        n_rollouts
            B.
        mask
            1 or True at response tokens; shape (B, T), or rows.
        n_tokens
            Response tokens, shape (B,).
        named
            Values by token with their names: the first that is ragged tells lengths, where nothing else does.
        mask_name
            What errors call the mask.

        Returns
        -------
        Tokens or None
            None when nothing tells.

        Raises
        ------
        ParameterError
            The mask holds other values than 0 and 1, the number of rows is not B, or `n_tokens` is not the mask's.
        """
        found = None if mask is None else _read_mask(mask_name, mask, n_rollouts)
        lengths = None if n_tokens is None else _read_lengths(n_tokens, n_rollouts)
        if found is not None:
            counts = _sums(found.flat, found.n_B).astype(np.int64)
            if lengths is not None and not np.array_equal(lengths, counts):
                row = int(np.flatnonzero(lengths != counts)[0])
                wrong = f"is {lengths[row]} in row {row}, where the mask has {counts[row]} tokens"
                raise ParameterError("n_tokens", wrong, "the number of response tokens")
            return cls(counts, found)
        if lengths is None:
            ragged = next(((name, value) for name, value in named if is_ragged(value)), None)
            if ragged is not None:
                lengths = rows(*ragged).n_B
                require_one_each(ragged[0], len(lengths), n_rollouts)
        return None if lengths is None else cls(lengths, None)

    def take(self, name: str, value: TensorLike) -> NDArray[Any]:
        """Take the response tokens' values, rollout after rollout.

        Parameters
        ----------
        name
            What they are, for the error.
        value
            Of the mask's shape; or rows of the response tokens only; or, without a mask, rows that are padded on the
            right to one length.

        Returns
        -------
        ndarray
            Shape (sum of `n_B`,).

        Raises
        ------
        ParameterError
            The shape is none of these.
        """
        given = rows(name, value)
        require_one_each(name, len(given.n_B), len(self.n_B))
        if self.mask is not None and np.array_equal(given.n_B, self.mask.n_B):
            inside: NDArray[Any] = given.flat[self.mask.flat]
            return inside
        if np.array_equal(given.n_B, self.n_B):
            return given.flat
        rectangular = (given.n_B == given.n_B[0]).all()
        if self.mask is None and rectangular and (given.n_B >= self.n_B).all():
            left: NDArray[Any] = given.flat[_first_of_each(int(given.n_B[0]), self.n_B)]
            return left
        wanted = f"the mask's {self.mask.shape}" if self.mask is not None else "one value for each response token"
        if given.from_array:
            raise ParameterError(name, f"has {given.shape}", f"{wanted}, or a list of rows without padding")
        row = int(np.flatnonzero(given.n_B != self.n_B)[0])
        wrong = f"has {given.n_B[row]} values in row {row}, which has {self.n_B[row]} response tokens"
        raise ParameterError(name, wrong, wanted)

    def sums(self, flat: NDArray[Any]) -> NDArray[np.float64]:
        """Add up each rollout's values, in float64; 0 without tokens."""
        return _sums(flat, self.n_B)

    def lists(self, name: str, flat: NDArray[Any], dtype: pl.DataType) -> pl.Series:
        """Give each rollout's values as a list.

        Parameters
        ----------
        name
            Of the column.
        flat
            From `take`.
        dtype
            Of a value.

        Returns
        -------
        Series
            B lists.
        """
        narrow = pl.Series(flat).cast(dtype).to_numpy()
        ends = np.cumsum(self.n_B)
        cut = [narrow[end - n : end] for end, n in zip(ends.tolist(), self.n_B.tolist(), strict=True)]
        # Rows of one length would become an Array, whatever dtype says.
        return pl.Series(name, cut, dtype=pl.List(dtype)).cast(pl.List(dtype))

    def ranges(self, flat: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Give each rollout's first value and the distance from its smallest to its largest; NaN without tokens."""
        first, spread = np.full((2, len(self.n_B)), np.nan)
        some = self.n_B > 0
        if some.any():
            values = flat.astype(np.float64)
            starts = (np.cumsum(self.n_B) - self.n_B)[some]
            first[some] = values[starts]
            spread[some] = np.maximum.reduceat(values, starts) - np.minimum.reduceat(values, starts)
        return first, spread

    def interrupted(self) -> NDArray[np.bool_]:
        """Tell which rollouts have other tokens between their response tokens: answers of tools, for instance."""
        gaps = np.zeros(len(self.n_B), dtype=np.bool_)
        some = self.n_B > 0
        if self.mask is not None and some.any():
            places = np.flatnonzero(self.mask.flat)
            ends = np.cumsum(self.n_B)[some]
            gaps[some] = places[ends - 1] - places[ends - self.n_B[some]] + 1 != self.n_B[some]
        return gaps


def _read_mask(name: str, mask: TensorLike, n_rollouts: int) -> Rows:
    found = rows(name, mask)
    require_one_each(name, len(found.n_B), n_rollouts)
    inside = found.flat != 0
    if not (inside == (found.flat == 1)).all():
        raise ParameterError(name, f"holds {found.flat[inside & (found.flat != 1)][0]}", "0 or 1, False or True")
    return Rows(inside, found.n_B, found.from_array)


def _read_lengths(n_tokens: TensorLike, n_rollouts: int) -> NDArray[np.int64]:
    lengths = array("n_tokens", n_tokens)
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or (lengths < 0).any():
        raise ParameterError("n_tokens", f"has shape {lengths.shape}, {lengths.dtype}", "(rollouts,), 0 or more each")
    require_one_each("n_tokens", len(lengths), n_rollouts)
    return lengths.astype(np.int64)


def _first_of_each(width: int, n_B: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark the first n entries of each row of a rectangular array."""
    inside: NDArray[np.bool_] = (np.arange(width) < n_B[:, None]).ravel()
    return inside


def _sums(flat: NDArray[Any], n_B: NDArray[np.int64]) -> NDArray[np.float64]:
    row_of = np.repeat(np.arange(len(n_B)), n_B)
    sums: NDArray[np.float64] = np.bincount(row_of, flat.astype(np.float64), len(n_B)).astype(np.float64, copy=False)
    return sums  # without any value, bincount counts in integers
