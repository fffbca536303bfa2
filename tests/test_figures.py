"""The five figures and the table: what is drawn is what the tidy table says, legibly and always the same."""

import hashlib
import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import polars as pl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection

from entropy_lab import recipes
from entropy_lab.errors import OutputError, ParameterError
from entropy_lab.plots import style
from entropy_lab.plots.panels import collect
from entropy_lab.plots.series import RunTables
from entropy_lab.schema import ANALYSES
from entropy_lab.table import Table

CURVES = ("figure1", "figure2", "figure3", "figure4", "figure5")
ALL = (*CURVES, "table1")
METHODS = (
    ("REINFORCE", "reinforce", {}, 1.0),
    ("REINFORCE + entropy bonus", "reinforce", {"entropy_coef": 0.04}, 1.9),
    ("Pos-Only", "pos_only", {"beta_pos": 0.5}, 1.4),
    ("Neg-Only 0.25", "neg_only", {"beta_neg": 0.25}, 0.8),
    ("Neg-Only 0.5", "neg_only", {"beta_neg": 0.5}, 0.6),
    ("EntDecrease", "ent_decrease", {}, 0.4),
    ("GRPO", "grpo", {}, 0.9),
    ("EntIncrease", "ent_increase", {}, 3.0),
    ("Clip-higher", "grpo", {"clip_high": 0.28}, 1.3),
    ("AsymGRPO", "asym_grpo", {"beta_pos": 0.9, "beta_neg": 0.4}, 1.1),
    ("AsymGRPO + Clip-higher", "asym_grpo", {"beta_pos": 0.7, "beta_neg": 0.4, "clip_high": 0.28}, 1.5),
)
BENCHMARKS = ("AIME24", "AIME25", "AMC23", "MATH-500", "OlympiadBench")


def made_up_run(method, seed, n_steps=100, n_epochs=3):
    """A run's tables with the shapes, columns and noise of real ones."""
    label, name, params, slow = method
    rng = np.random.default_rng([seed, len(label)])
    step, epoch, accuracy = np.arange(n_steps), np.arange(n_epochs), np.arange(9) / 8
    entropy = 0.1 + 0.3 * np.exp(-step / (30 * slow)) + rng.normal(0, 0.006, n_steps)
    covariance = 0.2 * slow * accuracy**2 + rng.normal(0, 0.01, 9)
    increment = 0.05 * np.exp(-step / 60) + rng.normal(0, 0.012, n_steps)
    columns = {
        "entropy": {"step": step, "entropy": entropy, "ci_low": entropy - 0.01, "ci_high": entropy + 0.02},
        "covariance": {"accuracy": accuracy, "covariance": covariance, "ci_low": covariance - 0.02},
        "solve_rates": {"epoch": epoch, "all_solved": 0.2 + 0.05 * epoch, "none_solved": 0.3 - 0.02 * epoch * slow},
        "likelihood": {"step": step, "increment_correct": increment},
        "training": {"step": step, "reward": 0.4 + step / 500 + rng.normal(0, 0.02, n_steps)},
        "validation": validation(rng, range(0, n_steps + 1, 10), slow),
    }
    columns["covariance"]["ci_high"] = covariance + 0.03
    metadata = {"confidence": 0.95, "first_steps": 40}
    return RunTables(label, name, params, seed, 8, {key: Table.of(key, c, **metadata) for key, c in columns.items()})


def validation(rng, steps, slow):
    rows = [(step, i, greedy) for step in steps for i in range(len(BENCHMARKS)) for greedy in (True, False)]
    accuracy = np.array([0.25 + 0.12 * i + 0.1 * slow * (1 - np.exp(-s / 40)) * 0.5 for s, i, _ in rows])
    accuracy += rng.normal(0, 0.01, len(rows))
    return {
        "step": [row[0] for row in rows],
        "benchmark": [BENCHMARKS[row[1]] for row in rows],
        "greedy": [row[2] for row in rows],
        "k": [1 if row[2] else 10 - row[1] for row in rows],
        "accuracy": accuracy,
        "ci_low": accuracy - 0.03,
        "ci_high": accuracy + 0.03,
    }


def subset(run, *analyses):
    return replace(run, tables={name: run.tables[name] for name in analyses})


STUDY = [made_up_run(method, seed) for method in METHODS for seed in range(3)]
SINGLE = [replace(made_up_run(METHODS[6], 0), label="grpo-seed0")]
CASES = {
    "study": STUDY,
    "single": SINGLE,
    "two": [made_up_run(METHODS[0], 0), replace(made_up_run(METHODS[9], 0), label="another-run-with-a-long-name" * 2)],
    "some analyses": [subset(SINGLE[0], "entropy", "covariance")],
    "two models": [replace(run, model=model) for model in ("Qwen2.5-Math-1.5B", "Qwen3-4B") for run in STUDY[-12:]],
    "one step": [made_up_run(method, seed, n_steps=1, n_epochs=1) for method in METHODS[6:9] for seed in range(2)],
    "unknown methods": [
        replace(run, label=f"{run.label} mine", method=f"mine {run.label}", params={}) for run in STUDY
    ],
}


@pytest.fixture(scope="module")
def drawn():
    """Each figure of each case with its table: drawn once, looked at by many tests."""
    found = {}
    for case, runs in CASES.items():
        for name in ALL:
            module = recipes.load("figures", name)
            table = collect(name, module.PANELS, runs)
            found[case, name] = (table, module.draw(table))
    return found


def axes_of(table, figure):
    """Each panel's axes with its rows."""
    panels = table.metadata["panels"]
    assert [axes.get_label() for axes in figure.axes] == [panel["key"] for panel in panels]
    for panel, axes in zip(panels, figure.axes, strict=True):
        rows = table.frame.filter((pl.col("panel") == panel["key"]) & (pl.col("model") == panel["model"]))
        yield panel, axes, rows


def texts(figure):
    """All texts on the page; matplotlib keeps ticks beyond the limits, which are not drawn."""
    found = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = axis.get_view_interval()
        found += [axis.label, *(tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high)]
    return [text for text in found if text.get_text()]


# What is drawn is what the table says


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("case", CASES)
def test_lines_are_the_rows_of_the_table(drawn, case, name):
    for _, axes, rows in axes_of(*drawn[case, name]):
        lines = {line.get_label(): line for line in axes.lines if line.get_gid() is None}
        assert set(lines) == set(rows["series"])
        for (label,), part in rows.partition_by("series", as_dict=True).items():
            np.testing.assert_array_equal(lines[label].get_xdata(), part["x"].to_numpy())
            np.testing.assert_array_equal(lines[label].get_ydata(), part["y"].to_numpy())


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("case", CASES)
def test_bands_and_bars_span_low_to_high(drawn, case, name):
    for _, axes, rows in axes_of(*drawn[case, name]):
        spans = {shape.get_gid(): shape for shape in axes.collections}
        shown = rows.filter(pl.col("low").is_not_null())
        assert set(spans) == set(shown["series"])
        for (label,), part in shown.partition_by("series", as_dict=True).items():
            shape = spans[label]
            if isinstance(shape, LineCollection):
                points = np.array(shape.get_segments()).reshape(-1, 2)
            else:
                points = np.concatenate([path.vertices for path in shape.get_paths()])
            expected = {(x, y) for x, low, high in part.select("x", "low", "high").rows() for y in (low, high)}
            assert {(float(x), float(y)) for x, y in points} == expected


@pytest.mark.parametrize("name", ["figure2", "figure5"])
def test_values_before_smoothing_are_drawn_pale(drawn, name):
    panels = 0
    for _, axes, rows in axes_of(*drawn["study", name]):
        raw = {line.get_label(): line for line in axes.lines if line.get_gid() == "raw"}
        smoothed = rows.filter(pl.col("raw").is_not_null())
        assert set(raw) == set(smoothed["series"])
        for (label,), part in smoothed.partition_by("series", as_dict=True).items():
            np.testing.assert_array_equal(raw[label].get_ydata(), part["raw"].to_numpy())
            assert raw[label].get_alpha() < 0.5
        panels += bool(raw)
    assert panels == 1


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("case", CASES)
def test_every_value_lies_within_the_axes(drawn, case, name):
    for _, axes, rows in axes_of(*drawn[case, name]):
        for column, (low, high) in (
            ("x", axes.get_xlim()),
            *((c, axes.get_ylim()) for c in ("y", "low", "high", "raw")),
        ):
            values = rows.filter(pl.col("y").is_not_null())[column].drop_nulls()
            assert values.is_empty() or (low <= values.min() and values.max() <= high)


# Legible


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("case", CASES)
def test_axes_are_labelled_with_units(drawn, case, name):
    for _, axes, _ in axes_of(*drawn[case, name]):
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
def test_no_text_is_cut_off_or_covered_and_the_legend_covers_no_axes(drawn, case, name):
    _, figure = drawn[case, name]
    with style.context():
        FigureCanvasAgg(figure).draw()
        boxes = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    for text, box in boxes:
        assert figure.bbox.containsx(box.x0) & figure.bbox.containsx(box.x1), text
        assert figure.bbox.containsy(box.y0) & figure.bbox.containsy(box.y1), text
    for (text, first), (other, second) in itertools.combinations(boxes, 2):
        apart = first.x0 >= second.x1 or second.x0 >= first.x1 or first.y0 >= second.y1 or second.y0 >= first.y1
        assert apart, (text, other)
    for legend in figure.legends:
        assert not any(legend.get_window_extent().overlaps(axes.bbox) for axes in figure.axes)


@pytest.mark.parametrize("name", ALL)
def test_text_is_at_least_seven_points(drawn, name):
    _, figure = drawn["study", name]
    assert min(text.get_fontsize() for text in texts(figure)) >= 7
    assert figure.get_figwidth() == 6.75


@pytest.mark.parametrize("case", CASES)
def test_a_method_has_one_look_in_all_figures(drawn, case):
    seen = {}
    for name in CURVES:
        for _, axes, _ in axes_of(*drawn[case, name]):
            for line in axes.lines:
                if line.get_gid() is None:
                    seen.setdefault(line.get_label(), set()).add(line.get_color())
    assert all(len(colors) == 1 for colors in seen.values()), seen


def test_every_series_stands_in_the_legend(drawn):
    table, figure = drawn["study", "figure2"]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [label for label, *_ in METHODS[:5]]
    assert set(labels) == set(table.frame["series"])


def test_a_formula_and_the_runs_of_its_method_share_a_legend_entry(drawn):
    _, figure = drawn["single", "figure1"]
    assert "GRPO / grpo-seed0" in [text.get_text() for text in figure.legends[0].get_texts()]


# What a reader must be told


@pytest.mark.parametrize(
    ("case", "name", "words"),
    [
        ("study", "figure2", "Band = range (min–max) over 3 seeds"),
        ("study", "figure2", "b: mean over 5 benchmarks"),
        ("study", "figure2", "d: running mean over 11 steps, pale = each step"),
        ("single", "figure2", "a: band = 95 % bootstrap interval over prompts"),
        ("single", "figure5", "b1–b5: band = 95 % bootstrap interval over problems"),
        (
            "single",
            "figure1",
            "c: first 40 steps, mixed groups (0 < p < 1); bar = 95 % bootstrap interval over prompts",
        ),
        ("single", "figure1", "a, b: groups of 8 rollouts"),
        ("some analyses", "figure2", "Not drawn: b (no validation table), c1, c2 (no solve_rates table)"),
        ("study", "table1", "Last validation, step 100; "),
        ("one step", "figure5", "Bar = range (min–max) over 2 seeds"),
    ],
)
def test_the_foot_says(drawn, case, name, words):
    _, figure = drawn[case, name]
    assert words in " ".join(" ".join(text.get_text().split()) for text in texts(figure))


def test_validation_panels_say_how_answers_were_decoded(drawn):
    _, figure = drawn["study", "figure4"]
    assert "Validation, greedy" in [text.get_text() for text in texts(figure)]


def test_a_model_has_a_row_of_its_own(drawn):
    table, figure = drawn["two models", "figure4"]
    heights = {}
    for panel, axes, _ in axes_of(table, figure):
        heights.setdefault(panel["model"], set()).add(round(axes.get_position().y0, 6))
    assert [len(found) for found in heights.values()] == [1, 1]
    assert heights["Qwen2.5-Math-1.5B"] != heights["Qwen3-4B"]
    assert {"Qwen2.5-Math-1.5B", "Qwen3-4B"} <= {text.get_text() for text in texts(figure)}


# Table 1


def test_the_table_shows_mean_and_range_of_every_cell(drawn):
    table, figure = drawn["study", "table1"]
    shown = [text.get_text() for text in texts(figure)]
    markdown = recipes.load("figures", "table1").to_markdown(table)
    for row in table.frame.iter_rows(named=True):
        mean, span = f"{100 * row['y']:.1f}", f"({100 * row['low']:.1f}–{100 * row['high']:.1f})"
        assert mean in shown
        assert span in shown
        assert f"{'**' * row['best']}{mean}{'**' * row['best']} {span}" in markdown
    assert {"AIME24", "avg@10", "avg@6", "Accuracy (%), sampled", "Accuracy (%), greedy"} <= set(shown)


def test_only_the_best_is_bold(drawn):
    table, figure = drawn["study", "table1"]
    bold = sorted(text.get_text() for text in texts(figure) if text.get_fontweight() == "bold")
    best = table.frame.filter("best")
    assert len(best) > 0
    assert bold == sorted(f"{100 * y:.1f}" for y in best["y"])


def test_markdown_has_a_row_for_each_method_and_a_dash_for_no_number():
    module = recipes.load("figures", "table1")
    full, bare = made_up_run(METHODS[6], 0), made_up_run(METHODS[0], 0)
    frame = bare.tables["validation"].frame.filter(pl.col("benchmark") != "AMC23")
    bare = replace(bare, tables={"validation": replace(bare.tables["validation"], frame=frame)})
    lines = module.to_markdown(collect("table1", module.PANELS, [full, bare])).splitlines()
    assert (
        lines[2]
        == "| method | AIME24 avg@10 | AIME25 avg@9 | AMC23 avg@8 | MATH-500 avg@7 | OlympiadBench avg@6 | Avg. |"
    )
    rows = [line.split(" | ") for line in lines if line.startswith("| REINFORCE")]
    assert [(row[3], row[-1]) for row in rows] == [("–", "– |"), ("–", "– |")]
    assert sum(line.startswith("| GRPO") for line in lines) == 2


# Nothing, one point, NaN


@pytest.mark.parametrize("name", ALL)
def test_a_table_that_is_no_figures_is_refused(name):
    with pytest.raises(ParameterError, match="has no panels"):
        recipes.load("figures", name).draw(SINGLE[0].tables["entropy"])


@pytest.mark.parametrize("name", ALL)
def test_no_run_draws_a_page_that_says_why(name, tmp_path):
    module = recipes.load("figures", name)
    figure = module.draw(collect(name, module.PANELS, []))
    assert "Not drawn" in " ".join(text.get_text() for text in texts(figure))
    style.save(figure, tmp_path / name, formats=("png",))


@pytest.mark.parametrize("name", ALL)
def test_empty_tables_and_nan_draw(name, tmp_path):
    module = recipes.load("figures", name)
    run = made_up_run(METHODS[6], 0)
    hollow = {key: replace(table, frame=table.frame.clear()) for key, table in run.tables.items()}
    absent = {key: replace(t, frame=t.frame.with_columns(pl.col(pl.Float64) * np.nan)) for key, t in run.tables.items()}
    gaps = pl.when(pl.int_range(pl.len()) % 3 == 0).then(pl.col(pl.Float64))
    holed = {key: replace(t, frame=t.frame.with_columns(gaps)) for key, t in run.tables.items() if key != "covariance"}
    for tables in (hollow, absent, holed):
        table = collect(name, module.PANELS, [replace(run, tables=tables)])
        style.save(module.draw(table), tmp_path / name, formats=("png",))


def test_a_gap_breaks_the_line():
    module = recipes.load("figures", "figure3")
    columns = {"step": range(4), "entropy": [0.4, float("nan"), 0.2, 0.1]}
    run = RunTables("GRPO", "grpo", {}, 0, 8, {"entropy": Table.of("entropy", columns)})
    (line,) = module.draw(collect("figure3", module.PANELS, [run])).axes[0].lines
    np.testing.assert_array_equal(line.get_ydata(), [0.4, np.nan, 0.2, 0.1])


# Files


def digests(paths):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


REBUILD = """
import json, sys
from pathlib import Path
from entropy_lab import recipes
from entropy_lab.plots import style
from entropy_lab.table import Table
folder = Path(sys.argv[1])
for name in ("figure1", "figure5", "table1"):
    style.save(recipes.load("figures", name).draw(Table.read(folder / f"{name}.parquet")), folder / "again" / name)
print(json.dumps([m for m in ("matplotlib.pyplot", "pandas", "scipy", "seaborn", "tkinter") if m in sys.modules]))
"""


def test_equal_tables_give_equal_bytes_in_another_process_without_pyplot(drawn, tmp_path):
    first = {}
    for name in ("figure1", "figure5", "table1"):
        table, figure = drawn["study", name]
        table.write(tmp_path / f"{name}.parquet")
        first |= digests(style.save(figure, tmp_path / name))
    words = [sys.executable, "-c", REBUILD, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=Path(style.__file__).parents[1])
    assert digests((tmp_path / "again").iterdir()) == first
    assert json.loads(done.stdout) == []


def test_files_are_png_of_200_dpi_and_pdf_with_truetype_fonts(drawn, tmp_path):
    png, pdf = style.save(drawn["study", "figure3"][1], tmp_path / "figure3.of.mine")
    assert (png.name, pdf.name) == ("figure3.of.mine.png", "figure3.of.mine.pdf")
    width = int.from_bytes(png.read_bytes()[16:20], "big")
    assert width == 6.75 * 200
    assert b"/Type0" in pdf.read_bytes()
    assert b"/Type3" not in pdf.read_bytes()
    assert b"CreationDate" not in pdf.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([png.name, pdf.name])


def test_only_the_formats_asked_for_are_written(drawn, tmp_path):
    style.save(drawn["single", "figure3"][1], tmp_path / "new" / "folder" / "f", formats=("png",))
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["f.png"]


def test_a_folder_that_cannot_be_is_an_output_error(drawn, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        style.save(drawn["single", "figure3"][1], tmp_path / "file" / "figure3")


def test_drawing_leaves_the_users_settings_and_ignores_them(drawn, tmp_path):
    table, figure = drawn["single", "figure4"]
    plain = digests(style.save(figure, tmp_path / "f"))
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "black", "lines.linewidth": 9, "pdf.fonttype": 3}):
        before = dict(mpl.rcParams)
        again = recipes.load("figures", "figure4").draw(table)
        assert digests(style.save(again, tmp_path / "f")) == plain
        assert dict(mpl.rcParams) == before
