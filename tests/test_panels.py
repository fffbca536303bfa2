"""The tidy table behind each figure: which runs and answers its panels show, what is missing, and its file."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from entropy_lab import recipes, schema
from entropy_lab.advantages import fingerprint, get
from entropy_lab.errors import ParameterError
from entropy_lab.plots.collect import collect
from entropy_lab.plots.panels import Panel
from entropy_lab.plots.points import common_decoding, mean_over
from entropy_lab.plots.series import RunTables
from entropy_lab.table import Table
from tests.one_table_runs import ENTROPY, VALIDATION, answers, entropy_run, validation_run

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


@pytest.mark.parametrize("figure", recipes.names("figures"))
def test_panels_read_columns_that_analyses_write(figure):
    for panel in recipes.load("figures", figure).PANELS:
        if panel.analysis != "fingerprint":  # of the estimator, without a run
            written = set(schema.ANALYSES[panel.analysis])
            assert {panel.y, panel.low, panel.high, panel.z} - {None, ""} <= written, panel.key
            assert written & set(panel.x), panel.key  # the first that is there


def test_points_at_the_ends_of_an_open_range_are_left_out():
    rows = {"accuracy": [0.0, 0.5, 1.0], "n_groups": [1, 1, 1], "covariance": [0.0, 0.2, 0.0]}
    run = RunTables("A", "grpo", {}, 0, 8, {"covariance": Table.of("covariance", rows)})
    panel = Panel("c", "C", "covariance", ("accuracy",), "covariance", "c", "nats/token", inside=(0, 1))
    assert collect("mine", [panel], [run]).frame["x"].to_list() == [0.5]
