"""Modulation of the tokens with the highest entropy, against sorted lists and the two estimators that it mixes."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from entropy_lab.advantages import get
from entropy_lab.advantages.token_modulation import highest
from entropy_lab.errors import ParameterError
from entropy_lab.plots.series import family

EXACT = {"rtol": 1e-12, "atol": 1e-12}
REWARDS = (np.arange(8) < np.arange(9)[:, None]).astype(float)  # a group of each accuracy


def token_arrays(rng: np.random.Generator, width: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Advantages of 9 x 8 rollouts, entropies on a coarse grid (ties) with rubbish at padding, and the mask."""
    lengths = rng.integers(1, width + 1, REWARDS.size)
    inside = np.arange(width) < lengths[:, None]
    entropy = np.where(inside, rng.integers(0, 6, inside.shape) / 4, math.nan)
    return get("grpo")(REWARDS).reshape(-1), entropy, inside


def brute_force(entropy: np.ndarray, inside: np.ndarray, share: str) -> set[tuple[int, int]]:
    """The selected tokens by sorting a list; Python's sort keeps the order of equals."""
    tokens = [(float(-entropy[b, t]), b, t) for b in range(len(inside)) for t in range(inside.shape[1]) if inside[b, t]]
    chosen = sorted(tokens, key=lambda token: token[0])[: math.ceil(Fraction(share) * len(tokens))]
    return {(b, t) for _, b, t in chosen}


@pytest.mark.parametrize("share", ["0", "0.07", "0.2", "0.5", "1"])
@pytest.mark.parametrize("seed", range(4))
def test_the_selected_tokens_are_the_first_of_the_sorted_list(share, seed):
    _, entropy, inside = token_arrays(np.random.default_rng(seed))
    selected = highest(entropy, inside, float(share))
    assert set(zip(*map(list, np.nonzero(selected)), strict=True)) == brute_force(entropy, inside, share)


@pytest.mark.parametrize(
    ("n_tokens", "share", "expected"), [(100, 0.07, 7), (15, 0.2, 3), (11, 0.2, 3), (1, 1e-12, 1), (5, 0, 0), (0, 1, 0)]
)
def test_exactly_the_ceiling_of_the_share_is_selected_even_among_equals(n_tokens, share, expected):
    inside = np.arange(128).reshape(4, 32) < n_tokens
    selected = highest(np.ones((4, 32)), inside, share)
    assert_array_equal(np.flatnonzero(selected), np.arange(expected))


@given(share=st.floats(0, 1), seed=st.integers(0, 5), extra=st.integers(1, 9))
@settings(max_examples=40, deadline=None, database=None)
def test_padding_changes_no_selection(share, seed, extra):
    _, entropy, inside = token_arrays(np.random.default_rng(seed))
    padded = np.pad(entropy, ((0, 0), (0, extra)), constant_values=99.0)
    wider = highest(padded, np.pad(inside, ((0, 0), (0, extra))), share)
    assert_array_equal(wider[:, : inside.shape[1]], highest(entropy, inside, share))
    assert not wider[:, inside.shape[1] :].any()


@pytest.mark.parametrize(("beta_pos", "beta_neg"), [(0.9, 0.4), (0.5, 0.5), (0.25, 1.5)])
@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_selected_tokens_get_asym_grpo_and_the_others_grpo(beta_pos, beta_neg, share):
    _, entropy, inside = token_arrays(np.random.default_rng(7))
    estimator = get("token_asym_grpo", beta_pos=beta_pos, beta_neg=beta_neg, share=share)
    found = estimator.at_tokens(estimator(REWARDS).reshape(-1), entropy, inside)
    everywhere, elsewhere = (
        get(name, **params)(REWARDS).reshape(-1, 1)
        for name, params in (("asym_grpo", {"beta_pos": beta_pos, "beta_neg": beta_neg}), ("grpo", {}))
    )
    expected = np.where(highest(entropy, inside, share), everywhere, elsewhere)
    assert_allclose(found, np.where(inside, expected, 0), **EXACT)


def test_an_entropy_bonus_is_added_to_the_modulated_advantage():
    advantage, entropy, inside = token_arrays(np.random.default_rng(3))
    own = get("token_asym_grpo").at_tokens(advantage, entropy, inside)
    found = get("entropy_advantage", base="token_asym_grpo").at_tokens(advantage, entropy, inside)
    bonus = np.minimum(0.4 * np.where(inside, entropy, 0), np.abs(own) / 2)
    assert_allclose(found, own + bonus, **EXACT)


def test_an_overflow_at_a_token_is_an_error():
    estimator = get("token_asym_grpo", beta_pos=1000)
    advantage = estimator(REWARDS[1:2])[0, :1]
    with pytest.raises(ParameterError, match="token_asym_grpo: an advantage overflows"):
        estimator.at_tokens(advantage, [[1.0]], [[True]])


def test_it_is_a_method_of_its_own_in_figures():
    estimator = get("token_asym_grpo")
    assert family(estimator.label, estimator.name, estimator.params) == "token_asym_grpo"
