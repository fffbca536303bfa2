"""Trends and change points, against scipy, brute force and simulations of their null."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.signal import lfilter

from entropy_lab.change_points import bend, jump
from entropy_lab.errors import ParameterError
from entropy_lab.levels import contrast, contrast_between, level, running_median
from entropy_lab.trends import autocorrelation, condense, kendall_inflation, mean_inflation, trend


def ar1(phi, n, rng, size=1):
    return lfilter([1.0], [1.0, -phi], rng.normal(size=(size, n + 100)), axis=1)[:, 100:]


def without_memory(n, slope=0.0):
    """Noise around a line whose estimated autocorrelation is 0, so that no correction applies."""
    t = np.arange(float(n))
    y = slope * t + np.where(t % 2, 1.0, -1.0) * (1 + np.random.default_rng(n).random(n))
    assert autocorrelation(y - slope * t) == 0
    return t, y


@pytest.mark.parametrize(("n", "slope"), [(9, 0.0), (30, 0.05), (101, -0.01)])
def test_slope_and_interval_are_scipys_without_autocorrelation(n, slope):
    t, y = without_memory(n, slope)
    found, theirs = trend(t, y), stats.theilslopes(y, t, 0.95)
    assert (found.slope, found.low, found.high) == pytest.approx((theirs[0], theirs[2], theirs[3]))


def test_the_test_is_mann_kendalls_without_autocorrelation():
    t, y = without_memory(25, 0.1)
    score = sum(np.sign(y[j] - y[i]) for i in range(25) for j in range(i + 1, 25))
    z = (score - 1) / (25 * 24 * 55 / 18) ** 0.5
    assert trend(t, y).p_rise == pytest.approx(stats.norm.sf(z))
    assert trend(t, y).tau == pytest.approx(stats.kendalltau(t, y).statistic)
    assert trend(t, -y).p_fall == pytest.approx(trend(t, y).p_rise)


def test_a_constant_has_no_trend():
    found = trend(np.arange(10.0), np.ones(10))
    assert (found.slope, found.low, found.high, found.p_rise, found.p_fall) == (0, 0, 0, 1, 1)


@pytest.mark.parametrize(("phi", "most"), [(0.0, 0.09), (0.6, 0.13)])
def test_the_trend_test_keeps_its_level(phi, most):
    series = ar1(phi, 80, np.random.default_rng(0), 200)
    p = np.array([min(found.p_rise, found.p_fall) for found in (trend(np.arange(80.0), y) for y in series)])
    assert (p < 0.025).mean() <= most  # 0.05 two-sided; uncorrected it is 0.29 at phi 0.6


def test_a_trend_is_found_in_noise_that_remembers():
    y = ar1(0.6, 80, np.random.default_rng(1))[0] + 0.1 * np.arange(80)
    assert trend(np.arange(80.0), y).p_rise < 1e-3


def test_inflation_of_a_mean_is_that_of_the_correlation_matrix():
    phi, n = 0.7, 9
    matrix = phi ** np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    assert mean_inflation(phi, n) == pytest.approx(matrix.sum() / n)


def test_inflation_of_kendalls_score_is_that_of_simulated_series():
    series = ar1(0.5, 14, np.random.default_rng(2), 4000)
    first, second = np.triu_indices(14, 1)
    scores = np.sign(series[:, second] - series[:, first]).sum(axis=1)
    assert scores.var() / (14 * 13 * 33 / 18) == pytest.approx(kendall_inflation(0.5, 14), rel=0.1)


def test_autocorrelation_is_found_without_the_bias_of_the_fit():
    t = np.arange(60.0)
    residuals = [y - np.polyval(np.polyfit(t, y, 1), t) for y in ar1(0.6, 60, np.random.default_rng(3), 300)]
    assert np.mean([autocorrelation(r) for r in residuals]) == pytest.approx(0.6, abs=0.03)


@pytest.mark.parametrize("path", [lambda t: 0 * t, lambda t: 5 * np.exp(-4 * t)], ids=["flat", "curved"])
def test_a_contrast_covers_the_difference_of_the_path(path):
    t = np.linspace(0, 1, 100)
    truth = np.median(path(t)[-10:]) - np.median(path(t)[:10])
    found = [contrast(path(t) + noise) for noise in ar1(0.3, 100, np.random.default_rng(4), 200)]
    assert np.mean([one.low <= truth <= one.high for one in found]) > 0.9


def test_a_contrast_of_ends_is_one_of_stretches():
    y = ar1(0.2, 50, np.random.default_rng(5))[0]
    assert contrast(y, 0.1, 0.2) == contrast_between(y, slice(0, 5), slice(40, 50))


def test_a_level_covers_the_median_and_ignores_an_outlier():
    series = ar1(0.3, 60, np.random.default_rng(6), 200)
    found = [level(y) for y in series]
    assert np.mean([one.low <= 0 <= one.high for one in found]) > 0.88
    spoilt = series[0].copy()
    spoilt[30] = 1e6
    assert abs(level(spoilt).value) < 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=90), st.integers(2, 40))
def test_condensing_keeps_order_steps_and_range(values, most):
    steps, y = np.arange(float(len(values))), np.array(values)
    t, medians = condense(steps, y, most)
    assert len(t) <= most
    assert set(t) <= set(steps)
    assert (np.diff(t) > 0).all()
    assert y.min() <= medians.min() <= medians.max() <= y.max()
    if len(values) <= most:
        assert medians.tolist() == values


def test_a_running_median_is_the_median_of_each_window():
    y = np.random.default_rng(7).normal(size=20)
    expected = [np.median(y[max(0, i - 2) : i + 3]) for i in range(20)]
    assert running_median(y, 5) == pytest.approx(expected)


def test_a_running_median_of_a_long_series_costs_neither_its_square_of_memory_nor_of_time():
    y = np.random.default_rng(11).normal(size=20_000)
    tracemalloc.start()
    found = running_median(y, 4001)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000  # all windows side by side: 640 MB
    tracemalloc.stop()
    assert found[[2000, 10_000]] == pytest.approx([np.median(y[:4001]), np.median(y[8000:12_001])])


def squared_errors(t, y, column):
    """Squared error of the fit with each candidate, by least squares one by one."""
    plain = [np.ones_like(t), t] if column == "bend" else [np.ones_like(t)]
    errors = []
    for knot in t[2:-2]:
        added = np.maximum(t - knot, 0) if column == "bend" else (t >= knot).astype(float)
        design = np.column_stack([*plain, added])
        errors.append(((y - design @ np.linalg.lstsq(design, y, rcond=None)[0]) ** 2).sum())
    return np.array(errors)


@pytest.mark.parametrize(("find", "kind"), [(bend, "bend"), (jump, "jump")])
def test_the_change_point_is_the_best_of_all_by_brute_force(find, kind):
    rng = np.random.default_rng(8)
    t = np.sort(rng.choice(200, 40, replace=False)).astype(float)
    path = 4 * (t > 90) if kind == "jump" else 0.1 * np.maximum(t - 120, 0)
    y = rng.normal(size=40) + path
    found = find(t, y, rng)
    assert found.step == t[2:-2][squared_errors(t, y, kind).argmin()]
    assert found.low <= found.step <= found.high
    assert found.p == 0.005


@pytest.mark.parametrize("find", [bend, jump])
def test_no_change_is_rarely_found_in_noise_that_remembers(find):
    rng = np.random.default_rng(9)
    t = np.arange(50.0)
    p = [find(t, y, rng, n_boot=39).p for y in ar1(0.5, 50, rng, 120)]
    assert np.mean(np.array(p) <= 0.05) <= 0.11


@pytest.mark.parametrize(
    ("find", "path"), [(bend, lambda t: 0.4 * np.maximum(t - 30, 0)), (jump, lambda t: 4 * (t >= 30))]
)
def test_the_interval_covers_the_change(find, path):
    rng = np.random.default_rng(10)
    t = np.arange(50.0)
    found = [find(t, path(t) + noise, rng, n_boot=1) for noise in ar1(0.3, 50, rng, 120)]
    assert np.mean([one.low <= 30 <= one.high for one in found]) > 0.85


@pytest.mark.parametrize(
    "call",
    [
        lambda: trend(np.arange(3.0), np.arange(3.0)),
        lambda: trend(np.arange(9.0), np.arange(9.0), 1.0),
        lambda: contrast(np.arange(5.0)),
        lambda: contrast(np.arange(9.0), 0.0),
        lambda: contrast_between(np.arange(9.0), slice(0, 0), slice(1, 2)),
        lambda: level(np.zeros(0)),
        lambda: bend(np.arange(7.0), np.arange(7.0), np.random.default_rng(0)),
        lambda: jump(np.arange(9.0), np.arange(9.0), np.random.default_rng(0), n_boot=0),
        lambda: jump(np.arange(9.0), np.arange(9.0), np.random.default_rng(0), confidence=2),
    ],
)
def test_what_cannot_be_computed_is_refused(call):
    with pytest.raises(ParameterError):
        call()
