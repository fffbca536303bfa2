"""The five figures: what is drawn is what the tidy table says."""

import numpy as np
import polars as pl
import pytest
from matplotlib.collections import LineCollection

from entropy_lab import recipes
from entropy_lab.plots.collect import collect
from entropy_lab.plots.series import RunTables
from entropy_lab.table import Table
from tests.made_up_study import CASES, CURVES, axes_of, drawn


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("case", CASES)
def test_lines_are_the_rows_of_the_table(case, name):
    for panel, axes, rows in axes_of(*drawn(case, name)):
        lines = {line.get_label(): line for line in axes.lines if line.get_gid() is None}
        curves = rows.filter(~pl.col("series").is_in(panel["baselines"]))
        assert set(lines) == set(curves["series"])
        for (label,), part in curves.partition_by("series", as_dict=True).items():
            np.testing.assert_array_equal(lines[label].get_xdata(), part["x"].to_numpy())
            np.testing.assert_array_equal(lines[label].get_ydata(), part["y"].to_numpy())


def spans_of(axes):
    """(x, y) of the ends of each band or bar, by series."""
    found = {}
    for shape in axes.collections:
        if isinstance(shape, LineCollection):
            points = np.array(shape.get_segments()).reshape(-1, 2)
        else:
            points = np.concatenate([path.vertices for path in shape.get_paths()])
        found[shape.get_gid()] = {(float(x), float(y)) for x, y in points}
    return found


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("case", CASES)
def test_bands_and_bars_span_low_to_high(case, name):
    for panel, axes, rows in axes_of(*drawn(case, name)):
        shown = rows.filter(pl.col("y").is_not_null())
        if panel["ends"]:
            shown = shown.filter(pl.col("x") == pl.col("x").max().over("series"))
        expected = {}
        for series, x, low, high in shown.drop_nulls("low").select("series", "x", "low", "high").rows():
            expected.setdefault(series, set()).update({(x, low), (x, high)})
        assert spans_of(axes) == expected


def test_panels_of_many_curves_show_intervals_at_their_ends_only():
    table, figure = drawn("full study", "figure2")
    ends = {panel["key"]: panel["ends"] for panel in table.metadata["panels"]}
    assert ends == {"a": True, "b": True, "c1": True, "c2": True, "d": False}
    for panel, axes, rows in axes_of(table, figure):
        bars = [line for line in axes.lines if line.get_gid() == "end"]
        assert len(bars) == (rows.filter(pl.col("low").is_not_null())["series"].n_unique() if panel["ends"] else 0)
        places = sorted(float(bar.get_transform().transform((bar.get_xdata()[0], 0))[0]) for bar in bars)
        right = axes.transData.transform((rows["x"].max(), 0))[0]
        assert all(place > right for place in places)
        assert all(place < axes.bbox.x1 for place in places)
        assert not places or np.diff(places).min() > 2.5 / 72 * figure.dpi


def test_the_base_policy_is_a_line_across_accuracy_panels_and_nowhere_else():
    for name in CURVES:
        for panel, axes, rows in axes_of(*drawn("full study", name)):
            lines = [line for line in axes.lines if line.get_gid() == "baseline"]
            base = rows.filter(pl.col("method") == "base")
            is_accuracy = panel["y_label"] == "accuracy (%)"
            assert len(lines) == len(base) == (1 if is_accuracy else 0), (name, panel["key"])
            for line in lines:
                assert list(line.get_ydata()) == [base["y"][0]] * 2
                assert list(line.get_xdata()) == [0, 1]
                assert line.get_transform().transform((1, 0))[0] == pytest.approx(axes.bbox.x1)


@pytest.mark.parametrize("name", CURVES)
def test_methods_beyond_the_paper_are_in_no_figure(name):
    methods = set(drawn("full study", name)[0].frame["method"])
    assert not methods & {"asym_grpo_schedule", "entropy_target", "token_asym_grpo"}


@pytest.mark.parametrize("name", ["figure2", "figure5"])
def test_values_before_smoothing_are_drawn_pale(name):
    panels = 0
    for panel, axes, rows in axes_of(*drawn("study", name)):
        raw = {line.get_label(): line for line in axes.lines if line.get_gid() == "raw"}
        smoothed = rows.filter(pl.col("raw").is_not_null())
        assert set(raw) == (set() if panel["ends"] else set(smoothed["series"]))
        for label, line in raw.items():
            part = smoothed.filter(pl.col("series") == label)
            np.testing.assert_array_equal(line.get_ydata(), part["raw"].to_numpy())
            assert line.get_alpha() < 0.5
        panels += bool(raw)
    assert panels == 1


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("case", CASES)
def test_every_value_lies_within_the_axes(case, name):
    for panel, axes, rows in axes_of(*drawn(case, name)):
        shown = rows.filter(pl.col("y").is_not_null())
        curves = shown.filter(~pl.col("series").is_in(panel["baselines"]))
        last = shown.filter(pl.col("x") == pl.col("x").max().over("series")) if panel["ends"] else shown
        columns = [(curves["x"], axes.get_xlim()), (shown["y"], axes.get_ylim())]
        columns += [(last[c], axes.get_ylim()) for c in ("low", "high")]
        columns += [] if panel["ends"] else [(shown["raw"], axes.get_ylim())]
        for values, (low, high) in columns:
            values = values.drop_nulls()
            assert values.is_empty() or (low <= values.min() and values.max() <= high)


def test_steps_without_a_recorded_increment_break_no_line():
    table, _ = drawn("full study", "figure2")
    rows = table.frame.filter(pl.col("panel") == "d")
    assert rows["y"].null_count() == 0
    assert set(rows["x"].unique()) == set(range(0, 150, 2))


def test_a_gap_breaks_the_line():
    module = recipes.load("figures", "figure3")
    columns = {"step": range(4), "entropy": [0.4, float("nan"), 0.2, 0.1]}
    run = RunTables("GRPO", "grpo", {}, 0, 8, {"entropy": Table.of("entropy", columns)})
    (line,) = module.draw(collect("figure3", module.PANELS, [run])).axes[0].lines
    np.testing.assert_array_equal(line.get_ydata(), [0.4, np.nan, 0.2, 0.1])
