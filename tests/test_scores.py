"""Scores of methods: which validation is taken, which method is marked as best, and what an average is of."""

import polars as pl
import pytest

from entropy_lab.errors import ParameterError
from entropy_lab.plots.collect import collect
from entropy_lab.plots.panels import Panel
from entropy_lab.plots.scores import AVERAGE, chosen_steps, scores
from tests.one_table_runs import answers, validation_run


def score_rows(values, benchmark="M"):
    """Rows for `scores`: {series: accuracy of each seed}."""
    flat = [(series, y) for series, seeds in values.items() for y in seeds]
    frame = pl.DataFrame({"series": [s for s, _ in flat], "y": [y for _, y in flat]}).with_row_index("run")
    nothing = dict.fromkeys(("low", "high", "raw"), pl.lit(None, pl.Float64))
    return frame.with_columns(x=1.0, k=4, benchmark=pl.lit(benchmark), **nothing)


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
