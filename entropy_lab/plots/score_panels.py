"""The panels of Table 1: accuracies of the runs, one panel for each way of decoding, and the paper's beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import polars as pl

from entropy_lab.plots.agreement import rank_agreement
from entropy_lab.plots.curves import band_notes, with_methods
from entropy_lab.plots.panels import Pages, Panel
from entropy_lab.plots.points import Sources, between, decoded, numbers
from entropy_lab.plots.published import MARK, counterparts, published
from entropy_lab.plots.scores import AVERAGE, at_steps, averages, chosen_steps, scores
from entropy_lab.plots.series import BASE, RunTables, is_base

_JOINED: Final = "\N{NO-BREAK SPACE}"
_WAYS: Final = ("greedy", "sampled", "undeclared")


def add_scores(pages: Pages, panel: Panel, model: str, x: str, sources: Sources) -> None:
    """Add a method x benchmark table for each way of decoding, and one of pass@k for the largest k of all runs.

    Parameters
    ----------
    pages
        Gets the panels.
    panel
        Of kind ``"scores"``.
    model
        Row of the panel.
    x
        Column of the step.
    sources
        The runs of that model, with columns benchmark, greedy, k and the panel's.

    Examples
    --------
    >>> from entropy_lab.table import Table
    >>> rows = {"step": [0], "benchmark": ["M"], "greedy": [False], "k": [2], "accuracy": [0.5], "pass_at_2": [0.75]}
    >>> table = Table.of("validation", rows)
    >>> pages, run = Pages(), RunTables("GRPO", "grpo", {}, 0, 8, {"validation": table})
    >>> panel = Panel("s", "Accuracy", "validation", ("step",), "accuracy", "accuracy", "%", kind="scores", at="last")
    >>> add_scores(pages, panel, "", "step", [(run, table.frame)])
    >>> pages.table("mine").frame.select("panel", "title", "y").rows()
    [('sampled', 'Accuracy, sampled', 0.5), ('pass@2', 'pass@2, sampled', 0.75)]
    """
    many = "sampled" if decoded(sources, "sampled") else "undeclared"
    for name in _WAYS:
        kept = decoded(sources, name)
        if not kept:
            continue
        steps = chosen_steps(_rows(panel, x, kept), panel.at)
        if not steps:
            pages.lack(panel, model, f"no {name} validation with a value on every benchmark")
            continue
        for number, step in steps.items():
            run = kept[number][0]
            pages.steps.append({"panel": name, "model": model, "series": run.label, "seed": run.seed, "step": step})
        _add_table(pages, panel, (name, f"{panel.title}, {name}", model), x, (kept, steps))
        k = _largest_k(kept) if name == many else 1
        if k > 1:
            passes = replace(panel, y=f"pass_at_{k}", low="", high="")
            title = panel.title.replace("Accuracy", f"pass@{k}")
            _add_table(pages, passes, (f"pass@{k}", f"{title}, {name}", model), x, (kept, steps))


def _largest_k(sources: Sources) -> int:
    """Largest power of two up to which every row of every run has pass@k."""
    counts = [k for _, frame in sources for k in frame["k"].drop_nulls()]
    k = 1 << (int(min(counts)).bit_length() - 1) if counts and min(counts) > 0 else 1
    return k if all(f"pass_at_{k}" in frame.columns for _, frame in sources) else 1


def _rows(panel: Panel, x: str, sources: Sources) -> pl.DataFrame:
    columns = {"x": x, "y": panel.y, "low": panel.low, "high": panel.high}
    parts = [
        numbers(frame, columns).with_columns(frame["benchmark", "k"], series=pl.lit(run.label), run=pl.lit(number))
        for number, (run, frame) in enumerate(sources)
    ]
    return pl.concat(parts).with_columns(raw=pl.lit(None, pl.Float64)).sort("benchmark", maintain_order=True)


def _add_table(
    pages: Pages, panel: Panel, names: tuple[str, str, str], x: str, judged: tuple[Sources, dict[int, int]]
) -> None:
    sources, steps = judged
    rows = at_steps(_rows(panel, x, sources), steps)
    base = {run.label for run, _ in sources if is_base(run)}
    table = scores(rows, base)
    trained = [step for number, step in steps.items() if sources[number][0].label not in base]
    notes = [f"{panel.at} validation, step {between(trained or list(steps.values()))}"]
    notes += band_notes(table, panel, sources)
    notes += ["bold = its interval lies above all others'"] if table["best"].any() else []
    pages.add(panel, names, x, with_methods(table, panel, sources), notes)
    if panel.published:
        _compare(pages, names, averages(rows), sources)


def _compare(pages: Pages, names: tuple[str, str, str], ours: pl.DataFrame, sources: Sources) -> None:
    """Note how well the order of the trained methods agrees with the published one."""
    rows = counterparts([(run.label, run.method, run.params) for run, _ in sources])
    theirs = {label: row.average for label, row in rows.items() if row.method != BASE}
    seeds = pl.DataFrame({"run": range(len(sources)), "seed": [run.seed for run, _ in sources]}, strict=False)
    by_seed = ours.select(method="series", run=pl.col("run").cast(pl.Int64), y="y").join(
        seeds.cast({"run": pl.Int64}), on="run"
    )
    found = rank_agreement(by_seed, theirs)
    if found is not None:
        key, _, model = names
        pages.agreement.append({"panel": key, "model": model, **found})


def add_published(pages: Pages, panel: Panel, runs: Sequence[RunTables]) -> None:
    """Add the paper's numbers as a panel of their own, marked as published, if a trained method of the paper was run.

    Parameters
    ----------
    pages
        Gets the panel, and in ``beside`` the published row of each series.
    panel
        The panel of scores that they stand beside.
    runs
        All runs.

    Examples
    --------
    >>> pages = Pages()
    >>> panel = Panel("s", "Accuracy (%)", "validation", ("step",), "accuracy", "accuracy", "%", kind="scores")
    >>> add_published(pages, panel, [RunTables("mine", "grpo", {}, 0, 8, {})])
    >>> pages.beside, pages.table("mine").frame["published"].unique().to_list()
    ({'mine': 'GRPO'}, ['arXiv 2604.04894, Table 1'])
    """
    rows = counterparts([(run.label, run.method, run.params) for run in runs])
    if all(row.method == BASE for row in rows.values()):
        return
    theirs = published()
    pages.beside = {label: row.label for label, row in rows.items()}
    columns = [(name, k) for name, k in zip(theirs.benchmarks, theirs.answers, strict=True)] + [(AVERAGE, None)]
    body = [
        {"series": row.label, "method": row.method, "params": "{}", "x": x, "benchmark": name, "k": k, "y": value / 100}
        for row in theirs.rows
        for x, ((name, k), value) in enumerate(zip(columns, (*row.accuracy, row.average), strict=True))
    ]
    frame = pl.DataFrame(body, schema_overrides={"k": pl.Int64}).with_columns(published=pl.lit(theirs.source))
    names = ("published", f"{panel.title}, published{MARK} in {theirs.source}", theirs.model)
    notes = [
        f"{MARK}{_JOINED}published numbers, not ours: {theirs.source}, {theirs.protocol}",
        *_agreed(pages.agreement),
    ]
    pages.add(panel, names, panel.x[0], frame, notes, published=theirs.source)


def _agreed(agreement: Sequence[Mapping[str, object]]) -> list[str]:
    """Say what the rank correlations are, and what chance alone gives."""
    sizes = sorted({(int(str(one["n"])), f"{one['chance']:.2f}") for one in agreement})
    chance = " and ".join(f"±{limit} for {n}" for n, limit in sizes)
    meaning = f"ρ{_JOINED}= Spearman's rank correlation of our averages with the published ones"
    return (
        [f"{meaning}, over trained methods in both; unrelated orders stay within {chance} methods in 95 % of cases"]
        if agreement
        else []
    )
