"""Kernels against closed forms, scipy and simulation."""

import warnings

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from entropy_lab.bootstrap import TOGETHER, RatioIntervals, percentile_interval, resample_counts, resampled_sums
from entropy_lab.covariance import group_covariance
from entropy_lab.errors import ParameterError
from entropy_lab.pass_at_k import pass_at_k
from entropy_lab.solve_rates import solve_rates


@given(st.integers(0, 2**32), st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_covariance_equals_numpys_and_ignores_a_shift(seed, shift_x, shift_y):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 9, 5)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    x, y = rng.normal(size=(2, sizes.sum()))
    expected = [np.cov(a, b)[0, 1] for a, b in zip(np.split(x, starts[1:]), np.split(y, starts[1:]), strict=True)]
    found, n = group_covariance(x + shift_x, y + shift_y, starts)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
    assert n.tolist() == sizes.tolist()


def test_covariance_leaves_out_what_is_absent():
    x = np.array([1.0, 2.0, np.nan, 4.0, 1.0])
    y = np.array([2.0, np.nan, 1.0, 6.0, 1.0])
    found, n = group_covariance(x, y, np.array([0, 4]))
    assert found[0] == pytest.approx(np.cov([1, 4], [2, 6])[0, 1])
    assert np.isnan(found[1])
    assert n.tolist() == [2, 1]


def test_covariance_takes_only_two_ddofs():
    with pytest.raises(ParameterError, match="0 or 1"):
        group_covariance(np.zeros(2), np.zeros(2), np.array([0]), ddof=2)


def test_resamples_have_the_bootstraps_mean_and_variance():
    n, n_boot = 50, 20_000
    counts = resample_counts(n, n_boot, np.random.default_rng(0))
    assert (counts.sum(axis=1) == n).all()
    # Multinomial: mean 1, variance 1 - 1/n; 1e6 draws put both within 1 %.
    np.testing.assert_allclose(counts.mean(), 1)
    assert counts.var() == pytest.approx(1 - 1 / n, rel=0.01)


def test_sums_in_parts_are_weighted_sums():
    values = np.random.default_rng(1).normal(size=(7, 2))
    sums = resampled_sums(values, 100_000, np.random.default_rng(2))  # more cells than one part holds
    np.testing.assert_allclose(sums.mean(axis=0), values.sum(axis=0), atol=0.05)
    np.testing.assert_allclose(sums.var(axis=0), 7 * values.var(axis=0), rtol=0.02)


def test_the_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(400):
        sample = rng.normal(size=(60, 1))
        low, high = percentile_interval(resampled_sums(sample, 400, rng)[:, 0] / 60, 0.9)
        covered += low <= 0 <= high
    assert stats.binomtest(covered, 400, 0.9).pvalue > 0.001


def test_the_interval_of_equal_seeds_is_equal():
    values = np.random.default_rng(4).normal(size=(9, 1))
    first, second = (resampled_sums(values, 50, np.random.default_rng(7)) for _ in range(2))
    assert (first == second).all()


def test_resamples_without_the_statistic_are_left_out():
    low, high = percentile_interval(np.array([[1.0, np.nan], [1.0, np.nan], [np.nan, np.nan]]))
    assert (low[0], high[0]) == (1.0, 1.0)
    assert np.isnan([low[1], high[1]]).all()


@pytest.mark.parametrize(("a", "b", "n"), [(0.5, 0.5, 8), (2.0, 1.0, 4), (0.1, 0.3, 16)])
def test_expected_shares_recover_a_beta_binomial(a, b, n):
    c = stats.betabinom.rvs(n, a, b, size=200_000, random_state=0).astype(float)
    rates = solve_rates(c, np.full(len(c), float(n)))
    law = stats.betabinom(n, a, b)
    assert rates.expected_all == pytest.approx(law.pmf(n), abs=0.004)
    assert rates.expected_none == pytest.approx(law.pmf(0), abs=0.004)
    assert rates.all_solved == (c == n).mean()
    assert rates.none_solved == (c == 0).mean()


def test_expected_shares_without_spread_are_binomial():
    c = np.array([2.0, 2.0, 2.0, 2.0])  # less spread than chance
    rates = solve_rates(c, np.full(4, 4.0))
    assert (rates.expected_all, rates.expected_none) == pytest.approx((0.5**4, 0.5**4))


def test_expected_shares_of_a_polarised_set_are_the_observed():
    rates = solve_rates(np.array([4.0, 4.0, 0.0, 4.0]), np.full(4, 4.0))
    assert (rates.expected_all, rates.expected_none) == (0.75, 0.25)


@pytest.mark.parametrize(("n", "accuracy"), [(2, 3 / 7), (2, 7 / 10), (4, 2 / 3), (8, 1 / 7)])
def test_counts_that_spread_exactly_as_chance_does_expect_binomial_shares(n, accuracy):
    # The variance between prompts is 0 up to rounding: the Beta distribution would have exponents of 1e15.
    c = np.arange(n + 1.0)
    rates = solve_rates(c, np.full(n + 1, float(n)), stats.binom.pmf(c, n, accuracy))
    assert (rates.expected_all, rates.expected_none) == pytest.approx((accuracy**n, (1 - accuracy) ** n), rel=1e-6)


def test_weights_stand_for_repeated_groups():
    c, n = np.array([0.0, 1.0, 3.0]), np.array([2.0, 2.0, 3.0])
    weighted = solve_rates(c, n, np.array([2.0, 1.0, 3.0]))
    repeats = [0, 0, 1, 2, 2, 2]
    assert vars(weighted) == pytest.approx(vars(solve_rates(c[repeats], n[repeats])))


def test_groups_without_a_verdict_and_single_rollouts():
    assert solve_rates(np.zeros(2), np.zeros(2)).n_groups == 0
    rates = solve_rates(np.array([1.0, 0.0]), np.array([1.0, 1.0]))
    assert rates.all_solved == 0.5
    assert np.isnan(rates.expected_all)


@given(st.integers(1, 10), st.data())
def test_pass_at_k_is_the_hypergeometric_tail(n, data):
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    expected = 1 - stats.hypergeom(n, c, k).pmf(0)
    assert pass_at_k(np.array([float(c)]), np.array([float(n)]), k)[0] == pytest.approx(expected, abs=1e-12)


def test_pass_at_k_refuses_more_answers_than_there_are():
    with pytest.raises(ParameterError, match="from 1 to 2"):
        pass_at_k(np.array([1.0]), np.array([2.0]), 3)


def test_spearman_and_slope_are_scipys_over_mixed_groups(tmp_path):
    from entropy_lab import RunWriter, analyze

    rng = np.random.default_rng(5)
    writer = RunWriter(tmp_path / "run", method={"name": "grpo", "params": {}})
    n = 400
    columns = {
        "prompt_id": [f"q{i // 8}" for i in range(n)],
        "group_id": np.arange(n) // 8,
        "sample": np.arange(n) % 8,
        "correct": rng.random(n) < 0.5,
        "reward": np.zeros(n),
        "advantage": rng.normal(size=n),
        "n_tokens": np.full(n, 5),
        "logp": -rng.random(n),
    }
    writer.write_rollouts(0, columns)
    table = analyze(writer.path, "covariance")
    mixed = table.frame.filter(pl.col("accuracy").is_between(0, 1, closed="none"))
    assert len(mixed) > 3
    expected = stats.spearmanr(mixed["accuracy"], mixed["covariance"]).statistic
    assert table.metadata["spearman"] == pytest.approx(expected, abs=1e-12)
    # The slope is that of a least-squares line through the groups, of which a row stands for n_groups.
    rows = mixed.with_columns(pl.col("covariance").repeat_by("n_groups"), pl.col("accuracy").repeat_by("n_groups"))
    line = stats.linregress(rows["accuracy"].explode(), rows["covariance"].explode())
    assert table.metadata["slope"] == pytest.approx(line.slope, abs=1e-12)
    assert table.metadata["slope_ci_low"] < line.slope < table.metadata["slope_ci_high"]


def one_step_run(path, correct, prompts):
    """A run of one step with random log-probabilities and advantages; verdicts of shape (groups, rollouts)."""
    from entropy_lab import RunWriter

    rng, (n, size) = np.random.default_rng(6), np.shape(correct)
    writer = RunWriter(path, method={"name": "grpo", "params": {}})
    columns = {"prompt_id": np.repeat(prompts, size), "group_id": np.repeat(np.arange(n), size)}
    columns |= {"sample": np.tile(np.arange(size), n), "correct": np.ravel(correct), "reward": np.zeros(n * size)}
    columns |= {"advantage": rng.normal(size=n * size), "n_tokens": np.full(n * size, 5), "logp": -rng.random(n * size)}
    writer.write_rollouts(0, columns)
    return writer.path


def test_one_prompt_gives_a_slope_and_no_interval(tmp_path):
    from entropy_lab import analyze

    correct = np.arange(4) < np.array([1, 2, 3])[:, None]
    facts = analyze(one_step_run(tmp_path / "run", correct, ["q"] * 3), "covariance").metadata
    assert facts["slope"] is not None
    assert facts["slope_ci_low"] is facts["slope_ci_high"] is None


def test_an_accuracy_on_the_edge_of_a_bin_belongs_to_the_upper_one(tmp_path):
    from entropy_lab import analyze

    # 15/22 * 22 is less than 15 in floating point.
    correct = np.arange(22) < np.arange(23)[:, None]
    table = analyze(one_step_run(tmp_path / "run", correct, [f"q{i}" for i in range(23)]), "covariance", bins=22)
    assert table.frame["n_groups"].to_list() == [1] * 21 + [2]


@pytest.mark.parametrize(("temperatures", "told"), [([0.4, 1.0] * 2, True), ([1.0] * 4, False)])
def test_answers_at_several_temperatures_are_told(tmp_path, temperatures, told):
    from entropy_lab import RunWriter, analyze

    writer = RunWriter(tmp_path / "run", method={"name": "grpo", "params": {}})
    columns = {"benchmark": ["A"] * 4, "problem_id": ["0", "0", "1", "1"], "sample": [0, 1, 0, 1]}
    verdicts = {"greedy": [False] * 4, "temperature": temperatures, "correct": [True, False, True, True]}
    writer.write_evals(10, columns | verdicts)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert analyze(writer.path, "validation").frame["accuracy"].item() == 0.75
    assert [str(one.message) for one in caught] == ["answers at several temperatures count together: A"] * told


def test_intervals_of_steps_resampled_together_are_those_of_each_alone():
    rng, together = np.random.default_rng(0), RatioIntervals(n_boot=40)
    steps = [(rng.random(n), rng.random(n) + 0.5) for n in [5] * (TOGETHER + 2) + [7, 1, 0, 5]]
    alone = []
    for above, below in steps:
        together.add(above, below)
        single = RatioIntervals(n_boot=40)
        single.add(above, below)
        alone.append(np.concatenate(single.bounds()))
    np.testing.assert_allclose(np.stack(together.bounds(), axis=1), alone, rtol=1e-12)
    assert np.isnan(alone).any(axis=1).tolist() == [len(above) < 2 for above, _ in steps]
    counts = resample_counts(5, 40, np.random.default_rng([0, 5]))
    expected = percentile_interval((counts @ steps[0][0]) / (counts @ steps[0][1]))
    np.testing.assert_allclose(alone[0], expected)
