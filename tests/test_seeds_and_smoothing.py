"""What a curve is: means and bands over seeds, running means, and the notes that say which."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from entropy_lab.plots.collect import collect
from entropy_lab.plots.panels import Panel
from entropy_lab.plots.points import points_of_run
from entropy_lab.plots.series import INTERVAL, RunTables, interval_factors, over_seeds, running_mean
from entropy_lab.table import Table
from tests.one_table_runs import ENTROPY, entropy_run

# Seeds


def test_mean_and_interval_over_seeds_by_hand():
    runs = [entropy_run(seed=k, values=v) for k, v in enumerate([(0.1, 0.5), (0.2, 0.6), (0.6, 0.1)])]
    table = collect("f", [ENTROPY], runs)
    found = table.frame.select("x", "y", "low", "high", "n_seeds", "band").rows()
    for (x, y, low, high, *rest), values in zip(found, ([0.1, 0.2, 0.6], [0.5, 0.6, 0.1]), strict=True):
        expected = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
        assert (y, low, high) == pytest.approx((np.mean(values), *expected), rel=1e-12), x
        assert rest == [3, INTERVAL]
    assert table.metadata["panels"][0]["notes"] == ["band = 95 % interval of the mean over 3 seeds (Student's t)"]


def test_two_seeds_have_a_range():
    table = collect("f", [ENTROPY], [entropy_run(seed=0, values=[0.1, 0.5]), entropy_run(seed=1, values=[0.3, 0.2])])
    assert table.frame.select("low", "high").rows() == [(0.1, 0.3), (0.2, 0.5)]
    assert table.metadata["panels"][0]["notes"] == ["band = range (min–max) over 2 seeds"]


def test_an_interval_needs_three_values_at_its_point():
    values = [(0.4, 0.3), (0.2, 0.1), (0.3, np.nan)]
    table = collect("f", [ENTROPY], [entropy_run(seed=k, values=v) for k, v in enumerate(values)])
    assert table.frame["n_seeds"].to_list() == [3, 2]
    assert table.frame["y"].to_list() == pytest.approx([0.3, 0.2])
    assert [low is None for low in table.frame["low"]] == [False, True]


def test_an_interval_keeps_to_what_a_share_can_be():
    panel = Panel("c", "Solved", "solve_rates", ("epoch",), "all_solved", "share", "%", bounds=(0, 1))
    runs = [
        RunTables("A", "grpo", {}, k, 8, {"solve_rates": Table.of("solve_rates", {"epoch": [0], "all_solved": [y]})})
        for k, y in enumerate([0.0, 0.01, 0.03])
    ]
    row = collect("f", [panel], runs).frame.row(0, named=True)
    assert row["low"] == 0
    assert 0.03 < row["high"] < 1


@given(st.integers(3, 12), st.data())
def test_the_half_width_is_that_of_scipys_t_interval(n, data):
    values = data.draw(hnp.arrays(np.float64, n, elements=st.floats(-9, 9)))
    half = interval_factors([n])[n] * values.std(ddof=1)
    assert half == pytest.approx(stats.t.ppf(0.975, n - 1) * stats.sem(values), abs=1e-12)


def test_one_seed_keeps_the_interval_of_its_analysis():
    table = collect("f", [ENTROPY], [entropy_run(values=[0.4, 0.3])])
    assert table.frame.select("low", "high", "n_seeds").row(0) == pytest.approx((0.35, 0.47, 1))
    assert table.metadata["panels"][0]["notes"] == ["band = 90 % bootstrap interval over prompts"]


def test_all_meanings_of_a_band_are_said_when_both_are_drawn():
    runs = [entropy_run(seed=0), entropy_run(seed=1), entropy_run("Dr.GRPO", method="dr_grpo")]
    runs += [entropy_run("RLOO", k, method="rloo", values=[0.1, 0.2 + 0.1 * k, 0.3]) for k in range(3)]
    table = collect("f", [ENTROPY], runs)
    assert table.metadata["panels"][0]["notes"] == [
        "band = 95 % interval of the mean over 3 seeds (Student's t)",
        "band = range (min–max) over 2 seeds where there are two",
        "band = 90 % bootstrap interval over prompts where there is one seed",
    ]
    assert set(table.frame["band"]) == {INTERVAL, "range over seeds", "bootstrap interval over prompts"}


def test_a_point_that_half_of_the_seeds_lack_has_no_mean():
    runs = [entropy_run(seed=0, values=[0.4, 0.3, 0.2]), entropy_run(seed=1, values=[0.2, 0.1])]
    table = collect("f", [ENTROPY], runs)
    assert table.frame["y"].to_list() == pytest.approx([0.3, 0.2, None])
    assert table.frame["n_seeds"].to_list() == [2, 2, 1]
    assert "points that half of the seeds lack are left out" in table.metadata["panels"][0]["notes"]


def test_seeds_with_different_x_meet_where_most_have_a_value():
    steps = [[0, 10, 20], [0, 10, 30], [0, 20, 30]]
    runs = [entropy_run(seed=k, values=[k, k + 1.0, k + 2.0], steps=s) for k, s in enumerate(steps)]
    frame = collect("f", [ENTROPY], runs).frame
    assert frame.select("x", "y", "n_seeds").rows() == [(0, 1, 3), (10, 1.5, 2), (20, 2.5, 2), (30, 3.5, 2)]


@given(hnp.arrays(np.float64, (3, 6), elements=st.one_of(st.floats(-5, 5), st.just(np.nan))))
def test_over_seeds_agrees_with_numpy(values):
    rows = [("S", run, float(x), float(values[run, x])) for run in range(3) for x in range(6)]
    nothing = dict.fromkeys(("low", "high", "raw"), pl.lit(None, pl.Float64))
    frame = pl.DataFrame(rows, ["series", "run", "x", "y"], orient="row").with_columns(**nothing)
    found = {row["x"]: row for row in over_seeds(frame).iter_rows(named=True)}
    runs = int(np.isfinite(values).any(axis=1).sum())
    for x in range(6) if runs else ():
        known = values[np.isfinite(values[:, x]), x]
        assert found[x]["n_seeds"] == len(known)
        if 2 * len(known) <= runs:
            assert found[x]["y"] is None
            continue
        assert found[x]["y"] == pytest.approx(known.mean(), abs=1e-12)
        ends = found[x]["low"], found[x]["high"]
        if runs == 2:
            assert ends == (known.min(), known.max())
        elif len(known) == 3:
            half = stats.t.ppf(0.975, 2) * known.std(ddof=1) / np.sqrt(3)
            assert ends == pytest.approx((known.mean() - half, known.mean() + half), abs=1e-9)
        else:
            assert ends == (None, None)


# Smoothing


@given(
    hnp.arrays(np.float64, 12, elements=st.one_of(st.floats(-3, 3), st.just(np.nan))),
    st.lists(st.integers(0, 40), min_size=12, max_size=12, unique=True),
    st.integers(1, 15),
)
def test_running_mean_agrees_with_its_definition(y, steps, window):
    x = np.sort(np.array(steps, dtype=float))
    found = running_mean(x, y, window)
    for i in range(12):
        near = y[np.abs(x - x[i]) <= (window - 1) / 2]
        expected = near[np.isfinite(near)].mean() if np.isfinite(y[i]) else np.nan
        np.testing.assert_allclose(found[i], expected, atol=1e-12)


def test_smoothing_keeps_the_raw_values_and_says_its_window():
    panel = Panel("d", "Reward", "training", ("step",), "reward", "reward", "1", window=3)
    rewards = [0.0, 3.0, 0.0, 6.0, 3.0, 0.0]
    run = RunTables("A", "grpo", {}, 0, 8, {"training": Table.of("training", {"step": range(6), "reward": rewards})})
    table = collect("f", [panel], [run])
    assert table.frame["raw"].to_list() == rewards
    assert table.frame["y"].to_list() == pytest.approx([1.5, 1, 3, 3, 3, 1.5])
    assert table.metadata["panels"][0]["notes"] == ["running mean over 3 steps, pale = each step"]


def test_a_run_shorter_than_two_windows_is_not_smoothed():
    panel = Panel("d", "Reward", "training", ("step",), "reward", "reward", "1", window=3)
    columns = {"step": range(5), "reward": [0.0, 1, 0, 1, 0]}
    table = collect("f", [panel], [RunTables("A", "grpo", {}, 0, 8, {"training": Table.of("training", columns)})])
    assert table.frame["y"].to_list() == columns["reward"]
    assert table.frame["raw"].null_count() == 5
    assert table.metadata["panels"][0]["notes"] == []


def test_rows_that_share_an_x_are_averaged_without_an_interval():
    frame = pl.DataFrame({"epoch": [0, 0, 1], "y": [0.2, 0.4, 0.5], "lo": [0.1, 0.3, 0.4], "hi": [0.3, 0.5, 0.6]})
    found = points_of_run(frame, ("epoch", "y", "lo", "hi"))
    assert found["y"].to_list() == pytest.approx([0.3, 0.5])
    assert found["low"].null_count() == 2
