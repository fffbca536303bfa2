"""A made-up study with the shapes, columns and noise of a real one: tables of runs, in memory or as files.

``python -m tests.made_up_study`` writes one of full size and times ``entropy-lab figures`` on it.
"""

import json
import resource
import subprocess
import sys
import tempfile
import zlib
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl

from entropy_lab import recipes
from entropy_lab.plots.collect import collect
from entropy_lab.plots.series import RunTables
from entropy_lab.table import Table

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
"""Label, method, params, and how slowly entropy falls."""
MORE_METHODS = (
    ("base policy", "base", {}, 0.0),
    ("GRPO + entropy bonus", "grpo", {"entropy_coef": 0.04}, 1.8),
    ("GRPO + entropy advantage", "entropy_advantage", {"base": "grpo"}, 1.0),
    ("Dr.GRPO", "dr_grpo", {}, 0.95),
    ("Pass@4", "pass_at_k", {"k": 4}, 1.6),
    *((f"Pos-Only {beta}", "pos_only", {"beta_pos": beta}, 1 + beta) for beta in (0.25, 0.75, 0.9)),
    ("Neg-Only 0.75", "neg_only", {"beta_neg": 0.75}, 0.5),
    ("AsymGRPO symmetric", "asym_grpo", {"beta_pos": 0.65, "beta_neg": 0.65}, 1.0),
    ("AsymGRPO, scheduled", "asym_grpo_schedule", {}, 1.2),
    ("GRPO + entropy target", "entropy_target", {"target": 0.2}, 1.4),
    ("AsymGRPO, by token", "token_asym_grpo", {}, 1.2),
)
SETTINGS = ("Countdown, 446k", "Countdown, 793k, sorted")
BENCHMARKS = ("AIME24", "AIME25", "AMC23", "MATH-500", "OlympiadBench")


def made_up_run(method, seed, n_steps=100, n_epochs=3):
    """A run's tables; the base policy's have one step."""
    label, name, params, slow = method
    n_steps = 1 if name == "base" else n_steps
    rng = np.random.default_rng([seed, zlib.crc32(label.encode())])
    step, epoch, accuracy = np.arange(n_steps), np.arange(n_epochs), np.arange(9) / 8
    entropy = 0.1 + 0.3 * np.exp(-step / (30 * slow + 1e-9)) + rng.normal(0, 0.006, n_steps) + rng.normal(0, 0.006)
    covariance = 0.2 * slow * accuracy**2 + rng.normal(0, 0.01, 9)
    increment = 0.05 * (1 + params.get("beta_neg", 0)) * np.exp(-step / 60) + rng.normal(0, 0.012, n_steps)
    increment[1::2] = np.nan  # measured at every other update
    columns = {
        "entropy": {"step": step, "entropy": entropy, "ci_low": entropy - 0.01, "ci_high": entropy + 0.02},
        "covariance": {"accuracy": accuracy, "covariance": covariance, "ci_low": covariance - 0.02},
        "solve_rates": {
            "epoch": epoch,
            "all_solved": 0.2 + 0.05 * epoch + rng.normal(0, 0.01),
            "none_solved": 0.3 - 0.02 * epoch * slow + rng.normal(0, 0.01),
        },
        "likelihood": {"step": step, "increment_correct": increment},
        "training": {"step": step, "reward": 0.4 + step / 500 + rng.normal(0, 0.02, n_steps)},
        "validation": validation(rng, range(0, n_steps + 1 if n_steps > 1 else 1, 10), slow),
    }
    columns["covariance"]["ci_high"] = covariance + 0.03
    metadata = {"confidence": 0.95, "first_steps": 40}
    return RunTables(label, name, params, seed, 8, {key: Table.of(key, c, **metadata) for key, c in columns.items()})


def validation(rng, steps, slow):
    rows = [(step, i, greedy) for step in steps for i in range(len(BENCHMARKS)) for greedy in (True, False)]
    accuracy = np.array([0.25 + 0.12 * i + 0.1 * slow * (1 - np.exp(-s / 40)) * 0.5 for s, i, _ in rows])
    accuracy += rng.normal(0, 0.01, len(rows)) + rng.normal(0, 0.005)
    passes = {f"pass_at_{k}": [None if row[2] and k > 1 else a + k / 100 for row, a in zip(rows, accuracy, strict=True)]
              for k in (1, 2, 4)}  # fmt: skip
    return {
        "step": [row[0] for row in rows],
        "benchmark": [BENCHMARKS[row[1]] for row in rows],
        "greedy": [row[2] for row in rows],
        "k": [1 if row[2] else 10 - row[1] for row in rows],
        "accuracy": accuracy,
        "ci_low": accuracy - 0.03,
        "ci_high": accuracy + 0.03,
        **passes,
    }


def subset(run, *analyses):
    return replace(run, tables={name: run.tables[name] for name in analyses})


STUDY = [made_up_run(method, seed) for method in METHODS for seed in range(3)]
SINGLE = [replace(made_up_run(METHODS[6], 0), label="grpo-seed0")]


def full_study(seeds=4, n_steps=150):
    """Every method of the study, the base policy, three methods beyond the paper; in two settings."""
    return [
        replace(made_up_run(method, seed + 100 * number, n_steps=n_steps), model=setting, seed=seed)
        for number, setting in enumerate(SETTINGS)
        for method in (*METHODS, *MORE_METHODS)
        for seed in range(seeds)
    ]


CASES = {
    "study": lambda: STUDY,
    "full study": full_study,
    "single": lambda: SINGLE,
    "two": lambda: [
        made_up_run(METHODS[0], 0),
        replace(made_up_run(METHODS[9], 0), label="another-run-with-a-long-name" * 2),
    ],
    "two seeds": lambda: [made_up_run(method, seed) for method in METHODS for seed in range(2)],
    "some analyses": lambda: [subset(SINGLE[0], "entropy", "covariance")],
    "two models": lambda: [
        replace(run, model=model) for model in ("Qwen2.5-Math-1.5B", "Qwen3-4B") for run in STUDY[-12:]
    ],
    "one step": lambda: [
        made_up_run(method, seed, n_steps=1, n_epochs=1) for method in METHODS[6:9] for seed in range(2)
    ],
    "unknown methods": lambda: [
        replace(run, label=f"{run.label} mine", method=f"mine {run.label}", params={}) for run in STUDY
    ],
}
CURVES = ("figure1", "figure2", "figure3", "figure4", "figure5")
ALL = (*CURVES, "table1")


@cache
def drawn(case, name):
    """A figure of a case with its table: drawn once, looked at by many tests."""
    module = recipes.load("figures", name)
    table = collect(name, module.PANELS, CASES[case]())
    return table, module.draw(table)


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


def write_study(folder, runs):
    """Write runs as a study keeps them: run.json and the tables of the analyses."""
    for number, run in enumerate(runs):
        path = folder / "runs" / f"run{number:04d}"
        for name, table in run.tables.items():
            table.write(path / "analysis" / f"{name}.parquet")
        method = {"name": run.method, "params": run.params, "label": run.label}
        info = {"format": "entropy-lab/run", "version": 1, "name": path.name, "method": method, "seed": run.seed}
        info |= {"group_size": run.group_size, "model": "Qwen3, 446,016 parameters", "setting": run.model}
        (path / "run.json").write_text(json.dumps(info))
    return folder


def main():
    with tempfile.TemporaryDirectory() as folder:
        runs = full_study()
        write_study(Path(folder), runs)
        words = [sys.executable, "-m", "entropy_lab.cli", "figures", folder]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds, memory = spent.ru_utime + spent.ru_stime, spent.ru_maxrss / 1024
        sys.stdout.write(f"{len(runs)} runs: {seconds:.1f} s of CPU, {memory:.0f} MiB\n")


if __name__ == "__main__":
    main()
