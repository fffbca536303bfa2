"""The audit's statistics against scipy, brute force, closed forms and simulation."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from entropy_lab.claims import rules
from entropy_lab.claims.claim import Method, above, alike, comparable, falling
from entropy_lab.claims.intervals import bootstrap_t_interval, mean_interval, student_interval
from entropy_lab.claims.paired import hedges_g, interquartile_mean, one_sided_p, probability_of_improvement
from entropy_lab.claims.registered import PAPER
from entropy_lab.errors import ParameterError

A, B = Method("grpo", "A"), Method("reinforce", "B")
P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=8)


def samples(n, rows=1, seed=0):
    return np.random.default_rng(seed).normal(0.3, 1, (rows, n))


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_the_test_is_the_paired_t_test(n):
    x, y = samples(n, 6, seed=1), samples(n, 6, seed=2)
    expected = stats.ttest_rel(x, y, axis=-1, alternative="greater").pvalue
    assert one_sided_p(x - y) == pytest.approx(expected)
    assert one_sided_p(y - x) == pytest.approx(1 - expected)


def test_without_spread_p_is_its_limit_and_without_pairs_there_is_none():
    values = np.array([[0.0, 0.0], [0.5, 0.5], [-0.5, -0.5]])
    assert one_sided_p(values).tolist() == [1, 0, 1]
    assert np.isnan(one_sided_p(np.zeros((3, 1)))).all()


@pytest.mark.parametrize("n", [3, 5, 10])
def test_hedges_g_takes_the_bias_out_of_mean_over_sd(n):
    """``sqrt(n) mean / sd`` of normal values is noncentral t; its mean over sqrt(n) is what mean / sd is on average."""
    values, effect = samples(n)[0], 0.8
    on_average = stats.nct.mean(n - 1, effect * np.sqrt(n)) / np.sqrt(n)
    assert hedges_g(values) == pytest.approx(effect / on_average * values.mean() / values.std(ddof=1))


def test_hedges_g_needs_spread_and_three_pairs():
    assert np.isnan([hedges_g(np.ones(5)), hedges_g(np.array([1.0, 2.0])), hedges_g(np.zeros(0))]).all()


@given(st.lists(st.integers(0, 4), max_size=6), st.lists(st.integers(0, 4), max_size=6))
def test_probability_of_improvement_counts_pairs(x, y):
    found = probability_of_improvement(np.array(x, dtype=float), np.array(y, dtype=float))
    if not x or not y:
        assert np.isnan(found)
        return
    assert found == pytest.approx(np.mean([(a > b) + (a == b) / 2 for a in x for b in y]))
    assert found == pytest.approx(stats.mannwhitneyu(x, y, method="asymptotic").statistic / (len(x) * len(y)))


@pytest.mark.parametrize(("n", "kept"), [(1, slice(0, 1)), (3, slice(0, 3)), (5, slice(1, 4)), (8, slice(2, 6))])
def test_the_interquartile_mean_leaves_a_quarter_out_at_each_end(n, kept):
    values = samples(n)[0]
    assert interquartile_mean(values) == pytest.approx(np.sort(values)[kept].mean())


def test_students_interval_is_scipys():
    values = samples(5)[0]
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert student_interval(values, 0.9) == pytest.approx((expected.low, expected.high))


def test_bootstrap_t_is_that_over_all_resamples():
    """With four values there are 256 resamples: the quantiles of t* are known."""
    values = np.array([0.1, 0.5, 0.6, 1.4])
    drawn = values[np.array(list(itertools.product(range(4), repeat=4)))]
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (drawn.mean(axis=1) - values.mean()) / (drawn.std(axis=1, ddof=1) / 2)
    low, high = values.mean() - np.quantile(t, [0.9, 0.1], method="inverted_cdf") * values.std(ddof=1) / 2
    found = bootstrap_t_interval(values, 0.8, n_boot=100_000, rng=np.random.default_rng(0))
    assert found == pytest.approx((low, high), rel=0.02)


@given(st.floats(-5, 5), st.floats(0.1, 10))
def test_the_interval_moves_and_stretches_with_the_values(shift, scale):
    values = samples(5)[0]
    plain = np.array(bootstrap_t_interval(values, n_boot=200, rng=np.random.default_rng(0)))
    moved = bootstrap_t_interval(scale * values + shift, n_boot=200, rng=np.random.default_rng(0))
    assert moved == pytest.approx(scale * plain + shift)


def test_three_values_cannot_be_bounded_by_resampling():
    values = samples(3)[0]
    assert bootstrap_t_interval(values, rng=np.random.default_rng(0)) == (-np.inf, np.inf)
    assert mean_interval(values, rng=np.random.default_rng(0)) == (*student_interval(values), "Student t")


def test_intervals_of_one_value_and_of_equal_values():
    low, high, kind = mean_interval(np.array([0.5]), rng=np.random.default_rng(0))
    assert np.isnan([low, high]).all()
    assert kind == ""
    assert mean_interval(np.full(4, 0.5), rng=np.random.default_rng(0)) == (0.5, 0.5, "bootstrap-t")


@pytest.mark.parametrize("n", [5, 10])
def test_the_interval_covers_as_often_as_it_says(n):
    rng = np.random.default_rng(n)
    covered = 0
    for values in rng.normal(size=(600, n)):
        low, high, _ = mean_interval(values, n_boot=500, rng=rng)
        covered += low <= 0 <= high
    assert covered / 600 == pytest.approx(0.945, abs=0.03)  # standard error .009


def textbook_holm(p, alpha):
    """Rejected hypotheses: step through the sorted p-values until the first that is above alpha / (m - i)."""
    rejected = set()
    for i, index in enumerate(sorted(range(len(p)), key=lambda index: p[index])):
        if p[index] > alpha / (len(p) - i):
            break
        rejected.add(index)
    return rejected


@given(P_VALUES, st.floats(0.001, 0.5))
def test_holm_rejects_what_the_textbook_rejects(p, alpha):
    adjusted = rules.holm(np.array(p))
    near = np.isclose(adjusted, alpha, rtol=1e-9)
    found = {i for i in range(len(p)) if adjusted[i] <= alpha}
    assert found ^ textbook_holm(p, alpha) <= set(np.flatnonzero(near))
    assert (adjusted >= np.array(p)).all()
    assert (adjusted <= 1).all()


def test_holm_on_values_worked_by_hand():
    p = np.array([[0.01, 0.02, 0.03, 0.005], [0.5, np.nan, 0.02, np.nan], [np.nan] * 4])
    expected = [[0.03, 0.04, 0.04, 0.02], [0.5, np.nan, 0.04, np.nan], [np.nan] * 4]
    assert rules.holm(p) == pytest.approx(np.array(expected), nan_ok=True)
    assert rules.holm(np.zeros(0)).size == 0


def test_a_conjunction_takes_the_weakest_part_for_and_the_strongest_against():
    p_for, p_against = rules.conjunction(np.array([[0.01, 0.9], [0.2, np.nan]]), np.array([[0.99, 0.1], [0.8, np.nan]]))
    assert p_for == pytest.approx(np.array([0.9, np.nan]), nan_ok=True)
    assert p_against == pytest.approx(np.array([0.2, np.nan]), nan_ok=True)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["supported"], "supported"),
        (["supported", "inconclusive"], "inconclusive"),
        (["supported", "contradicted"], "contradicted"),
        (["inconclusive", "contradicted"], "contradicted"),
        (["inconclusive", "inconclusive"], "inconclusive"),
        ([], "inconclusive"),
    ],
)
def test_a_verdict_over_settings(verdicts, expected):
    assert rules.overall(verdicts) == rules.overall(verdicts[::-1]) == expected


def test_bounds_are_two_one_sided_tests():
    a, b = samples(6, seed=1)[0], samples(6, seed=2)[0]
    p = one_sided_p(alike("entropy", A, B, 0.7).sides({A: a, B: b}))
    expected = [
        stats.ttest_rel(a + 0.7, b, alternative="greater").pvalue,
        stats.ttest_rel(a - 0.7, b, alternative="less").pvalue,
    ]
    assert p == pytest.approx(expected)


@given(st.floats(0.1, 5), st.floats(0.1, 5))
def test_a_ratio_is_within_its_bounds_when_both_sides_are_above_zero(a, b):
    sides = comparable("entropy", A, B, 0.8, 1.25).sides({A: np.array([a]), B: np.array([b])})
    assert (sides > 0).all() == (a > 0.8 * b and 1.25 * b > a)


@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4))
def test_a_sweep_falls_by_its_least_squares_slope(y):
    points = [Method("pos_only", str(x), x) for x in (0.25, 0.5, 0.75, 0.9)]
    part = falling("none_solved", points, "slope")
    slope = part.difference(dict(zip(points, np.array(y)[:, None], strict=True)))
    assert slope == pytest.approx(np.polyfit([m.exponent for m in points], y, 1)[0], abs=1e-9)
    assert part.sides(dict(zip(points, np.array(y)[:, None], strict=True)))[0] == -slope


def wrong_verdicts(values_of, n_studies, n_settings=2):
    """Share of simulated studies with any verdict of each kind on the paper's claims, as the audit would give them.

    Where a claim allows bounds, the difference is tested for its sign: a difference of 0 is then no claim's truth.
    """
    p_for, p_against = [], []
    for setting, claim in itertools.product(range(n_settings), PAPER):
        sides = []
        for part in claim.parts:
            signed = above(part.quantity, *part.methods) if part.bounds else part
            sides.append(signed.sides({m: values_of((setting, part.quantity, m)) for m in part.methods}))
        both = rules.conjunction(*(one_sided_p(sign * np.concatenate(sides)).T for sign in (1, -1)))
        p_for.append(both[0])
        p_against.append(both[1])
    adjusted = (rules.adjusted(np.stack(p, axis=-1)) for p in (p_for, p_against))
    return [(p <= rules.ALPHA).any(axis=-1).sum() / n_studies for p in adjusted]


@pytest.mark.parametrize("n", [3, 5])
def test_where_nothing_differs_few_studies_have_any_wrong_verdict(n):
    rng, known, n_studies = np.random.default_rng(n), {}, 4000

    def values_of(key):
        if key not in known:
            known[key] = rng.normal(size=(n_studies, n))
        return known[key]

    supported, contradicted = wrong_verdicts(values_of, n_studies)
    error = 3 * np.sqrt(0.05 * 0.95 / n_studies)
    assert supported + contradicted <= rules.ALPHA + error
    assert contradicted == pytest.approx(rules.ALPHA / 2, abs=error)  # nor is the level wasted


def test_the_level_is_met_by_single_tests_too():
    """Both directions together, for 22 claims of one part each, independent of one another."""
    values = np.random.default_rng(0).normal(size=(4000, 22, 5))
    found = [rules.adjusted(one_sided_p(sign * values)) <= rules.ALPHA for sign in (1, -1)]
    rate = (found[0] | found[1]).any(axis=-1).mean()
    assert rate == pytest.approx(rules.ALPHA, abs=3 * np.sqrt(0.05 * 0.95 / 4000))


@pytest.mark.parametrize("confidence", [0, 1, -1, 1.5])
def test_a_coverage_outside_its_range_is_refused(confidence):
    with pytest.raises(ParameterError, match="confidence"):
        student_interval(np.ones(3), confidence)
    with pytest.raises(ParameterError, match="confidence"):
        bootstrap_t_interval(np.ones(3), confidence, rng=np.random.default_rng(0))
