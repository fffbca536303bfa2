"""What every registered advantage estimator promises, tried on random batches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from entropy_lab.advantages import Estimator, get, names
from entropy_lab.advantages.estimator import INVARIANCES

EXACT = {"rtol": 1e-9, "atol": 1e-9}

CASES = [(name, {}) for name in names()] + [
    ("grpo", {"ddof": 1}),
    ("grpo", {"eps": 1e-3}),
    ("asym_grpo", {"beta_pos": 0.5, "beta_neg": 0.5}),
    ("asym_grpo", {"beta_pos": 0.7, "beta_neg": 0.3}),
    ("asym_grpo", {"beta_pos": 1.0, "beta_neg": 0.0}),
    ("asym_grpo", {"beta_pos": 0.65, "beta_neg": 0.65}),
    ("ent_decrease", {"beta": 0.8}),
    ("pass_at_k", {"k": 2, "eps": 0.0}),
    ("qae", {"K": 0.75}),
    ("qae", {"variant": "released"}),
    ("a_grae", {"alpha": 0.5, "variant": "released"}),
    ("entropy_advantage", {"base": "rloo"}),
    ("entropy_advantage", {"base": "a_grae"}),
]
ESTIMATORS = [pytest.param(get(name, **params), id=f"{name}{params or ''}") for name, params in CASES]

every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS)
few = settings(max_examples=12, deadline=None, database=None)


def values(estimator: Estimator) -> st.SearchStrategy[float]:
    # Rewards on a coarse grid: two that differ do so by far more than rounding, so no property is lost to it.
    return st.sampled_from([0.0, 1.0] if estimator.binary else [-1.0, 0.0, 0.1, 0.5, 1.0, 2.0])


@st.composite
def batches(draw: st.DrawFn, estimator: Estimator) -> np.ndarray:
    size, n_groups = draw(st.integers(4, 9)), draw(st.integers(1, 5))
    row = st.lists(values(estimator), min_size=size, max_size=size)
    return np.array(draw(st.lists(row, min_size=n_groups, max_size=n_groups)))


@st.composite
def ragged(draw: st.DrawFn, estimator: Estimator) -> list[np.ndarray]:
    row = st.lists(values(estimator), min_size=4, max_size=9).map(np.array)
    return draw(st.lists(row, min_size=1, max_size=6))


# --- invariances: exactly those that are declared


def panel(estimator: Estimator) -> np.ndarray:
    """Groups in which an invariance that does not hold in general fails."""
    binary = (np.arange(8) < np.arange(8)[:, None]).astype(float)  # mean reward below 1/2: A-GRAE's cap is felt
    graded = np.random.default_rng(0).normal(size=(9, 8)).round(2)
    return binary if estimator.binary else np.vstack([binary, graded])


def holding(estimator: Estimator) -> set[str]:
    rewards = panel(estimator)
    found = estimator(rewards)
    order = np.random.default_rng(1).permutation(rewards.shape[1])
    checks = {
        "zero_sum": np.allclose(found.sum(axis=1), 0, **EXACT),
        "permutation": np.allclose(estimator(rewards[:, order]), found[:, order], **EXACT),
    }
    if not estimator.binary:  # shifted or scaled, binary rewards are no longer binary
        checks["shift"] = np.allclose(estimator(rewards + 0.75), found, **EXACT)
        checks["scale"] = np.allclose(estimator(rewards * 3.5), found, **EXACT)
    return {name for name, holds in checks.items() if holds}


@every_estimator
def test_an_estimator_declares_exactly_the_invariances_it_has(estimator):
    assert estimator.invariances <= INVARIANCES
    assert estimator.invariances == holding(estimator)


@every_estimator
def test_reordering_a_groups_rollouts_reorders_their_advantages(estimator):
    assert "permutation" in estimator.invariances

    @few
    @given(batches(estimator), st.randoms(use_true_random=False))
    def check(rewards, random):
        order = list(range(rewards.shape[1]))
        random.shuffle(order)
        assert_allclose(estimator(rewards[:, order]), estimator(rewards)[:, order], **EXACT)

    check()


@pytest.mark.parametrize("estimator", [case for case in ESTIMATORS if "zero_sum" in case.values[0].invariances])
def test_advantages_sum_to_zero_in_each_group(estimator):
    @few
    @given(batches(estimator))
    def check(rewards):
        assert_allclose(estimator(rewards).sum(axis=1), 0, **EXACT)

    check()


@pytest.mark.parametrize("estimator", [case for case in ESTIMATORS if "shift" in case.values[0].invariances])
def test_adding_a_constant_of_its_own_to_each_groups_rewards_changes_nothing(estimator):
    @few
    @given(batches(estimator), st.lists(st.floats(-10, 10), min_size=5, max_size=5))
    def check(rewards, shifts):
        shifted = rewards + np.array(shifts)[: len(rewards), None]
        assert_allclose(estimator(shifted), estimator(rewards), rtol=1e-7, atol=1e-7)

    check()


@pytest.mark.parametrize("estimator", [case for case in ESTIMATORS if "scale" in case.values[0].invariances])
def test_multiplying_each_groups_rewards_by_a_positive_number_changes_nothing(estimator):
    @few
    @given(batches(estimator), st.lists(st.floats(1e-3, 1e3), min_size=5, max_size=5))
    def check(rewards, factors):
        scaled = rewards * np.array(factors)[: len(rewards), None]
        assert_allclose(estimator(scaled), estimator(rewards), **EXACT)

    check()


# --- batches


@every_estimator
def test_reordering_the_groups_of_a_batch_reorders_their_advantages(estimator):
    @few
    @given(batches(estimator), st.randoms(use_true_random=False))
    def check(rewards, random):
        order = list(range(len(rewards)))
        random.shuffle(order)
        assert_array_equal(estimator(rewards[order]), estimator(rewards)[order])

    check()


@pytest.mark.parametrize("estimator", [case for case in ESTIMATORS if not case.values[0].reads_batch])
def test_a_group_does_not_see_the_other_groups(estimator):
    @few
    @given(batches(estimator))
    def check(rewards):
        alone = np.vstack([estimator(row[None]) for row in rewards])
        assert_array_equal(estimator(rewards), alone)

    check()


@pytest.mark.parametrize("estimator", [case for case in ESTIMATORS if case.values[0].reads_batch])
def test_those_that_read_the_batch_do_see_them(estimator):
    rewards = np.array([[1.0, 0, 0, 0], [1, 1, 1, 0]])
    assert not np.allclose(estimator(rewards)[:1], estimator(rewards[:1]))


@every_estimator
def test_rollouts_listed_one_by_one_get_what_the_table_of_groups_gets(estimator):
    @few
    @given(batches(estimator), st.randoms(use_true_random=False))
    def check(rewards, random):
        labels = random.sample(range(-1000, 1000), len(rewards))
        groups = np.repeat(labels, rewards.shape[1])
        order = np.array(random.sample(range(rewards.size), rewards.size))
        found = estimator(rewards.reshape(-1)[order], groups[order])
        assert_allclose(found, estimator(rewards).reshape(-1)[order], **EXACT)

    check()


@pytest.mark.parametrize("estimator", [case for case in ESTIMATORS if not case.values[0].reads_batch])
def test_groups_of_unequal_size_get_what_each_gets_alone(estimator):
    @few
    @given(ragged(estimator), st.randoms(use_true_random=False))
    def check(rows, random):
        rewards, groups = np.concatenate(rows), np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        alone = np.concatenate([estimator(row[None])[0] for row in rows])
        order = np.array(random.sample(range(len(rewards)), len(rewards)))
        assert_allclose(estimator(rewards[order], groups[order]), alone[order], **EXACT)

    check()


# --- signs


@every_estimator
def test_no_correct_rollout_is_punished_and_no_wrong_one_reinforced(estimator):
    @few
    @given(st.lists(st.lists(st.booleans(), min_size=8, max_size=8), min_size=1, max_size=4))
    def check(rows):
        rewards = np.array(rows, dtype=float)
        advantage = estimator(rewards)
        assert (advantage[rewards == 1] >= 0).all()
        assert (advantage[rewards == 0] <= 0).all()

    check()


@given(
    advantage=st.floats(-10, 10, allow_subnormal=False),
    entropy=st.floats(0, 20),
    alpha=st.floats(0, 5),
    kappa=st.floats(1.001, 100),
)
@settings(max_examples=200, deadline=None, database=None)
def test_an_entropy_bonus_is_never_negative_and_never_turns_a_sign(advantage, entropy, alpha, kappa):
    shaped = get("entropy_advantage", alpha=alpha, kappa=kappa).at_tokens([advantage], [[entropy]], [[True]])[0, 0]
    assert shaped >= advantage
    assert np.sign(shaped) == np.sign(advantage)
