"""Figures can be read: labels with units, nothing cut off or covered, one look for a method, a legend that is whole."""

import numpy as np
import polars as pl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from entropy_lab import recipes
from entropy_lab.plots import style
from entropy_lab.schema import ANALYSES
from tests.made_up_study import ALL, CASES, CURVES, METHODS, SETTINGS, axes_of, drawn, texts


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("case", CASES)
def test_axes_are_labelled_with_units(case, name):
    for _, axes, _ in axes_of(*drawn(case, name)):
        assert axes.get_xlabel().endswith(")"), axes.get_xlabel()
        assert axes.get_ylabel().endswith(")"), axes.get_ylabel()


@pytest.mark.parametrize("name", ALL)
def test_units_and_columns_are_those_of_the_schema(name):
    for panel in recipes.load("figures", name).PANELS:
        if not panel.estimators:
            columns = ANALYSES[panel.analysis]
            assert {panel.y, panel.low or panel.y, panel.high or panel.y} <= set(columns)
            assert columns[panel.y].unit in ("", panel.unit)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("case", CASES)
def test_no_text_is_cut_off_or_covered_and_the_legend_covers_no_axes(case, name):
    _, figure = drawn(case, name)
    with style.context():
        FigureCanvasAgg(figure).draw()
        boxes = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    for text, box in boxes:
        assert figure.bbox.containsx(box.x0) & figure.bbox.containsx(box.x1), text
        assert figure.bbox.containsy(box.y0) & figure.bbox.containsy(box.y1), text
    left, bottom, right, top = np.array([box.extents for _, box in boxes]).T[:, :, None]
    beside, above = (left >= right.T) | (right <= left.T), (bottom >= top.T) | (top <= bottom.T)
    overlap = ~beside & ~above
    assert [(boxes[i][0], boxes[j][0]) for i, j in zip(*np.nonzero(np.triu(overlap, 1)), strict=True)] == []
    for legend in figure.legends:
        assert not any(legend.get_window_extent().overlaps(axes.bbox) for axes in figure.axes)


@pytest.mark.parametrize("case", ["study", "full study"])
@pytest.mark.parametrize("name", ALL)
def test_a_page_holds_it_in_letters_of_seven_points(case, name):
    _, figure = drawn(case, name)
    assert min(text.get_fontsize() for text in texts(figure)) >= 7
    assert figure.get_figwidth() == 6.75
    assert figure.get_figheight() <= 9.2


@pytest.mark.parametrize("case", CASES)
def test_a_method_has_one_look_in_all_figures(case):
    seen = {}
    for name in CURVES:
        for _, axes, _ in axes_of(*drawn(case, name)):
            for line in axes.lines:
                if line.get_gid() in (None, "baseline"):
                    seen.setdefault(line.get_label(), set()).add(line.get_color())
    assert all(len(colors) == 1 for colors in seen.values()), seen


def test_curves_of_a_crowded_panel_differ_in_more_than_colour():
    for _, axes, _ in axes_of(*drawn("full study", "figure2")):
        looks = [
            (str(line.get_linestyle()), str(line._unscaled_dash_pattern), line.get_marker())
            for line in axes.lines
            if line.get_gid() is None
        ]
        assert len(set(looks)) == len(looks)


def test_every_series_stands_in_the_legend():
    table, figure = drawn("study", "figure2")
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [label for label, *_ in METHODS[:5]]
    assert set(labels) == set(table.frame["series"])


def test_a_sweep_stands_in_the_legend_from_the_smallest_exponent_up():
    _, figure = drawn("full study", "figure2")
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [
        *("base policy", "REINFORCE", "REINFORCE + entropy bonus"),
        *("Pos-Only 0.25", "Pos-Only", "Pos-Only 0.75", "Pos-Only 0.9"),
        *("Neg-Only 0.25", "Neg-Only 0.5", "Neg-Only 0.75"),
    ]


def test_a_formula_and_the_runs_of_its_method_share_a_legend_entry():
    _, figure = drawn("single", "figure1")
    assert "GRPO / grpo-seed0" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_model_has_a_row_of_its_own():
    table, figure = drawn("two models", "figure4")
    heights = {}
    for panel, axes, _ in axes_of(table, figure):
        heights.setdefault(panel["model"], set()).add(round(axes.get_position().y0, 6))
    assert [len(found) for found in heights.values()] == [1, 1]
    assert heights["Qwen2.5-Math-1.5B"] != heights["Qwen3-4B"]
    assert {"Qwen2.5-Math-1.5B", "Qwen3-4B"} <= {text.get_text() for text in texts(figure)}


def test_panels_of_several_models_without_rows_of_their_own_are_titled_with_them():
    table, figure = drawn("full study", "figure1")
    assert {f"Cov(log π, A) · {setting}" for setting in SETTINGS} <= {text.get_text() for text in texts(figure)}
    assert table.frame.filter(pl.col("panel") == "c")["model"].unique().sort().to_list() == sorted(SETTINGS)
