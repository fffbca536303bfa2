"""The scale of a prediction and the change it is held against: both with intervals, where there is one."""

import numpy as np
import polars as pl
import pytest

from entropy_lab.bootstrap import TOGETHER
from entropy_lab.errors import ParameterError
from entropy_lab.scale_fit import through_origin, window_sums
from entropy_lab.step_change import StepChanges

# Scale


def noisy(rng, n=100, scale=0.4, noise=0.015):
    x = -0.02 * np.exp(-np.arange(n) / 40) * (1 + 0.4 * rng.normal(size=n))
    level = np.concatenate([[0.0], np.cumsum(scale * x + 0.003 * rng.normal(size=n))])
    return x, np.diff(level + noise * rng.normal(size=n + 1))


def test_intervals_of_the_scale_hold_it():
    found = [through_origin(*noisy(np.random.default_rng(seed)), np.random.default_rng(0)) for seed in range(40)]
    assert np.mean([fit.low < 0.4 < fit.high for fit in found]) >= 0.85
    assert np.mean([fit.identified for fit in found]) > 0.95
    assert np.mean([fit.scale for fit in found]) == pytest.approx(0.4, abs=0.03)


def test_of_nothing_that_goes_together_no_scale_is_identified():
    rng = np.random.default_rng(0)
    fits = [through_origin(rng.normal(size=60), rng.normal(size=60), np.random.default_rng(0)) for _ in range(30)]
    assert np.mean([fit.identified for fit in fits]) <= 0.1


def test_a_wild_step_in_twenty_moves_the_scale_little():
    x = np.linspace(1, 2, 60)
    y = 0.5 * x
    y[::20] = 30.0
    assert through_origin(x, y, np.random.default_rng(0), span=1).scale == pytest.approx(0.5, abs=0.02)


def test_predictions_of_every_second_step_stand_for_the_others():
    x = np.linspace(1, 2, 80)
    sparse = np.where(np.arange(80) % 2, np.nan, x)
    assert through_origin(sparse, 0.5 * x, np.random.default_rng(0)).scale == pytest.approx(0.5, rel=0.02)
    assert through_origin(sparse, 0.5 * x, np.random.default_rng(0), span=1).n_windows == 40


def test_windows_across_a_gap_are_left_out():
    y = np.ones(40)
    y[20] = np.nan
    assert through_origin(np.ones(40), y, np.random.default_rng(0), span=3).n_windows == 38 - 3
    np.testing.assert_array_equal(window_sums(np.array([1.0, np.nan, np.nan, 2.0]), 2), [2.0, np.nan, 4.0])


@pytest.mark.parametrize(
    ("x", "y", "span"),
    [
        (np.ones(7), np.ones(7), None),
        (np.ones(20), np.ones(20), 10),
        (np.zeros(20), np.ones(20), None),
        (np.ones(20), np.zeros(20), None),
        (np.full(20, np.nan), np.ones(20), None),
        (np.zeros(0), np.zeros(0), None),
    ],
)
def test_what_cannot_be_fitted_is_not(x, y, span):
    assert through_origin(x, y, np.random.default_rng(0), span=span) is None


@pytest.mark.parametrize("wrong", [{"span": 0}, {"confidence": 1.0}, {"measured": np.ones(3)}])
def test_bad_arguments_of_the_fit(wrong):
    arguments = {"predicted": np.ones(20), "measured": np.ones(20), "rng": np.random.default_rng(0)} | wrong
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        through_origin(**arguments)


# Measured change


def test_a_change_that_all_prompts_share_is_certain_and_others_are_as_the_delta_method_says():
    rng = np.random.default_rng(0)
    names, nats, tokens = pl.Series([f"q{i}" for i in range(60)]), rng.random(60) * 9, rng.integers(5, 15, 60) + 0.0
    same = StepChanges()
    same.add(0, names, nats, tokens)
    same.add(1, names, nats + 0.1 * tokens, tokens)
    assert [same.changes[0].low, same.changes[0].high] == pytest.approx([0.1, 0.1])
    other = StepChanges(n_boot=4000)
    other.add(0, names, nats, tokens)
    other.add(1, names + "x", nats, tokens)
    residual = (nats - nats.sum() / tokens.sum() * tokens) / tokens.sum()
    assert other.changes[0].variance == pytest.approx(2 * (residual**2).sum(), rel=0.15)
    assert other.changes[0].value == 0
    assert other.noise is None


def test_steps_resampled_together_have_the_intervals_that_each_has_alone():
    rng, whole = np.random.default_rng(0), StepChanges(n_boot=50)
    steps = []
    for step in range(2 * TOGETHER + 3):
        n = 9 if step == 5 else 6  # another number of prompts in between
        steps.append((pl.Series([f"q{step % 3}-{i}" for i in range(n)]), rng.random(n), rng.random(n) + 0.5))
        whole.add(step, *steps[-1])
    for step in range(len(steps) - 1):
        alone = StepChanges(n_boot=50)
        alone.add(step, *steps[step])
        alone.add(step + 1, *steps[step + 1])
        for name in ("value", "low", "high", "variance"):
            assert getattr(whole.changes[step], name) == pytest.approx(getattr(alone.changes[step], name), rel=1e-9)


def test_steps_apart_and_single_prompts_have_no_interval():
    one, two = (pl.Series(names) for names in (["a"], ["a", "b"]))
    changes = StepChanges()
    for step, names in ((0, one), (1, two), (3, two)):
        changes.add(step, names, np.ones(len(names)), np.ones(len(names)))
    changes.add(4, two, np.zeros(2), np.zeros(2))
    assert changes.frame().rows() == [(0, 0.0, None, None)]
