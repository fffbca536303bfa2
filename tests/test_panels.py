"""Seeds, smoothing, choices, and the tidy table behind each figure."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from entropy_lab import schema
from entropy_lab.advantages import fingerprint, get
from entropy_lab.errors import ParameterError
from entropy_lab.plots.collect import collect
from entropy_lab.plots.panels import Panel
from entropy_lab.plots.points import common_decoding, mean_over, points_of_run
from entropy_lab.plots.scores import AVERAGE, chosen_steps, scores
from entropy_lab.plots.series import INTERVAL, RunTables, interval_factors, over_seeds, running_mean
from entropy_lab.table import Table

ENTROPY = Panel("a", "Entropy", "entropy", ("step",), "entropy", "entropy", "nats/token", low="ci_low", high="ci_high")
VALIDATION = Panel("b", "Validation", "validation", ("step",), "accuracy", "accuracy", "%", decoding=True)


def entropy_run(label="GRPO", seed=0, values=(0.4, 0.3, 0.2), method="grpo", steps=None, **more):
    values = np.asarray(values, dtype=float)
    steps = np.arange(len(values)) if steps is None else np.asarray(steps)
    columns = {"step": steps, "entropy": values, "ci_low": values - 0.05, "ci_high": values + 0.07}
    table = Table.of("entropy", columns, confidence=0.9)
    return RunTables(label, method, more.pop("params", {}), seed, 8, {"entropy": table}, **more)


def validation_run(rows, label="GRPO", seed=0):
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return RunTables(label, "grpo", {}, seed, 8, {"validation": Table.of("validation", columns, confidence=0.95)})


def answers(step, benchmark, accuracy, greedy=True, k=1):
    head = {"step": step, "benchmark": benchmark, "greedy": greedy, "k": k, "accuracy": accuracy}
    return head | {"ci_low": accuracy - 0.1, "ci_high": accuracy + 0.1}


def score_rows(values, benchmark="M"):
    """Rows for `scores`: {series: accuracy of each seed}."""
    flat = [(series, y) for series, seeds in values.items() for y in seeds]
    frame = pl.DataFrame({"series": [s for s, _ in flat], "y": [y for _, y in flat]}).with_row_index("run")
    nothing = dict.fromkeys(("low", "high", "raw"), pl.lit(None, pl.Float64))
    return frame.with_columns(x=1.0, k=4, benchmark=pl.lit(benchmark), **nothing)


# Seeds and smoothing


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


# Which runs, which answers


def test_a_missing_analysis_drops_its_panel_and_says_so():
    table = collect("f", [ENTROPY, VALIDATION], [entropy_run()])
    assert [panel["key"] for panel in table.metadata["panels"]] == ["a"]
    assert table.metadata["missing"] == [{"panel": "b", "model": "", "series": "", "reason": "no validation table"}]


def test_a_run_without_an_analysis_that_others_have_is_named():
    without = RunTables("Dr.GRPO", "dr_grpo", {}, 3, 8, {})
    table = collect("f", [ENTROPY], [entropy_run(), without])
    assert table.metadata["missing"][0]["series"] == "Dr.GRPO, seed 3"
    assert set(table.frame["series"]) == {"GRPO"}


@pytest.mark.parametrize("values", [[], [np.nan, np.nan]])
def test_a_table_without_a_value_is_missing(values):
    table = collect("f", [ENTROPY], [entropy_run(values=values)])
    assert table.metadata["missing"][0]["reason"] == "no value of entropy by step"
    assert len(table) == 0


def test_a_panel_of_one_x_has_bars_and_says_so():
    table = collect("f", [ENTROPY], [entropy_run(values=[0.4])])
    assert table.metadata["panels"][0]["notes"] == ["bar = 90 % bootstrap interval over prompts"]


def test_a_column_that_a_table_lacks_is_missing():
    run = RunTables("A", "grpo", {}, 0, 8, {"entropy": Table("entropy", pl.DataFrame({"step": [0]}))})
    assert collect("f", [ENTROPY], [run]).metadata["missing"][0]["series"] == "A, seed 0"


def test_the_papers_methods_are_chosen_when_there_is_one_of_them():
    panel = Panel(**{**vars(ENTROPY), "methods": ("reinforce", "pos_only")})
    both = [entropy_run(), entropy_run("R", method="reinforce")]
    assert set(collect("f", [panel], both).frame["series"]) == {"R"}
    assert set(collect("f", [panel], both[:1]).frame["series"]) == {"GRPO"}


def test_greedy_answers_are_compared_only_when_every_run_has_them():
    first = validation_run([answers(0, "A", 0.6), answers(0, "A", 0.5, greedy=False, k=8)], "one")
    second = validation_run([answers(0, "A", 0.4, greedy=False, k=8)], "two")
    assert collect("f", [VALIDATION], [first]).metadata["panels"][0]["title"] == "Validation, greedy"
    table = collect("f", [VALIDATION], [first, second])
    assert table.metadata["panels"][0]["title"] == "Validation, avg@8"
    assert table.frame["y"].to_list() == [0.5, 0.4]


def test_a_run_without_the_common_decoding_is_named():
    first = validation_run([answers(0, "A", 0.6)], "one")
    second = validation_run([answers(0, "A", 0.4, greedy=None)], "two")
    assert common_decoding([(first, first.tables["validation"].frame)]) == "greedy"
    table = collect("f", [VALIDATION], [first, second])
    assert table.metadata["missing"][0] == {
        "panel": "b", "model": "", "series": "two, seed 0", "reason": "no greedy answers"
    }  # fmt: skip


def test_the_average_is_over_benchmarks_that_all_runs_have():
    panel = Panel(**{**vars(VALIDATION), "average_over": "benchmark"})
    first = validation_run([answers(0, "A", 0.2), answers(0, "B", 0.4), answers(0, "C", 0.9)], "one")
    second = validation_run([answers(0, "A", 0.1), answers(0, "B", 0.5)], "two")
    table = collect("f", [panel], [first, second])
    assert table.frame["y"].to_list() == pytest.approx([0.3, 0.3])
    assert "mean over 2 benchmarks" in table.metadata["panels"][0]["notes"]
    third = validation_run([answers(0, "D", 0.1)], "three")
    assert "in common" in collect("f", [panel], [first, third]).metadata["missing"][0]["reason"]


def test_a_step_that_lacks_a_benchmark_has_no_average():
    frame = pl.DataFrame({"step": [0, 0, 10], "benchmark": ["A", "B", "A"], "y": [0.2, 0.4, 0.3]})
    assert mean_over(frame, "benchmark", ["A", "B"], "step", "y").sort("step")["y"].to_list() == pytest.approx(
        [0.3, None]
    )


def test_each_benchmark_gets_a_panel_of_its_own():
    panel = Panel(**{**vars(VALIDATION), "one_per": "benchmark", "low": "ci_low", "high": "ci_high"})
    table = collect("f", [panel], [validation_run([answers(0, "B", 0.4), answers(0, "A", 0.2)])])
    assert [(one["key"], one["title"]) for one in table.metadata["panels"]] == [
        ("b1", "A"),
        ("b2", "B"),
    ]
    assert all("greedy" in one["notes"] for one in table.metadata["panels"])
    assert table.frame.select("panel", "y", "low").rows() == [("b1", 0.2, 0.1), ("b2", 0.4, pytest.approx(0.3))]


def test_a_run_that_lacks_a_benchmark_is_named():
    panel = Panel(**{**vars(VALIDATION), "one_per": "benchmark"})
    both = validation_run([answers(0, "A", 0.2), answers(0, "B", 0.4)], "one")
    table = collect("f", [panel], [both, validation_run([answers(0, "A", 0.1)], "two")])
    assert [(lack["panel"], lack["series"]) for lack in table.metadata["missing"]] == [("b2", "two")]


def test_models_get_panels_of_their_own():
    table = collect("f", [ENTROPY], [entropy_run(model="small"), entropy_run(model="large")])
    assert [panel["model"] for panel in table.metadata["panels"]] == ["small", "large"]
    assert table.frame["n_seeds"].to_list() == [1] * 6


def test_the_first_column_for_x_that_the_tables_have_is_taken():
    panel = Panel("c", "All solved", "solve_rates", ("step", "epoch"), "all_solved", "share", "%")
    by_epoch = {"epoch": [0, 1], "all_solved": [0.2, 0.3]}
    for columns, x in ((by_epoch, "epoch"), (by_epoch | {"step": [4, 8]}, "step")):
        run = RunTables("A", "grpo", {}, 0, 8, {"solve_rates": Table.of("solve_rates", columns)})
        table = collect("f", [panel], [run])
        assert table.frame["x"].to_list() == columns[x]
        assert table.metadata["panels"][0]["x_label"].startswith({"step": "training step", "epoch": "epoch"}[x])


def test_notes_take_their_numbers_from_the_tables():
    panel = Panel(**{**vars(ENTROPY), "note": "first {first_steps} steps", "low": "", "high": ""})
    runs = [entropy_run(seed=0), entropy_run(seed=1)]
    for run, steps in zip(runs, (40, None), strict=True):
        run.tables["entropy"].metadata["first_steps"] = steps
    assert collect("f", [panel], runs[:1]).metadata["panels"][0]["notes"] == ["first 40 steps"]
    assert collect("f", [panel], runs[1:]).metadata["panels"][0]["notes"] == []


def test_the_same_seed_twice_is_refused():
    with pytest.raises(ParameterError, match="seed 0 2 times"):
        collect("f", [ENTROPY], [entropy_run(), entropy_run()])


def test_one_label_for_two_methods_is_refused():
    with pytest.raises(ParameterError, match="stands for grpo"):
        collect("f", [ENTROPY], [entropy_run(seed=0), entropy_run(seed=1, method="rloo")])


def test_runs_of_unknown_seed_count_as_seeds():
    frame = collect("f", [ENTROPY], [entropy_run(seed=None, values=[0.1]), entropy_run(seed=None, values=[0.3])]).frame
    assert frame.select("y", "low", "high", "n_seeds").row(0) == pytest.approx((0.2, 0.1, 0.3, 2))


# Formulas


def test_formulas_are_the_estimators_fingerprints_at_the_runs_group_size():
    panel = Panel("a", "A", "fingerprint", ("accuracy",), "negative", "A", "1", estimators=("grpo", "ent_increase"))
    run = RunTables("A", "grpo", {}, 0, 4, {})
    frame = collect("f", [panel], [run]).frame
    for name in panel.estimators:
        rows, expected = frame.filter(pl.col("method") == name), fingerprint(get(name), group_size=4)
        np.testing.assert_array_equal(rows["x"].to_numpy(), expected.accuracy)
        np.testing.assert_array_equal(rows["y"].to_numpy(), expected.negative)
    assert frame["n_seeds"].null_count() == len(frame) == 10
    assert len(collect("f", [panel], [])) == 18


# Scores


def test_the_last_complete_validation_is_chosen():
    rows = pl.DataFrame(
        {"run": [0] * 5, "x": [10.0, 10, 20, 20, 30], "benchmark": list("ABABA"), "y": [0.1, 0.9, 0.2, 0.3, 0.4]}
    )
    assert chosen_steps(rows, "last") == {0: 20}
    assert chosen_steps(rows, "best") == {0: 10}
    assert chosen_steps(rows, "best:A") == {0: 20}
    for rule in ("best:C", "worst", "last:A"):
        with pytest.raises(ParameterError, match="rule"):
            chosen_steps(rows, rule)


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ({"A": [0.6, 0.61, 0.62], "B": [0.3, 0.31, 0.32]}, ["A"]),
        ({"A": [0.6, 0.61, 0.62], "B": [0.58, 0.59, 0.60]}, []),  # all of A above all of B, but their intervals overlap
        ({"A": [0.6, 0.61, 0.62]}, []),  # nothing to be better than
        ({"A": [0.6, 0.61], "B": [0.3, 0.31]}, []),  # two seeds have no interval
        ({"A": [0.6], "B": [0.3]}, []),
        ({"A": [0.6, 0.61, 0.62], "B": [0.3, 0.31]}, []),
        ({"A": [0.6, 0.6, 0.6], "B": [0.6, 0.6, 0.6], "C": [0.1, 0.2, 0.3]}, []),  # a tie
        ({"A": [0.3, 0.9, 0.6], "B": [0.5, 0.51, 0.52]}, []),
    ],
)
def test_the_best_is_marked_only_beyond_all_other_intervals(values, best):
    rows = score_rows(values)
    assert scores(rows).filter("best")["series"].to_list() == best


@pytest.mark.parametrize(
    ("base", "best"),
    [([0.3], ["A"]), ([0.61], []), ([0.9], [])],  # a base policy of one seed is no rival, but is to be exceeded
)
def test_the_base_policy_needs_no_seeds_but_must_be_exceeded(base, best):
    rows = score_rows({"A": [0.6, 0.61, 0.62], "B": [0.3, 0.31, 0.32], "base": base})
    rows = rows.with_columns(
        pl.when(pl.col("series") == "base").then(pl.col("y")).alias(end) for end in ("low", "high")
    )
    assert scores(rows, {"base"}).filter("best")["series"].to_list() == best


def test_the_average_column_is_the_mean_of_each_seeds_means():
    rows = pl.concat([score_rows({"S": [0.2, 0.4]}, "A"), score_rows({"S": [0.6, 0.5]}, "B")])
    table = scores(rows).filter(pl.col("benchmark") == AVERAGE)
    assert table.select("y", "low", "high", "n_seeds").row(0) == pytest.approx((0.425, 0.4, 0.45, 2))


def test_a_method_that_lacks_a_benchmark_has_no_average():
    rows = pl.concat([score_rows({"S": [0.2], "T": [0.3]}, "A"), score_rows({"S": [0.6]}, "B")])
    table = scores(rows).filter((pl.col("benchmark") == AVERAGE) & pl.col("y").is_not_null())
    assert table["series"].to_list() == ["S"]


def test_scores_record_the_step_of_every_seed():
    panel = Panel("s", "Accuracy", "validation", ("step",), "accuracy", "accuracy", "%", kind="scores", at="best")
    first = validation_run([answers(10, "A", 0.3), answers(20, "A", 0.2)], seed=0)
    second = validation_run([answers(10, "A", 0.1), answers(20, "A", 0.5)], seed=1)
    table = collect("table1", [panel], [first, second])
    assert [(row["seed"], row["step"]) for row in table.metadata["steps"]] == [(0, 10), (1, 20)]
    assert table.frame.select("y", "low", "high").row(0) == pytest.approx((0.4, 0.3, 0.5))
    assert table.metadata["panels"][0]["notes"][0] == "best validation, step 10–20"


# The table itself


def test_the_tidy_table_survives_its_file(tmp_path: Path):
    table = collect("figure2", [ENTROPY, VALIDATION], [entropy_run(seed=0), entropy_run(seed=1)])
    read = Table.read(table.write(tmp_path / "figure2.parquet"))
    assert read.frame.equals(table.frame)
    assert read.metadata == table.metadata


def test_every_row_says_how_its_method_was_set():
    frame = collect("f", [ENTROPY], [entropy_run(params={"clip_high": 0.28})]).frame
    assert json.loads(frame["params"][0]) == {"clip_high": 0.28}
    assert frame["method"][0] == "grpo"


def test_panels_read_columns_that_analyses_write():
    assert {ENTROPY.y, ENTROPY.low, ENTROPY.high, *ENTROPY.x} <= set(schema.ANALYSES["entropy"])


def test_points_at_the_ends_of_an_open_range_are_left_out():
    rows = {"accuracy": [0.0, 0.5, 1.0], "n_groups": [1, 1, 1], "covariance": [0.0, 0.2, 0.0]}
    run = RunTables("A", "grpo", {}, 0, 8, {"covariance": Table.of("covariance", rows)})
    panel = Panel("c", "C", "covariance", ("accuracy",), "covariance", "c", "nats/token", inside=(0, 1))
    assert collect("mine", [panel], [run]).frame["x"].to_list() == [0.5]
