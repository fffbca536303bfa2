"""Fingerprints against closed forms of the advantages, the gradient masses and the mean advantage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from entropy_lab.advantages import Fingerprint, fingerprint, get, names
from entropy_lab.errors import ParameterError

EXACT = {"rtol": 1e-12, "atol": 1e-12}
P = np.arange(9) / 8


def columns(found: Fingerprint) -> list[np.ndarray]:
    return [found.accuracy, found.positive, found.negative, found.mean, found.mass_positive, found.mass_negative]


@pytest.mark.parametrize("name", names())
def test_arrays_run_over_every_accuracy_of_the_group(name):
    found = fingerprint(get(name))
    assert_array_equal(found.accuracy, P)
    assert all(column.shape == (9,) and column.dtype == np.float64 for column in columns(found))


@pytest.mark.parametrize("name", names())
def test_only_outcomes_that_cannot_occur_are_nan(name):
    found = fingerprint(get(name))
    assert_array_equal(np.isnan(found.positive), P == 0)
    assert_array_equal(np.isnan(found.negative), P == 1)
    assert not any(np.isnan(column).any() for column in (found.mean, found.mass_positive, found.mass_negative))


@pytest.mark.parametrize("name", names())
def test_masses_weigh_the_channels_by_accuracy_and_differ_by_the_mean(name):
    found = fingerprint(get(name))
    assert_allclose(found.mass_positive[1:], (P * found.positive)[1:], **EXACT)
    assert_allclose(found.mass_negative[:-1], (-(1 - P) * found.negative)[:-1], **EXACT)
    assert_allclose(found.mean, found.mass_positive - found.mass_negative, **EXACT)
    assert found.mass_positive[0] == 0
    assert found.mass_negative[-1] == 0


@pytest.mark.parametrize("name", names())
def test_the_mean_is_zero_at_every_accuracy_exactly_for_zero_sum_estimators(name):
    estimator = get(name)
    zero = np.allclose(fingerprint(estimator).mean, 0, **EXACT)
    assert zero == ("zero_sum" in estimator.invariances)


@pytest.mark.parametrize(
    ("name", "params", "mass_positive", "mass_negative"),
    [
        ("reinforce", {}, P, 1 - P),
        ("grpo", {}, np.sqrt(P * (1 - P)), np.sqrt(P * (1 - P))),
        ("dr_grpo", {}, P * (1 - P), P * (1 - P)),
        ("rloo", {}, P * (1 - P) * 8 / 7, P * (1 - P) * 8 / 7),
        ("pos_only", {}, np.sqrt(P * (1 - P)), 1 - P),
        ("neg_only", {}, P, np.sqrt(P * (1 - P))),
        ("asym_grpo", {}, P**0.1 * (1 - P) ** 0.9, P**0.4 * (1 - P) ** 0.6),
        ("psr", {}, P, 0 * P),
        ("nsr", {}, 0 * P, 1 - P),
        ("w_reinforce", {}, 0.1 * P, 1 - P),
    ],
)
def test_masses_have_their_closed_forms(name, params, mass_positive, mass_negative):
    found = fingerprint(get(name, **params))
    assert_allclose(found.mass_positive, mass_positive, **EXACT)
    assert_allclose(found.mass_negative, mass_negative, **EXACT)


def test_qae_has_one_channel_on_each_side_of_its_threshold():
    found = fingerprint(get("qae", K=0.4))
    assert_array_equal(found.mass_positive > 0, (P > 0) & (P <= 0.6))
    assert_array_equal(found.mass_negative > 0, (P > 0.6) & (P < 1))


def test_a_grae_sees_a_mean_reward_of_one_half():
    found = fingerprint(get("a_grae"))
    at_half = 0.25 / math.sqrt(0.5) * 2  # w/2 = (1 − w)/2 = 1/4, and |A0| = 1 at p = 1/2
    assert found.negative[4] == pytest.approx(-at_half, abs=1e-12)
    assert found.positive[4] == pytest.approx(at_half / 2, abs=1e-12)


def test_entropy_advantage_has_the_fingerprint_of_its_base():
    for shaped, plain in zip(
        columns(fingerprint(get("entropy_advantage", base="asym_grpo"))),
        columns(fingerprint(get("asym_grpo"))),
        strict=True,
    ):
        assert_array_equal(shaped, plain)


def test_a_group_of_one_has_two_accuracies():
    found = fingerprint(get("reinforce"), group_size=1)
    assert_array_equal(found.accuracy, [0, 1])
    assert_array_equal(found.positive, [math.nan, 1])
    assert_array_equal(found.negative, [-1, math.nan])


@pytest.mark.parametrize("size", [0, -1, 2.5, True])
def test_group_sizes_that_are_not_positive_integers_are_refused(size):
    with pytest.raises(ParameterError, match=f"group_size is {size}"):
        fingerprint(get("grpo"), group_size=size)


def test_groups_smaller_than_k_have_no_pass_at_k_fingerprint():
    with pytest.raises(ParameterError, match="k is 4 but a group has 3 rollouts"):
        fingerprint(get("pass_at_k"), group_size=3)
