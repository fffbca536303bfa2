"""Finite groups: exact sums against enumeration and sampling, the numbers of the specification, and made-up prompts."""

import itertools

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import entropy_lab as el
from entropy_lab import advantages
from entropy_lab.errors import ParameterError
from entropy_lab.figure import collected
from entropy_lab.group_bias import (
    accuracy_points,
    beta_binomial,
    binomial,
    expected_masses,
    mixed_ratio,
    posterior,
    true_masses,
)
from entropy_lab.schema import ANALYSES
from entropy_lab.solve_rates import accuracy_spread, solve_rates

ESTIMATORS = [name for name in advantages.names() if not advantages.get(name).token_advantage]


# Of accuracies that lie closer to 0 than 1e-300, scipy says that it overflows.
@given(st.sampled_from([0.0, 1.0]) | st.floats(1e-9, 1), st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_binomial_is_scipys(p, n):
    np.testing.assert_allclose(binomial(np.array([p]), n)[0], stats.binom.pmf(np.arange(n + 1), n, p), atol=1e-12)


@given(st.floats(0.02, 0.98), st.floats(0.05, 50), st.integers(1, 16))
@settings(max_examples=30, deadline=None)
def test_beta_binomial_is_scipys(mean, strength, n):
    c = np.arange(n + 1.0)
    found = beta_binomial(c, np.full(n + 1, float(n)), np.array([mean]), np.array([strength]))[0]
    np.testing.assert_allclose(found, stats.betabinom.pmf(c, n, mean * strength, (1 - mean) * strength), atol=1e-9)


def test_the_ends_of_the_spread():
    c, n, mean = np.arange(4.0), np.full(4, 3.0), np.array([0.25, 0.25, 0.25])
    polarised, single, unknown = beta_binomial(c, n, mean, np.array([0.0, np.inf, np.nan]))
    assert polarised.tolist() == [0.75, 0, 0, 0.25]
    np.testing.assert_allclose(single, stats.binom.pmf(c, 3, 0.25))
    assert np.isnan(unknown).all()


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(4, 6)), min_size=2, max_size=12))
@settings(max_examples=30, deadline=None)
def test_the_fit_expects_the_shares_of_solve_rates(groups):
    c, n = np.array(groups, float).T
    mean, strength = accuracy_spread(c, n, np.ones(len(c)))
    rates = solve_rates(c, n)
    share = beta_binomial(n, n, np.atleast_1d(mean), np.atleast_1d(strength))[0]
    assert share.mean() == pytest.approx(rates.expected_all, abs=1e-9)


@pytest.mark.parametrize("name", ["grpo", "asym_grpo", "rloo", "qae", "ent_increase", "pass_at_k"])
def test_masses_are_means_over_every_group(name):
    """All 2^G groups of outcomes, each with its probability."""
    estimator, p, size = advantages.get(name), 0.3, 5
    rewards = np.array(list(itertools.product([0.0, 1.0], repeat=size)))
    weight = np.prod(np.where(rewards == 1, p, 1 - p), axis=1)
    advantage = estimator(rewards)
    positive, negative = expected_masses(estimator, np.array([p]), size, p)
    assert positive.item() == pytest.approx(weight @ (rewards * advantage).mean(axis=1))
    assert negative.item() == pytest.approx(-weight @ ((1 - rewards) * advantage).mean(axis=1))


def test_leaving_one_out_is_without_bias_and_the_mean_baseline_loses_one_part_in_g():
    p = np.linspace(0.01, 0.99, 9)
    for size in (2, 8, 17):
        np.testing.assert_allclose(expected_masses(advantages.get("rloo"), p, size, 0.5)[0], p * (1 - p), atol=1e-12)
        centred = expected_masses(advantages.get("dr_grpo"), p, size, 0.5)[1]
        np.testing.assert_allclose(centred, p * (1 - p) * (1 - 1 / size), atol=1e-12)


@pytest.mark.parametrize("name", ["grpo", "asym_grpo", "neg_only", "reinforce"])
def test_the_closed_form_is_the_limit_of_large_groups(name):
    estimator, p = advantages.get(name), np.array([0.2, 0.5, 0.7])
    for exact, large in zip(true_masses(estimator, p, 0.5), expected_masses(estimator, p, 400, 0.5), strict=True):
        np.testing.assert_allclose(exact, large, rtol=1e-2)


def test_masses_at_the_ends_count_unanimous_groups_where_the_exponent_is_0():
    ends = np.array([0.0, 1.0])
    assert [part.tolist() for part in true_masses(advantages.get("reinforce"), ends, 0.5)] == [[0, 1], [1, 0]]
    assert [part.tolist() for part in true_masses(advantages.get("grpo"), ends, 0.5)] == [[0, 0], [0, 0]]


@pytest.mark.parametrize(("params", "ratios"), [({"beta_pos": 0.5, "beta_neg": 0.5}, (0.54, 1.79)), ({}, (0.34, 2.92))])
def test_the_ratios_of_the_specification(params, ratios):
    found = mixed_ratio(advantages.get("asym_grpo", **params), np.array([0.05, 0.95]), 8, 0.5)[0]
    assert found == pytest.approx(ratios, abs=0.005)


def test_ratios_by_sampling():
    rng, estimator = np.random.default_rng(0), advantages.get("asym_grpo")
    rewards = (rng.random((60_000, 6)) < 0.4).astype(float)
    mixed = rewards[(rewards.sum(1) > 0) & (rewards.sum(1) < 6)]
    advantage = estimator(mixed)
    positive, negative = mixed_ratio(estimator, np.array([0.4]), 6, 0.5)
    assert positive.item() == pytest.approx(advantage[mixed == 1].mean() / 1.5**0.9, rel=0.02)
    assert negative.item() == pytest.approx(advantage[mixed == 0].mean() / -((2 / 3) ** 0.4), rel=0.02)


def test_the_posterior_is_that_of_sampling():
    rng = np.random.default_rng(0)
    p = rng.beta(0.8, 1.2, 150_000)
    seen = p[rng.binomial(8, p) == 3]
    mean, low, high = (value.item() for value in posterior(np.array([3.0]), np.array([8.0]), 0.4, 2.0))
    assert mean == pytest.approx(seen.mean(), abs=0.005)
    assert [low, high] == pytest.approx(np.quantile(seen, [0.025, 0.975]), abs=0.01)
    assert [v.item() for v in posterior(np.array([8.0]), np.array([8.0]), 0.4, 0.0)] == [1, 1, 1]
    assert [v.item() for v in posterior(np.array([8.0]), np.array([8.0]), 0.4, np.inf)] == [0.4] * 3


def test_points_have_the_moments_of_the_distribution():
    points, weights = accuracy_points(0.4, 1.5)
    assert weights @ points == pytest.approx(0.4, abs=2e-3)
    assert weights @ points**2 - (weights @ points) ** 2 == pytest.approx(0.24 / 2.5, abs=2e-3)
    assert accuracy_points(0.4, np.inf)[0].tolist() == [0.4]
    assert [one.tolist() for one in accuracy_points(0.4, 0.0)] == [[0, 1], [0.6, 0.4]]


# Runs


def run_of(path, correct, method=("grpo", {})):
    """A run of one step whose groups have these verdicts, one row of None, True and False a prompt."""
    writer = el.RunWriter(path, method={"name": method[0], "params": method[1]})
    n, size = len(correct), len(correct[0])
    flat = pl.Series([one for group in correct for one in group], dtype=pl.Boolean)
    columns = {"prompt_id": np.repeat([f"q{i}" for i in range(n)], size), "group_id": np.repeat(np.arange(n), size)}
    columns |= {"sample": np.tile(np.arange(size), n), "reward": flat.fill_null(False) * 1.0, "correct": flat}
    writer.write_rollouts(0, columns)
    return writer.path


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    rng = np.random.default_rng(0)
    p = rng.beta(0.6, 0.9, (1500, 1))
    path = run_of(tmp_path_factory.mktemp("groups") / "run", (rng.random((1500, 8)) < p).tolist(), ("asym_grpo", {}))
    return el.analyze(path, "group_size", n_boot=200)


def estimator_row(table, name):
    return table.frame.filter(pl.col("name") == name).row(0, named=True)


def test_prompts_of_a_beta_distribution_are_as_expected(table):
    rows = table.frame.filter(pl.col("kind") == "accuracy")
    assert rows["n_groups"].sum() == 1500
    assert rows["share"].sum() == pytest.approx(1)
    assert rows["expected"].sum() == pytest.approx(1)
    inside = (rows["excess_low"] <= 0) & (rows["excess_high"] >= 0)
    assert inside.sum() >= 7
    assert table.metadata["mean_low"] < 0.4 < table.metadata["mean_high"]
    assert table.metadata["strength_low"] < 1.5 < table.metadata["strength_high"]
    assert table.metadata["group_size"] == 8
    assert tuple(table.columns) == tuple(ANALYSES["group_size"])


def test_bias_is_that_of_groups_that_are_drawn(table):
    """The lost mass of AsymGRPO, from groups that are really drawn."""
    rng, row = np.random.default_rng(1), estimator_row(table, "asym_grpo")
    mean, strength = table.metadata["mean"], table.metadata["strength"]
    p = rng.beta(mean * strength, (1 - mean) * strength, 100_000)
    c = rng.binomial(8, p)
    seen = np.where(c > 0, c / 8 * ((8 - c) / np.maximum(c, 1)) ** 0.9, 0).mean()
    exact = (p * ((1 - p) / p) ** 0.9).mean()
    assert row["bias_positive"] == pytest.approx(seen / exact - 1, abs=0.015)
    assert row["own"] is True
    assert row["misplaced"] >= abs(row["bias_positive"] + row["bias_negative"]) / 2 - 0.05


def test_what_needs_no_group_needs_two_rollouts_and_pass_at_k_its_k(table):
    assert [estimator_row(table, name)["needed"] for name in ("reinforce", "rloo", "psr")] == [2, 2, 2]
    assert estimator_row(table, "dr_grpo")["needed"] == 16  # loses 1/G of the mass: a tenth is allowed
    assert estimator_row(table, "pass_at_k")["needed"] > 8
    assert {row for row in table.frame["name"].drop_nulls()} == set(ESTIMATORS)


def test_polarised_prompts_stand_out(tmp_path):
    rng = np.random.default_rng(0)
    p = np.concatenate([np.full(300, 0.5), np.zeros(150), np.ones(150)])
    found = el.analyze(run_of(tmp_path / "run", (rng.random((600, 8)) < p[:, None]).tolist()), "group_size", n_boot=100)
    ends = found.frame.filter(pl.col("accuracy").is_in([0.0, 1.0]))
    assert (ends["excess_low"] > 0).all()
    assert found.frame.filter(pl.col("accuracy") == 0.5)["excess_low"].item() > 0


def test_unverified_rollouts_and_single_ones(tmp_path):
    mixed = [[True, False, None, None], [True, True, False, None], [False, False, False, False], [None] * 4]
    found = el.analyze(run_of(tmp_path / "run", mixed, ("mine", {})), "group_size", n_boot=20)
    rows = found.frame.filter(pl.col("kind") == "accuracy")
    assert rows.select("n_rollouts", "n_correct", "n_groups").rows() == [(2, 1, 1), (3, 2, 1), (4, 0, 1)]
    assert rows["ratio_positive"].null_count() == 3  # an unknown estimator has none
    assert not found.frame["own"].fill_null(False).any()
    alone = el.analyze(run_of(tmp_path / "alone", [[True], [False]]), "group_size", n_boot=20)
    assert alone.frame["expected"].null_count() == len(alone) == 2
    none = el.analyze(run_of(tmp_path / "none", [[None, None]]), "group_size", n_boot=20)
    assert len(none) == 0
    for number, table in enumerate((found, alone, none)):
        table.write(tmp_path / f"{number}.parquet")  # metadata without NaN


def test_an_estimator_that_refuses_the_groups_is_named(tmp_path):
    found = el.analyze(run_of(tmp_path / "run", [[True, False], [False, False], [True, True]]), "group_size", n_boot=20)
    assert list(found.metadata["left_out"]) == ["pass_at_k"]
    with pytest.raises(ParameterError, match="tolerance"):
        el.analyze(tmp_path / "run", "group_size", tolerance=0.0)


def test_the_figure_shows_groups_of_one_size(tmp_path):
    """Unverified rollouts make groups of other sizes, whose unanimous ones have the same accuracies in other rows."""
    verdicts = [[True] * 4, [False] * 4, [True, True, False, False], [True, False, False, False]] * 3
    verdicts += [[True] * 3 + [None], [False] * 3 + [None], [True, False, False, None]]
    run = el.open_run(run_of(tmp_path / "run", verdicts))
    shown = collected(run, "finite_groups")
    rows = shown.frame.filter(pl.col("panel") == "a")
    expected = el.analyze(run, "group_size").frame.filter(pl.col("n_rollouts") == 4, pl.col("kind") == "accuracy")
    assert rows["y"].to_list() == expected.sort("accuracy")["excess"].to_list()
    assert rows["low"].null_count() == 0
    assert shown.metadata["panels"][0]["notes"][0] == "groups of 4, as shares of all groups"


def test_a_run_whose_groups_its_own_estimator_refuses_is_analysed(tmp_path):
    """Groups of four, of which most have two rollouts that were verified."""
    verdicts = [[True, False, None, None]] * 5 + [[True, True, False, False]]
    found = el.analyze(run_of(tmp_path / "run", verdicts, ("pass_at_k", {"k": 4})), "group_size", n_boot=20)
    assert found.metadata["group_size"] == 2
    assert list(found.metadata["left_out"]) == ["pass_at_k"]
    rows = found.frame.filter(pl.col("kind") == "accuracy")
    assert rows["share"].sum() == pytest.approx(1)
    assert rows["ratio_positive"].null_count() == len(rows)


@pytest.mark.parametrize("beta", [0.9, 1.2, 1.5])
def test_masses_at_tiny_accuracies_are_their_power(beta):
    p = np.array([0.0, 1e-250, 1e-9, 1 - 1e-9, 1.0])  # warnings are errors: nothing overflows
    positive, negative = true_masses(advantages.get("asym_grpo", beta_pos=beta, beta_neg=beta), p, 0.5)
    assert positive[1] == pytest.approx(10.0 ** (-250 * (1 - beta)), rel=1e-9)
    assert negative[3] == pytest.approx(1e-9 ** (1 - beta), rel=1e-6)
    assert (positive[[0, 4]] == 0).all()
    assert (negative[[0, 4]] == 0).all()
