"""Advantage estimators against closed forms, worked values, brute force, and their errors."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import zscore

from entropy_lab.advantages import Estimator, get, names
from entropy_lab.errors import ParameterError
from tests.solved_groups import GROUP, all_groups, group

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def outcomes(estimator: Estimator, correct: int, size: int = GROUP) -> tuple[float, float]:
    """Advantage of a correct and of a wrong rollout; NaN where there is none."""
    advantage = estimator(group(correct, size))[0]
    return (advantage[0] if correct else math.nan, advantage[-1] if correct < size else math.nan)


# --- the beta family and its special points


@pytest.mark.parametrize("correct", range(1, GROUP))
@pytest.mark.parametrize(("beta_pos", "beta_neg"), [(0.9, 0.4), (0.65, 0.65), (0.7, 0.4), (1.5, 0.75)])
def test_asym_grpo_is_the_odds_to_a_power(correct, beta_pos, beta_neg):
    p = correct / GROUP
    expected = (math.exp(beta_pos * math.log((1 - p) / p)), -math.exp(beta_neg * math.log(p / (1 - p))))
    assert_allclose(outcomes(get("asym_grpo", beta_pos=beta_pos, beta_neg=beta_neg), correct), expected, **EXACT)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 64])
def test_exponents_of_one_half_are_grpo(size):
    half = get("asym_grpo", beta_pos=0.5, beta_neg=0.5)
    assert_allclose(half(all_groups(size)), get("grpo")(all_groups(size)), **EXACT)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 64])
def test_exponents_of_zero_are_reinforce(size):
    rewards = all_groups(size)
    assert_array_equal(get("asym_grpo", beta_pos=0, beta_neg=0)(rewards), 2 * rewards - 1)
    assert_array_equal(get("reinforce")(rewards), 2 * rewards - 1)


@pytest.mark.parametrize("beta", [0.0, 0.25, 0.5, 0.75, 2.0])
def test_pos_only_and_neg_only_are_points_of_asym_grpo(beta):
    rewards = all_groups()
    assert_allclose(
        get("pos_only", beta_pos=beta)(rewards), get("asym_grpo", beta_pos=beta, beta_neg=0)(rewards), **EXACT
    )
    assert_allclose(
        get("neg_only", beta_neg=beta)(rewards), get("asym_grpo", beta_pos=0, beta_neg=beta)(rewards), **EXACT
    )


@pytest.mark.parametrize("correct", range(1, GROUP))
def test_grpo_is_the_root_of_the_odds_for_binary_rewards(correct):
    p = correct / GROUP
    assert_allclose(outcomes(get("grpo"), correct), (math.sqrt((1 - p) / p), -math.sqrt(p / (1 - p))), **EXACT)


@pytest.mark.parametrize("name", ["reinforce", "grpo", "asym_grpo", "pos_only", "neg_only", "ent_decrease"])
def test_at_accuracy_one_half_every_member_of_the_beta_family_is_plus_or_minus_one(name):
    assert_allclose(outcomes(get(name), GROUP // 2), (1.0, -1.0), **EXACT)


@pytest.mark.parametrize(
    ("beta_pos", "beta_neg", "all_correct", "none_correct"),
    [(0.9, 0.4, 0.0, 0.0), (0.0, 0.4, 1.0, 0.0), (0.9, 0.0, 0.0, -1.0), (0.0, 0.0, 1.0, -1.0)],
)
def test_at_the_boundaries_zero_to_the_zero_is_one(beta_pos, beta_neg, all_correct, none_correct):
    estimator = get("asym_grpo", beta_pos=beta_pos, beta_neg=beta_neg)
    assert_array_equal(estimator(group(GROUP)), np.full((1, GROUP), all_correct))
    assert_array_equal(estimator(group(0)), np.full((1, GROUP), none_correct))


# --- flipped curves


def test_flipped_positive_curve_has_the_papers_worked_values():
    curve = [outcomes(get("ent_decrease"), correct)[0] for correct in (6, 7, 8)]
    assert_allclose(curve, [math.sqrt(3), math.sqrt(7), 2 * math.sqrt(7) - math.sqrt(3)], **EXACT)
    assert_allclose(curve, [1.732051, 2.645751, 3.559452], atol=5e-7)


def test_flipped_negative_curve_mirrors_the_positive_one():
    decrease, increase = get("ent_decrease"), get("ent_increase")
    assert outcomes(increase, 0)[1] == pytest.approx(-3.559452, abs=5e-7)
    for correct in range(GROUP + 1):
        mirrored = outcomes(decrease, GROUP - correct)
        assert_allclose(outcomes(increase, correct), (-mirrored[1], -mirrored[0]), **EXACT)


@pytest.mark.parametrize("beta", [0.25, 0.5, 0.8])
def test_a_flip_leaves_the_other_channel_and_reflects_its_own(beta):
    plain = get("asym_grpo", beta_pos=beta, beta_neg=beta)
    decrease, increase = get("ent_decrease", beta=beta), get("ent_increase", beta=beta)
    for correct in range(1, GROUP):
        positive, negative = outcomes(plain, correct)
        reflected = outcomes(plain, GROUP - correct)
        assert_allclose(outcomes(decrease, correct), (reflected[0], negative), **EXACT)
        assert_allclose(outcomes(increase, correct), (positive, reflected[1]), **EXACT)


@pytest.mark.parametrize("name", ["ent_decrease", "ent_increase"])
def test_flips_with_exponent_zero_are_reinforce_at_every_group_size(name):
    for size in (1, 2, 3, 8):
        assert_array_equal(get(name, beta=0)(all_groups(size)), get("reinforce")(all_groups(size)))


def test_the_smallest_groups_extend_the_last_step_of_their_own_grid():
    assert outcomes(get("ent_decrease"), 2, 2)[0] == pytest.approx(2 * 1 - 0)
    assert outcomes(get("ent_decrease"), 3, 3)[0] == pytest.approx(2 * math.sqrt(2) - math.sqrt(0.5))


# --- centred estimators


@pytest.mark.parametrize("ddof", [0, 1])
def test_grpo_of_graded_rewards_is_the_z_score(ddof):
    rewards = np.random.default_rng(0).normal(size=(20, 6))
    assert_allclose(get("grpo", ddof=ddof)(rewards), zscore(rewards, axis=1, ddof=ddof), **EXACT)


def test_grpo_epsilon_is_added_to_the_standard_deviation():
    assert_allclose(get("grpo", eps=0.5)([[1, 0]]), [[0.5, -0.5]], **EXACT)
    assert_allclose(get("grpo", ddof=1, eps=0.25)([[1, 0]]), np.array([[0.5, -0.5]]) / (math.sqrt(0.5) + 0.25), **EXACT)


@pytest.mark.parametrize("params", [{}, {"ddof": 1}, {"ddof": 1, "eps": 1e-12}])
def test_equal_rewards_get_exactly_zero_even_where_their_mean_rounds(params):
    rewards = np.full((1, 3), 0.1)
    assert rewards.mean() != 0.1, "the case is only of interest when the mean rounds"
    assert_array_equal(get("grpo", **params)(rewards), np.zeros((1, 3)))
    assert_array_equal(get("qae")(rewards), np.zeros((1, 3)))


def test_dr_grpo_subtracts_the_mean_and_nothing_else():
    assert_allclose(
        get("dr_grpo")([[1, 0, 0, 0], [3, 1, 1, 1]]), [[0.75, -0.25, -0.25, -0.25], [1.5, -0.5, -0.5, -0.5]]
    )


def test_rloo_compares_with_the_mean_of_the_others():
    rewards = np.random.default_rng(1).normal(size=(10, 5))
    expected = [[row[i] - np.delete(row, i).mean() for i in range(5)] for row in rewards]
    assert_allclose(get("rloo")(rewards), expected, **EXACT)


# --- pass@k


def subset_mean_advantages(rewards: tuple[int, ...], k: int) -> list[float]:
    """Standardise the reward of every k-subset, then average over the subsets that hold each rollout."""
    subsets = list(combinations(range(len(rewards)), k))
    passed = np.array([max(rewards[i] for i in subset) for subset in subsets], dtype=float)
    if passed.std() == 0:
        return [0.0] * len(rewards)
    standardised = (passed - passed.mean()) / passed.std()
    holds = np.array([[i in subset for subset in subsets] for i in range(len(rewards))])
    return [float(standardised[row].mean()) for row in holds]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_pass_at_k_is_the_mean_over_all_subsets(size):
    for k in range(1, size + 1):
        estimator = get("pass_at_k", k=k, eps=0)
        for correct in range(size + 1):
            rewards = group(correct, size)
            expected = subset_mean_advantages(tuple(int(r) for r in rewards[0]), k)
            assert_allclose(estimator(rewards)[0], expected, **EXACT)


def test_pass_at_k_sums_to_zero_in_every_group():
    for k in range(1, GROUP + 1):
        assert_allclose(get("pass_at_k", k=k)(all_groups()).sum(axis=1), 0, atol=1e-12)


def test_pass_at_k_is_zero_when_every_subset_passes_or_none_does():
    estimator = get("pass_at_k", k=4, eps=0)
    for correct in (0, 5, 6, 7, 8):
        assert_array_equal(estimator(group(correct)), np.zeros((1, GROUP)))
    assert np.abs(estimator(group(4))).min() > 0


def test_pass_at_one_is_grpo():
    assert_allclose(get("pass_at_k", k=1, eps=0)(all_groups()), get("grpo")(all_groups()), **EXACT)


def test_pass_at_k_epsilon_is_added_to_the_standard_deviation():
    sigma = math.sqrt(0.5 * 0.5)  # one correct rollout of four: half of the pairs hold it
    plain, damped = get("pass_at_k", k=2, eps=0), get("pass_at_k", k=2, eps=0.1)
    assert_allclose(damped(group(1, 4)), plain(group(1, 4)) * sigma / (sigma + 0.1), **EXACT)


def test_pass_at_k_refuses_groups_smaller_than_k():
    with pytest.raises(ParameterError, match="k is 4 but a group has 3 rollouts"):
        get("pass_at_k")([[1, 0, 0]])
    with pytest.raises(ParameterError, match="k is 4 but a group has 1 rollouts"):
        get("pass_at_k")([1, 0, 0, 0, 1], groups=[0, 0, 0, 0, 1])


def test_pass_at_k_stays_finite_in_large_groups():
    advantage = get("pass_at_k", k=256)(all_groups(1024))
    assert np.isfinite(advantage).all()
    assert_allclose(advantage.sum(axis=1), 0, atol=1e-9)


# --- signed weights


def test_signed_estimators_weigh_by_outcome_alone():
    rewards = all_groups()
    assert_array_equal(get("psr")(rewards), rewards)
    assert_array_equal(get("nsr")(rewards), rewards - 1)
    assert_array_equal(get("w_reinforce")(rewards), np.where(rewards == 1, 0.1, -1))
    assert_array_equal(get("w_reinforce", lam=1)(rewards), get("reinforce")(rewards))


@pytest.mark.parametrize("name", names())
def test_only_psr_and_nsr_drop_rollouts(name):
    rewards = np.array([[1, 0, 1, 0]])
    expected = {"psr": rewards == 1, "nsr": rewards == 0}.get(name, np.ones((1, 4), dtype=bool))
    kept = get(name).keep(rewards)
    assert kept.dtype == np.bool_
    assert_array_equal(kept, expected)
    assert_array_equal(get(name).keep(rewards[0]), expected[0])


@pytest.mark.parametrize("name", ["psr", "nsr"])
def test_dropped_rollouts_have_no_advantage(name):
    estimator = get(name)
    rewards = all_groups()
    assert_array_equal(estimator(rewards) != 0, estimator.keep(rewards))


# --- qae


@pytest.mark.parametrize("level", [0.25, 0.4, 0.6, 0.75])
def test_qae_reinforces_successes_up_to_accuracy_one_minus_k_and_punishes_failures_above(level):
    for size in (4, 5, 20):
        for correct in range(1, size):
            p, spread = correct / size, math.sqrt(correct * (size - correct)) / size
            hard = correct <= round((1 - level) * size, 9)
            expected = (1 / spread, 0.0) if hard else (0.0, -1 / spread)
            assert_allclose(outcomes(get("qae", K=level), correct, size), expected, err_msg=f"p = {p}", **EXACT)


def test_qae_at_the_threshold_itself_is_still_hard():
    assert_allclose(outcomes(get("qae", K=0.4), 3, 5), (1 / math.sqrt(0.24), 0.0), **EXACT)
    assert_allclose(outcomes(get("qae", K=0.07), 93, 100), (1 / math.sqrt(0.93 * 0.07), 0.0), **EXACT)


def test_qae_of_graded_rewards_uses_the_inverse_distribution_function():
    rewards = np.random.default_rng(2).normal(size=(30, 7))
    for level in (0.1, 0.4, 0.5, 0.9):
        baseline = np.quantile(rewards, level, axis=1, keepdims=True, method="inverted_cdf")
        expected = (rewards - baseline) / rewards.std(axis=1, keepdims=True)
        assert_allclose(get("qae", K=level)(rewards), expected, **EXACT)


def test_qae_as_released_interpolates_between_order_statistics():
    # Ordered rewards 0 0 1 1 1: position 0.4 * 4 = 1.6 lies 0.6 of the way from the second to the third.
    spread = math.sqrt(0.24)
    assert_allclose(outcomes(get("qae", variant="released"), 3, 5), (0.4 / spread, -0.6 / spread), **EXACT)


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_qae_is_zero_in_groups_without_contrast(variant):
    assert_array_equal(get("qae", variant=variant)([[1, 1, 1], [0, 0, 0]]), np.zeros((2, 3)))


# --- a_grae


def a_grae_by_hand(groups: list[list[int]], alpha: float, released: bool) -> list[list[float]]:
    """The definition, one rollout at a time."""
    rewards = [r for members in groups for r in members]
    w = sum(rewards) / len(rewards)
    result = []
    for members in groups:
        p = sum(members) / len(members)
        row = []
        for r in members:
            if p in (0, 1):
                row.append(0.0)
                continue
            grpo = (r - p) / math.sqrt(p * (1 - p))
            easy = 1 - math.sqrt(p) if released else math.sqrt(1 - p)
            a = w / 2 * grpo / math.sqrt(p) + (1 - w) / 2 * grpo / easy
            row.append(a * min(1, w / alpha) if a > 0 else a)
        result.append(row)
    return result


GROUPS = [[1, 0, 0, 0], [1, 1, 0], [1, 1, 1, 1], [0, 0], [0, 1, 1, 0, 1]]


@pytest.mark.parametrize("alpha", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("variant", ["paper", "released"])
def test_a_grae_follows_its_definition_over_groups_of_any_size(alpha, variant):
    expected = a_grae_by_hand(GROUPS, alpha, variant == "released")
    found = get("a_grae", alpha=alpha, variant=variant)(
        [r for members in GROUPS for r in members], groups=[g for g, members in enumerate(GROUPS) for _ in members]
    )
    assert_allclose(found, [a for row in expected for a in row], **EXACT)


def test_a_grae_variants_differ_by_the_easy_groups_divisor():
    # p = w = 1/2, so A0 = 1 and the positive channel is halved: 1/4 (√2 + √2) / 2 and 1/4 (√2 + 1 / (1 − √½)) / 2.
    paper = get("a_grae")([[1, 0]])
    released = get("a_grae", variant="released")([[1, 0]])
    assert_allclose(paper, [[math.sqrt(2) / 4, -math.sqrt(2) / 2]], **EXACT)
    assert_allclose(released, np.array([[0.5, -1]]) * (math.sqrt(2) + 1 / (1 - math.sqrt(0.5))) / 4, **EXACT)


def test_a_grae_depends_on_the_batch():
    alone = get("a_grae")([[1, 0, 0, 0]])
    among_easy = get("a_grae")([[1, 0, 0, 0], [1, 1, 1, 1]])
    assert among_easy[0, 0] > alone[0, 0] > 0


# --- token level


def test_the_rollouts_advantage_is_given_to_each_of_its_tokens():
    found = get("grpo").at_tokens([0.5, -2.0], np.zeros((2, 3)), [[1, 1, 1], [1, 0, 0]])
    assert_array_equal(found, [[0.5, 0.5, 0.5], [-2.0, 0.0, 0.0]])


def test_entropy_advantage_adds_the_capped_entropy():
    estimator = get("entropy_advantage")
    found = estimator.at_tokens([1.0, -1.0, 0.0], np.tile([0.0, 1.0, 5.0], (3, 1)), np.ones((3, 3)))
    assert_allclose(found, [[1.0, 1.4, 1.5], [-1.0, -0.6, -0.5], [0.0, 0.0, 0.0]], **EXACT)


def test_entropy_advantage_ignores_what_stands_at_masked_tokens():
    found = get("entropy_advantage").at_tokens([1.0], [[1.0, math.nan]], [[True, False]])
    assert_allclose(found, [[1.4, 0.0]], **EXACT)


@pytest.mark.parametrize("base", [name for name in names() if name != "entropy_advantage"])
def test_entropy_advantage_is_its_base_at_the_rollout_level(base):
    shaped, plain = get("entropy_advantage", base=base), get(base)
    assert_array_equal(shaped(all_groups()), plain(all_groups()))
    assert_array_equal(shaped.keep(all_groups()), plain.keep(all_groups()))
    assert (shaped.binary, shaped.invariances, shaped.aggregation) == (
        plain.binary,
        plain.invariances,
        plain.aggregation,
    )
    assert plain.label in shaped.label
    assert plain.formula in shaped.formula


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("entropy_advantage", ([1.0], None, [[1]]), "token entropies are missing"),
        ("entropy_advantage", ([1.0], [[math.nan]], [[1]]), "entropies contain nan"),
        ("entropy_advantage", ([1.0], [[1.0, 1.0]], [[1]]), r"entropies have shape \(1, 2\)"),
        ("entropy_advantage", ([1.0, 1.0], [[1.0], [1.0, 1.0]], [[1], [1]]), "entropies are not a rectangular array"),
        ("grpo", ([math.inf], None, [[1]]), "advantages contain inf"),
        ("grpo", ([1.0, 2.0], None, [[1]]), r"advantages have shape \(2,\) and the mask has shape \(1, 1\)"),
        ("grpo", ([[1.0]], None, [[1]]), r"advantages have shape \(1, 1\)"),
        ("grpo", ([1.0], None, [1]), r"mask has shape \(1,\)"),
        ("grpo", ([1.0], None, [[0.5]]), "True or 1 at response tokens"),
    ],
)
def test_token_arrays_that_do_not_fit_are_refused(name, arguments, message):
    with pytest.raises(ParameterError, match=message):
        get(name).at_tokens(*arguments)
