"""The picture of the ledger: stacks are the rows of the table, the line is what was measured, and all can be read."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from entropy_lab import recipes
from entropy_lab.figure import draw_all
from entropy_lab.plots import style
from entropy_lab.plots.collect import collect
from entropy_lab.plots.series import RunTables
from entropy_lab.schema import ANALYSES
from entropy_lab.table import Table
from tests.made_up_study import METHODS, SINGLE, axes_of, texts

MODULE = recipes.load("figures", "entropy_ledger")
PARTS = {"positive": 0.4, "negative": -1.0, "zero": 0.1}


def ledger_run(label="GRPO", seed=0, n_steps=40, model="", sparse=False):
    rng = np.random.default_rng([seed, n_steps])
    rows = []
    for step in range(n_steps):
        known = not (sparse and step % 2)
        cells = [
            (step, channel, p, part * 1e-3 * (1 + rng.random()))
            for channel, part in PARTS.items()
            for p in (0.0, 0.25, 0.5)
            if (channel == "zero") == (p == 0)
        ]
        change = rng.normal(-2e-3, 4e-3) if step < n_steps - 1 else None
        rows += [(*cell[:3], cell[3] if known else None, None) for cell in cells]
        rows += [(step, "all", None, sum(cell[3] for cell in cells) if known else None, change)]
    names = ("step", "channel", "accuracy", "predicted", "measured")
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
    table = Table.of("ledger", columns, predictor="increment", doubt="")
    return RunTables(label, label, {}, seed, 8, {"ledger": table}, model)


CASES = {
    "single": lambda: [ledger_run()],
    "short": lambda: [ledger_run(n_steps=3)],
    "sparse": lambda: [ledger_run(sparse=True)],
    "seeds": lambda: [ledger_run(seed=seed, n_steps=24) for seed in range(3)],
    "methods": lambda: [ledger_run(label, n_steps=12) for label, *_ in METHODS],
    "models": lambda: [ledger_run(label, model=model) for model in ("small", "large") for label in ("A", "B")],
    "nothing": lambda: [],
}


@pytest.fixture(scope="module")
def drawn():
    found = {}
    for case, runs in CASES.items():
        table = collect("entropy_ledger", MODULE.PANELS, runs())
        found[case] = table, MODULE.draw(table)
    return found


def total(frame, by, name="predicted"):
    cells = frame.filter(pl.col("channel") != "all", pl.col(name).is_not_null())
    return cells.group_by("channel", by).agg(pl.col(name).sum()).sort(by)


def test_bars_by_accuracy_are_the_sums_of_the_table(drawn):
    table, figure = drawn["single"]
    sums = total(ledger_run().tables["ledger"].frame, "accuracy")
    rows = table.frame.filter(pl.col("panel") == "c")
    (axes,) = (axes for axes in figure.axes if axes.get_label() == "c")
    bars = {(patch.get_gid(), patch.get_x() + patch.get_width() / 2): patch.get_height() for patch in axes.patches}
    assert len(bars) == 9
    for channel, accuracy, value in sums.rows():
        (y,) = rows.filter(pl.col("series") == f"{channel} channel", pl.col("x") == accuracy)["y"]
        assert bars[f"{channel} channel", accuracy] == pytest.approx(y) == pytest.approx(value)


def test_bars_of_many_accuracies_are_not_smoothed():
    # 33 accuracies, as of groups of 32: a running mean over 11 would be one over all of them.
    accuracy = np.arange(33) / 32
    columns = {"step": [0] * 34, "channel": ["positive"] * 33 + ["all"], "accuracy": [*accuracy, None]}
    columns |= {"predicted": [*accuracy, accuracy.sum()], "measured": [None] * 33 + [1.0]}
    run = RunTables(
        "GRPO", "grpo", {}, 0, 32, {"ledger": Table.of("ledger", columns, predictor="covariance", doubt="")}
    )
    rows = collect("entropy_ledger", MODULE.PANELS, [run]).frame.filter(pl.col("panel") == "c")
    assert rows["y"].to_list() == pytest.approx(accuracy.tolist())


def test_running_sums_end_at_the_totals_and_the_line_at_the_change_of_the_run(drawn):
    table, figure = drawn["single"]
    ledger = ledger_run().tables["ledger"].frame
    last = table.frame.filter(pl.col("panel") == "b").sort("x").group_by("series").last()
    for channel, value in (
        ledger.filter(pl.col("channel") != "all").group_by("channel").agg(pl.col("predicted").sum()).rows()
    ):
        assert last.filter(pl.col("series") == f"{channel} channel")["y"].item() == pytest.approx(value)
    assert last.filter(pl.col("series") == "measured")["y"].item() == pytest.approx(ledger["measured"].sum())
    (axes,) = (axes for axes in figure.axes if axes.get_label() == "b")
    (line,) = (line for line in axes.lines if line.get_gid() is None)
    np.testing.assert_allclose(line.get_ydata(), ledger["measured"].drop_nulls().cum_sum().to_numpy())


def test_areas_stand_on_each_other(drawn):
    table, figure = drawn["single"]
    for panel, axes, rows in axes_of(table, figure):
        if panel["x"] != "step":
            continue
        areas = {
            area.get_gid(): np.concatenate([path.vertices for path in area.get_paths()]) for area in axes.collections
        }
        wide = rows.pivot("series", index="x", values="y").sort("x")
        positive, zero, negative = (wide[f"{name} channel"].to_numpy() for name in ("positive", "zero", "negative"))
        tops = {"positive channel": positive, "zero channel": positive + zero, "negative channel": negative * 0}
        feet = {"positive channel": positive * 0, "zero channel": positive, "negative channel": negative}
        for name, vertices in areas.items():
            assert vertices[:, 1].max() == pytest.approx(tops[name].max())
            assert vertices[:, 1].min() == pytest.approx(feet[name].min())


def test_steps_without_a_prediction_are_counted_for(drawn):
    sums = [
        drawn[case][0].frame.filter(pl.col("panel") == "b", pl.col("series") == "negative channel").sort("x")["y"][-1]
        for case in ("single", "sparse")
    ]
    assert sums[1] == pytest.approx(sums[0], rel=0.2)


def test_groups_without_a_verdict_stand_at_no_accuracy():
    columns = {"step": [0] * 3, "channel": ["positive", "positive", "all"], "accuracy": [0.5, None, None]}
    table = Table.of("ledger", {**columns, "predicted": [1.0, 2.0, 3.0], "measured": [None] * 3})
    run = RunTables("GRPO", "grpo", {}, 0, 8, {"ledger": table})
    rows = collect("entropy_ledger", MODULE.PANELS, [run]).frame
    assert rows.filter(pl.col("panel") == "c").select("x", "y").rows() == [(0.5, 1.0)]
    assert rows.filter(pl.col("panel") == "b").select("x", "y").rows() == [(0.0, 3.0)]


def test_long_runs_are_smoothed_and_said_to_be(drawn):
    foot = [" ".join(text.get_text() for text in drawn[case][1].texts) for case in ("single", "short")]
    assert "a: running mean over 11 steps" in " ".join(foot[0].split())
    assert "running mean" not in foot[1]
    assert "predicted by increment, scale fitted" in " ".join(foot[0].split()).lower()


def test_several_methods_have_a_panel_each(drawn):
    panels = drawn["methods"][0].metadata["panels"]
    assert [panel["title"] for panel in panels] == [label for label, *_ in METHODS]
    assert {lack["panel"] for lack in drawn["methods"][0].metadata["missing"]} == {"a", "c"}
    line = drawn["seeds"][0].frame.filter(pl.col("panel") == "b", pl.col("series") == "measured")
    assert line["n_seeds"].unique().to_list() == [3]
    assert line["low"].null_count() == 0


@pytest.mark.parametrize("case", CASES)
def test_it_can_be_read(drawn, case):
    table, figure = drawn[case]
    with style.context():
        FigureCanvasAgg(figure).draw()
        boxes = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    for text, box in boxes:
        assert figure.bbox.containsx(box.x0) & figure.bbox.containsx(box.x1), text
        assert figure.bbox.containsy(box.y0) & figure.bbox.containsy(box.y1), text
    overlap = [(a, b) for i, (a, one) in enumerate(boxes) for b, other in boxes[:i] if one.overlaps(other)]
    assert overlap == []
    assert figure.get_figheight() <= 9.2
    for panel, axes, rows in axes_of(table, figure):
        assert axes.get_xlabel().endswith(")")
        shown = pl.concat([rows["y"], rows["low"], rows["high"]]).drop_nulls()
        low, high = axes.get_ylim()
        assert low <= min(shown.min(), 0) <= max(shown.max(), 0) <= high, panel["key"]


def test_columns_are_those_of_the_schema():
    for panel in MODULE.PANELS:
        assert {panel.y, panel.parts, *panel.x, panel.line or panel.y} <= set(ANALYSES[panel.analysis])


def test_runs_without_a_ledger_draw_no_such_figure(tmp_path):
    files, tables = draw_all(SINGLE, ["entropy_ledger"], tmp_path)
    assert (files, tables) == ([], {})


def test_a_run_without_predictions_says_why():
    run = ledger_run()
    empty = replace(
        run.tables["ledger"], frame=run.tables["ledger"].frame.with_columns(predicted=pl.lit(None, pl.Float64))
    )
    table = collect("entropy_ledger", MODULE.PANELS, [replace(run, tables={"ledger": empty})])
    assert {lack["reason"] for lack in table.metadata["missing"]} == {
        "no value of predicted by step",
        "no value of predicted by accuracy",
    }
    MODULE.draw(table)
