"""Rates of entropy and their contributions: exact softmax policies, identities by enumeration."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entropy_lab.covariance import group_covariance
from entropy_lab.entropy_change import (
    covariance_contributions,
    increment_contributions,
    natural_gradient_rate,
    sampled_token_rate,
    token_contributions,
    vanilla_gradient_rate,
)
from entropy_lab.errors import ParameterError
from tests.softmax_policies import entropy, softmax

logits = st.lists(st.floats(-3, 3), min_size=2, max_size=6).map(np.array)
RATES = {
    natural_gradient_rate: lambda p, a: a,
    vanilla_gradient_rate: lambda p, a: p * (a - p @ a),
}
PAIR = np.array([0.8, 0.2]), np.array([0.2, -0.8])


@st.composite
def policies(draw):
    z = draw(logits)
    return z, np.array(draw(st.lists(st.floats(-2, 2), min_size=len(z), max_size=len(z))))


# Exact rates


@pytest.mark.parametrize("rate", RATES)
@given(policies())
@settings(max_examples=30, deadline=None)
def test_rates_are_the_derivatives_of_entropy(rate, policy):
    z, a = policy
    p = softmax(z)
    dz, step = RATES[rate](p, a), 1e-5
    numeric = (entropy(softmax(z + step * dz)) - entropy(softmax(z - step * dz))) / (2 * step)
    assert rate(p, a) == pytest.approx(numeric, abs=1e-8)


@pytest.mark.parametrize("rate", RATES)
@given(policies(), st.floats(-3, 3))
@settings(max_examples=25, deadline=None)
def test_a_baseline_changes_no_rate(rate, policy, constant):
    z, a = policy
    assert rate(softmax(z), a + constant) == pytest.approx(rate(softmax(z), a), abs=1e-12)


def test_the_known_counterexample():
    p, a = PAIR
    assert vanilla_gradient_rate(p, a) == pytest.approx(-0.070978, abs=5e-7)
    proxy = -(p * a * (1 - p) ** 2) @ (np.log(p) + entropy(p))
    assert proxy == pytest.approx(-0.115340, abs=5e-7)


def test_the_covariance_with_pi_a_holds_for_centred_advantages_only():
    p, a = PAIR
    quoted = [natural_gradient_rate(p, p * (a + constant)) for constant in (0, 0.5, 1)]
    assert quoted[0] == pytest.approx(vanilla_gradient_rate(p, a))  # E A = 0
    assert quoted[1] - quoted[0] == pytest.approx(0.5 * natural_gradient_rate(p, p)) != 0


@given(policies())
@settings(max_examples=25, deadline=None)
def test_sampled_tokens_average_to_the_vanilla_rate(policy):
    z, a = policy
    p = softmax(z)
    rates = np.array([sampled_token_rate(p, k) for k in range(len(p))])
    assert p @ rates == pytest.approx(0, abs=1e-12)
    assert p @ (a * rates) == pytest.approx(vanilla_gradient_rate(p, a), abs=1e-12)


# Contributions


def groups(rng, sizes=(8, 1, 3, 2)):
    n = sum(sizes)
    return -rng.random(n), rng.normal(size=n), np.cumsum((0, *sizes[:-1]))


def test_covariance_parts_add_up_to_minus_the_covariance():
    x, a, starts = groups(np.random.default_rng(0))
    x[9] = np.nan
    parts = covariance_contributions(x, a, starts)
    covariance, _ = group_covariance(x, a, starts)
    assert np.isnan(parts[[8, 9]]).all()
    np.testing.assert_allclose(np.add.reduceat(np.nan_to_num(parts), starts), -np.nan_to_num(covariance), atol=1e-15)


@pytest.mark.parametrize("constant", [0.5, 1.0, -7.0])
def test_a_groups_baseline_changes_no_sum(constant):
    x, a, starts = groups(np.random.default_rng(1), (8, 4))
    shifted = a + constant * (np.arange(12) < 8)
    before, after = (covariance_contributions(x, one, starts).sum() for one in (a, shifted))
    assert after == pytest.approx(before, abs=1e-14)
    group, h = np.repeat([0, 1], [8, 4]), np.abs(x) + 0.1
    before, after = (token_contributions(x, h, one, group, n_bins=3).sum() for one in (a, shifted))
    assert after == pytest.approx(before, abs=1e-14)


def test_increments_of_fresh_rollouts_are_the_change_at_the_new_policys_states():
    """E_old[-(w - 1) Σ (log π + H)] = E_new Σ_t [H_new - H_old + KL_t], over every response of a tree of two tokens."""
    z, moved = np.random.default_rng(3).normal(size=(2, 3, 3))
    old, new = ([softmax(row) for row in rows] for rows in (z, z + 0.7 * moved))
    paths = [(0,), *((first, second) for first in (1, 2) for second in range(3))]  # the action 0 ends the response
    states = [(0, *path[:-1]) for path in paths]  # the root, then the state of the first action
    steps = [list(zip(at, path, strict=True)) for at, path in zip(states, paths, strict=True)]
    logp, after = (np.array([sum(np.log(pi[s][a]) for s, a in path) for path in steps]) for pi in (old, new))
    n = np.array([len(path) for path in paths], float)
    h = np.array([np.mean([entropy(old[s]) for s in at]) for at in states])
    change = [entropy(new[s]) - entropy(old[s]) + new[s] @ np.log(new[s] / old[s]) for s in range(3)]
    expected = np.exp(after) @ [sum(change[s] for s in at) for at in states]
    assert abs(expected) > 0.01
    assert np.exp(logp) @ increment_contributions(logp, after, n, h) == pytest.approx(expected, abs=1e-12)


def test_increments_of_the_rollouts_trained_on_are_too_large():
    """Every outcome of two sampled actions, the update they cause, and the estimate on them and on fresh ones."""
    rng, n, eta = np.random.default_rng(0), 20, 0.1
    z = rng.normal(size=n)
    p, right = softmax(z), z + rng.normal(size=n) > 0
    a = np.where(right, 1.0, -1.0) - p @ np.where(right, 1.0, -1.0)
    seen = fresh = truth = 0.0
    for pair in itertools.product(range(n), repeat=2):
        new = softmax(z + eta * sum(a[k] * (np.eye(n)[k] - p) for k in pair) / 2)
        parts = increment_contributions(np.log(p), np.log(new), np.ones(n), np.full(n, entropy(p)))
        weight = p[pair[0]] * p[pair[1]]
        seen += weight * parts[list(pair)].mean()
        fresh += weight * (p @ parts)
        truth += weight * (entropy(new) - entropy(p) + new @ np.log(new / p))
    assert fresh == pytest.approx(truth, abs=1e-14)
    assert seen / truth > 3


def test_ratios_are_cut_off():
    one = np.ones(1)
    for after in (1.0, 9.0):
        assert increment_contributions(-5 * one, after * one, one, one) == pytest.approx([(10 - 1) * 4])


def test_token_parts_estimate_the_vanilla_rate():
    rng = np.random.default_rng(0)
    p, a = softmax(rng.normal(size=5)), rng.normal(size=5)
    token = rng.choice(5, 40_000, p=p)
    parts = token_contributions(np.log(p)[token], np.full(len(token), entropy(p)), a[token], np.zeros(len(token), int))
    error = parts.std() / len(token) ** 0.5
    assert parts.mean() == pytest.approx(vanilla_gradient_rate(p, a), abs=4 * error)
    assert error < 0.05 * abs(vanilla_gradient_rate(p, a))


def test_no_tokens_no_parts():
    nothing = np.zeros(0)
    assert len(token_contributions(nothing, nothing, nothing, nothing.astype(int))) == 0
    assert len(covariance_contributions(nothing, nothing, nothing.astype(int))) == 0
    with pytest.raises(ParameterError, match="n_bins"):
        token_contributions(nothing, nothing, nothing, nothing.astype(int), n_bins=0)
