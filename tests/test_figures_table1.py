"""Table 1: our numbers with intervals, the published ones beside them and marked, and how far their orders agree."""

import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from entropy_lab import recipes
from entropy_lab.plots.agreement import rank_agreement
from entropy_lab.plots.collect import collect
from entropy_lab.plots.published import counterparts, published, table_order
from entropy_lab.plots.scores import AVERAGE
from entropy_lab.plots.series import PAPER
from entropy_lab.plots.tabular import Column, Entry, Grid
from tests.made_up_study import METHODS, MORE_METHODS, SETTINGS, drawn, made_up_run, texts

MODULE = recipes.load("figures", "table1")


def markdown(case):
    return MODULE.to_markdown(drawn(case, "table1")[0])


def rows_of(text, title):
    """Cells of the table below a title, by the first one."""
    lines = text[text.index(title) :].split("\n\n")[1].splitlines()
    return {line.split(" | ")[0].removeprefix("| "): line.removesuffix(" |").split(" | ")[1:] for line in lines}


# Our numbers


def test_every_number_of_ours_stands_in_the_markdown_with_its_interval():
    table, _ = drawn("full study", "table1")
    text = markdown("full study")
    for panel in table.metadata["panels"]:
        if panel["published"]:
            continue
        found = rows_of(text, f"{panel['model']} · {panel['title']}")
        rows = table.frame.filter((pl.col("panel") == panel["key"]) & (pl.col("model") == panel["model"]))
        for row in rows.iter_rows(named=True):
            mean, half = 100 * row["y"], 50 * (row["high"] - row["low"])
            stars = "**" * row["best"]
            assert found[row["series"]][int(row["x"])] == f"{stars}{mean:.1f}{stars} ±{half:.1f}"


def test_the_picture_shows_the_averages_of_both_settings_and_the_published_one():
    table, figure = drawn("full study", "table1")
    shown = [text.get_text() for text in texts(figure)]
    assert {*SETTINGS, "published†", "greedy", "avg@6–10", "pass@4", "beyond the paper"} <= set(shown)
    for row in table.frame.filter((pl.col("benchmark") == AVERAGE) & pl.col("published").is_null()).iter_rows(
        named=True
    ):
        assert f"{100 * row['y']:.1f}" in shown


def test_two_seeds_have_a_range_and_no_bold():
    table, figure = drawn("two seeds", "table1")
    ours = table.frame.filter(pl.col("published").is_null())
    assert set(ours["band"]) == {"range over seeds"}
    assert not ours["best"].any()
    assert re.fullmatch(
        r"\d\d\.\d \(\d\d\.\d–\d\d\.\d\)", rows_of(markdown("two seeds"), "Accuracy (%), greedy")["GRPO"][0]
    )
    assert not [text for text in texts(figure) if text.get_fontweight() == "bold"]


def test_only_the_best_is_bold():
    table, figure = drawn("full study", "table1")
    bold = sorted(text.get_text() for text in texts(figure) if text.get_fontweight() == "bold")
    best = table.frame.filter(pl.col("best") & (pl.col("benchmark") == AVERAGE))
    assert len(best) > 0
    assert bold == sorted(f"{100 * y:.1f}" for y in best["y"])


def test_markdown_has_a_row_for_each_method_and_a_dash_for_no_number():
    full, bare = made_up_run(METHODS[6], 0), made_up_run(METHODS[0], 0)
    frame = bare.tables["validation"].frame.filter(pl.col("benchmark") != "AMC23")
    bare = replace(bare, tables={"validation": replace(bare.tables["validation"], frame=frame)})
    text = MODULE.to_markdown(collect("table1", MODULE.PANELS, [full, bare]))
    heads = "| method | AIME24 avg@10 | AIME25 avg@9 | AMC23 avg@8 | MATH-500 avg@7 | OlympiadBench avg@6 | Avg. |"
    assert heads in text.splitlines()
    for title in ("Accuracy (%), greedy", "Accuracy (%), sampled", "pass@4 (%), sampled"):
        cells = rows_of(text, title)["REINFORCE"]
        assert (cells[2], cells[-1]) == ("–", "–")
        assert cells[0] != "–"


# Order of the rows


def test_rows_follow_the_papers_table_and_the_others_stand_below_a_rule():
    rows = list(rows_of(markdown("full study"), "Accuracy (%), mean over benchmarks"))[2:]
    labels = {label: (method, params) for label, method, params, _ in (*METHODS, *MORE_METHODS)}
    assert rows[:4] == ["base policy", "REINFORCE", "REINFORCE + entropy bonus", "GRPO"]
    rule = rows.index("*beyond the paper*")
    assert rows[rule + 1 : rule + 4] == ["AsymGRPO, by token", "AsymGRPO, scheduled", "GRPO + entropy target"]
    assert set(rows[:rule]) | set(rows[rule + 1 : rule + 4]) == set(labels)


def test_a_study_of_unknown_methods_has_no_rule_and_no_published_number():
    text = markdown("unknown methods")
    assert "beyond the paper" not in text
    assert "†" not in text


def test_methods_beyond_the_paper_are_told_from_its_own():
    paper, beyond = table_order([(label, method, params) for label, method, params, _ in (*METHODS, *MORE_METHODS)])
    assert beyond == ["AsymGRPO, by token", "AsymGRPO, scheduled", "GRPO + entropy target"]
    assert paper.index("Pos-Only 0.25") < paper.index("Pos-Only") < paper.index("Pos-Only 0.9")


# Published numbers


def test_published_averages_are_the_means_of_their_rows():
    for row in published().rows:
        assert row.average == pytest.approx(np.mean(row.accuracy), abs=0.0061), row.label


def test_published_rows_are_methods_of_the_paper_in_its_order():
    methods = [row.method for row in published().rows]
    assert methods == [name for name in PAPER if name != "reinforce+entropy_bonus"]
    assert (
        {len(row.accuracy) for row in published().rows} == {len(published().benchmarks)} == {len(published().answers)}
    )


def test_every_published_number_is_marked_and_nothing_else_is():
    table, figure = drawn("full study", "table1")
    theirs = {f"{value:.2f}" for row in published().rows for value in (*row.accuracy, row.average)}
    marked = {text.get_text() for text in texts(figure) if re.fullmatch(r"[\d.]+†", text.get_text())}
    assert marked == {f"{value}†" for value in theirs}
    cells = re.findall(r"(?<=\| )[\d.]+†?(?= \|)", markdown("full study"))
    two_decimals = [cell for cell in cells if re.fullmatch(r"\d\d\.\d\d†?", cell)]
    assert two_decimals
    assert all(cell.endswith("†") and cell[:-1] in theirs for cell in two_decimals)
    rows = table.frame.filter(pl.col("published").is_not_null())
    assert set(rows["panel"]) == {"published"}
    assert set(rows["published"]) == {published().source}
    assert rows["n_seeds"].null_count() == rows["band"].null_count() == len(rows)
    assert table.frame.filter(pl.col("panel") == "published").equals(rows)
    assert "† published numbers, not ours: arXiv 2604.04894, Table 1, Qwen3-4B trained on MATH" in markdown(
        "full study"
    )


def test_a_published_number_stands_beside_its_method_only():
    found = rows_of(markdown("full study"), "Accuracy (%), mean over benchmarks")
    theirs = {label: cells[-1] for label, cells in found.items()}
    assert theirs["AsymGRPO"] == "59.36†"
    assert theirs["Pos-Only"] == "55.31†"
    assert {theirs[f"Pos-Only {beta}"] for beta in (0.25, 0.75, 0.9)} == {"–"}
    assert theirs["Clip-higher"] == "58.75†"
    assert theirs["REINFORCE + entropy bonus"] == theirs["GRPO + entropy target"] == "–"


def test_of_two_series_of_one_method_one_has_the_published_number():
    series = [("B", "asym_grpo", {"beta_pos": 0.8, "beta_neg": 0.3}), ("A", "asym_grpo", {}), ("B", "asym_grpo", {})]
    assert {label: row.method for label, row in counterparts(series).items()} == {"A": "asym_grpo"}


# Agreement


@given(
    st.lists(st.integers(0, 8), min_size=5, max_size=12),
    st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=12, max_size=12),
)
def test_the_rank_correlation_is_scipys(theirs, ours):
    names = [f"m{i}" for i in range(len(theirs))]
    rows = pl.DataFrame({"method": names, "seed": [0] * len(names), "y": ours[: len(names)]})
    found = rank_agreement(rows, dict(zip(names, map(float, theirs), strict=True)))
    if len(set(theirs)) < 2 or len(set(ours[: len(names)])) < 2:
        assert found is None
        return
    assert found["spearman"] == pytest.approx(stats.spearmanr(theirs, ours[: len(names)]).statistic, abs=1e-12)
    assert found["n"] == len(names)


def test_chance_is_where_the_t_test_of_a_correlation_has_p_of_five_per_cent():
    rows = pl.DataFrame({"method": list("abcdefgh"), "seed": [0] * 8, "y": range(8)})
    limit = rank_agreement(rows, dict(zip("abcdefgh", range(8), strict=True)))["chance"]
    t = limit * np.sqrt(6 / (1 - limit**2))
    assert 2 * stats.t.sf(t, 6) == pytest.approx(0.05)


def test_single_seeds_are_those_that_all_methods_have():
    values = {"a": [1, 5], "b": [2, 4], "c": [3, 3], "d": [4, 2], "e": [6, 1]}
    rows = [(name, seed, float(y)) for name, both in values.items() for seed, y in enumerate(both)]
    rows += [("a", 2, 9.0)]
    theirs = dict(zip("abcde", range(5), strict=True))
    found = rank_agreement(pl.DataFrame(rows, ["method", "seed", "y"], orient="row"), theirs)
    assert (found["low"], found["high"], found["n_seeds"]) == (pytest.approx(-1), pytest.approx(1), 2)


def test_runs_of_unknown_seed_are_no_single_seeds():
    rows = pl.DataFrame({"method": list("abcde") * 2, "seed": [None] * 10, "y": [1.0, 2, 3, 5, 4] * 2})
    found = rank_agreement(rows, dict(zip("abcde", range(5), strict=True)))
    assert found["spearman"] == pytest.approx(0.9)
    assert found["n_seeds"] == 0
    assert "low" not in found


@pytest.mark.parametrize("n", [1, 4])
def test_few_methods_have_no_agreement(n):
    rows = pl.DataFrame({"method": list("abcd")[:n], "seed": [0] * n, "y": [1.0 * i for i in range(n)]})
    assert rank_agreement(rows, {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}) is None


def test_agreement_is_over_trained_methods_that_both_have():
    table, _ = drawn("full study", "table1")
    assert [(one["model"], one["panel"]) for one in table.metadata["agreement"]] == [
        (setting, panel) for setting in SETTINGS for panel in ("greedy", "sampled", "pass@4")
    ]
    one = table.metadata["agreement"][0]
    assert one["n"] == len(published().rows) - 1
    rows = table.frame.filter((pl.col("panel") == "greedy") & (pl.col("model") == SETTINGS[0]))
    ours = dict(rows.filter(pl.col("benchmark") == AVERAGE).select("series", "y").iter_rows())
    theirs = {row.label: row.average for row in published().rows if row.method != "base"}
    pairs = [
        (y, theirs[table.metadata["beside"][s]]) for s, y in ours.items() if table.metadata["beside"].get(s) in theirs
    ]
    assert one["spearman"] == pytest.approx(stats.spearmanr(*zip(*pairs, strict=True)).statistic)
    assert one["low"] <= one["high"]
    assert rows_of(markdown("full study"), "Accuracy (%), mean")["ρ with published†"][0] == f"{one['spearman']:.2f}"


# The grid


@pytest.mark.parametrize(("width", "stacked"), [(4.0, False), (2.0, True)])
def test_intervals_stand_below_their_numbers_where_a_page_is_narrow(width, stacked):
    rows = [("GRPO", [Entry("36.9", "(36.1–37.7)")] * 2)]
    grid = Grid("Accuracy", [Column("A"), Column("B")], [("", rows)])
    assert grid.stacked(width) == stacked
    assert grid.width < 4


def test_a_bar_in_a_label_does_not_end_a_cell():
    assert "p\\|q" in Grid("T", [Column("A")], [("", [("p|q", [Entry("1")])])]).to_markdown()
