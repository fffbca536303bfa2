"""Whether one run's rollouts foretell which methods lose entropy faster: the counterfactual map against our study.

``python benchmarks/counterfactual_order.py OUT`` trains the first updates of one reference method with the study's own
settings and seeds (20 updates take about 20 s of CPU a seed), ranks the study's other methods by the pressure that the
map gives them on these rollouts, and compares that with the entropies that the study measured. ``--reference base``
samples from the base policy and trains nothing. Methods whose estimator has no point on the map are left out: entropy
bonuses, other clip ranges, advantages that change during training or tell tokens apart.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import kendalltau, spearmanr

from entropy_lab.advantages.outcomes import estimator_of, exponents
from entropy_lab.analysis import analyze
from entropy_lab.studies.settings import configured, load_trainer
from entropy_lab.study import open_study
from entropy_lab.table import Table

ROOT = Path(__file__).parents[1]
PREDICTORS = ("covariance", "vanilla")
VALUES = ("pressure", "per_rms")
WINDOW = 10
"""Steps that the entropy reached is a mean over."""
N_BOOT = 500
FloatArray = NDArray[np.float64]
CORRELATIONS: Mapping[str, Callable[[FloatArray, FloatArray], Any]] = {"Spearman": spearmanr, "Kendall": kendalltau}


@dataclass(frozen=True)
class Measured:
    """A run of the study: what it was trained with, and the entropy of its steps."""

    method: Mapping[str, Any]
    config: Mapping[str, Any]
    entropy: FloatArray


def measured(folder: Path, setting: str, seeds: Sequence[int]) -> dict[str, dict[int, Measured]]:
    """Read the runs of one setting by method and seed; the base policy's among them."""
    found: dict[str, dict[int, Measured]] = {}
    for run in open_study(folder).runs:
        name, _, seed = run.path.name.removeprefix(f"{setting}-").rpartition("-seed")
        if run.path.name.startswith(f"{setting}-") and int(seed) in seeds:
            table = Table.read(run.path / "analysis" / "entropy.parquet")
            entropy = table.frame["entropy"].cast(pl.Float64).to_numpy()
            found.setdefault(name, {})[int(seed)] = Measured(run.method, run.info["config"], entropy)
    return {name: runs for name, runs in found.items() if len(runs) == len(seeds)}


def reference_run(out: Path, config: Mapping[str, Any], updates: int) -> Path:
    """Train the first updates of a run of the study, without validation, unless it is there already."""
    if not (out / "rollouts" / f"step-{updates - 1:06d}.parquet").exists():
        trainer = load_trainer("grpo")
        values = {name: value for name, value in config.items() if name != "out"}
        values |= {"steps": updates, "eval_every": 0, "increments_every": updates}
        trainer.main(configured(trainer.Config, str(out), values, out))
    return out


def predicted(table: Table, method: Mapping[str, Any], value: str) -> float | None:
    """Look a method up: on the plane where it lies there, else among the estimators with their defaults."""
    params = method.get("params") or {}
    estimator = estimator_of(method)
    if estimator is None or params.get("entropy_coef") or params.get("clip_high", 0.2) != 0.2:
        return None
    if place := exponents(estimator):
        near = [(pl.col(name) - beta).abs() < 1e-6 for name, beta in zip(("beta_pos", "beta_neg"), place, strict=True)]
        rows = table.frame.filter(pl.col("kind") == "map", *near)
    else:
        rows = table.frame.filter(pl.col("kind") == "estimator", pl.col("name") == estimator.name)
    return rows[value].item() if rows.height else None


def correlations(x: FloatArray, y: FloatArray, rng: np.random.Generator) -> dict[str, str]:
    """Rank correlations of means over seeds, with the range over resampled seeds; x and y of shape (methods, seeds)."""
    draws = rng.integers(0, x.shape[1], (N_BOOT, x.shape[1]))
    found = {}
    for name, of in CORRELATIONS.items():
        resampled = [of(x[:, draw].mean(axis=1), y[:, draw].mean(axis=1)).statistic for draw in draws]
        low, high = np.percentile(resampled, [2.5, 97.5])
        found[name] = f"{of(x.mean(axis=1), y.mean(axis=1)).statistic:.2f} [{low:.2f}, {high:.2f}]"
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Print the methods, and how well their order was foretold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, help="folder of the reference runs; those that are there are used again")
    parser.add_argument("--study", type=Path, default=ROOT / "examples" / "tiny-study")
    parser.add_argument("--setting", default="five")
    parser.add_argument("--reference", default="grpo", help="a method of the study, base for the base policy")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--updates", type=int, default=20, help="updates of the reference run")
    parser.add_argument("--after", type=int, nargs="+", default=[20, 40, 80, 150], help="updates of the study's runs")
    asked = parser.parse_args(words)
    study = measured(asked.study, asked.setting, asked.seeds)
    tables: dict[str, list[Table]] = {predictor: [] for predictor in PREDICTORS}
    for seed in asked.seeds:
        # Of the base policy the study has one update, without learning: its settings are GRPO's but for the rate.
        config = dict(study[asked.reference if asked.reference != "base" else "grpo"][seed].config)
        config |= {"lr": 0.0} if asked.reference == "base" else {}
        out = asked.out / f"{asked.setting}-{asked.reference}-seed{seed}-{asked.updates}-updates"
        run = reference_run(out, config, asked.updates)
        for predictor, made in tables.items():
            made.append(analyze(run, "counterfactual", predictor=predictor, first_steps=asked.updates, n_boot=1))
    report(study, tables, asked.seeds, asked.after)


def report(
    study: Mapping[str, Mapping[int, Measured]],
    tables: Mapping[str, Sequence[Table]],
    seeds: Sequence[int],
    after: Sequence[int],
) -> None:
    """Print one row for each method, then the correlations."""
    shown = {
        name: {key: [predicted(table, runs[seeds[0]].method, key[1]) for table in tables[key[0]]] for key in KEYS}
        for name, runs in study.items()
        if name != "base"
        and None not in [predicted(table, runs[seeds[0]].method, "per_rms") for table in tables["covariance"]]
    }
    reached = {
        end: np.array(
            [[study[name][seed].entropy[max(end - WINDOW, 0) : end].mean() for seed in seeds] for name in shown]
        )
        for end in after
    }
    foretold = {key: np.array([values[key] for values in shown.values()], float) for key in KEYS}
    order = np.argsort(foretold["covariance", "per_rms"].mean(axis=1))
    names = list(shown)
    heads = [*(" ".join(key) for key in KEYS), *(f"entropy after {end}" for end in after)]
    sys.stdout.write("| method | " + " | ".join(heads) + " |\n" + "|---" * (len(heads) + 1) + "|\n")
    for i in order:
        cells = [f"{foretold[key][i].mean():.3g}" for key in KEYS] + [f"{reached[end][i].mean():.3f}" for end in after]
        sys.stdout.write(f"| {names[i]} | " + " | ".join(cells) + " |\n")
    sys.stdout.write(
        f"\n{len(names)} methods, {len(seeds)} seeds\n| foretold by | after | Spearman | Kendall |\n|---|---|---|---|\n"
    )
    for key in KEYS:
        for end in after:
            found = correlations(foretold[key], reached[end], np.random.default_rng(0))
            sys.stdout.write(f"| {' '.join(key)} | {end} | {found['Spearman']} | {found['Kendall']} |\n")


KEYS = [(predictor, value) for predictor in PREDICTORS for value in VALUES]


if __name__ == "__main__":
    main()
