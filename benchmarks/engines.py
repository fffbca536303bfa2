"""Train the tiny default once with each rollout engine and the same seeds, and compare what came out.

A pair of runs has a seed: order of the prompts and seeds of the samples are the same, the samples are not, since the
engines draw by different algorithms. Reward and entropy are averaged over a third of the updates each. Reported are the
mean of the paired differences with its 95 % interval (Student's t over pairs), and beside it how far two seeds of one
engine are apart. The first update samples the same policy with the same prompts: there only sampling differs. Times are
of the wall: they compare engines on an idle machine only.

Each run is a process of its own. Runs that are there already are not repeated: ``--out`` keeps them, and more seeds can
be added. vLLM on a processor lives in an environment of its own (``make test-vllm`` makes it):

``.venv-vllm/bin/python benchmarks/engines.py --out engines``: 3 seeds x 2 engines, 80 updates each.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

import entropy_lab as el
from entropy_lab.claims.intervals import student_interval

ENGINES: Final = ("transformers", "vllm")
QUANTITIES: Final = ("reward", "entropy", "mean_length")
AGREEMENT: Final = ("sampler_logp_difference_mean", "sampler_logp_difference_max", "sampler_k3", "sampler_ess")
Curves = dict[str, list[pl.DataFrame]]


def train(out: Path, engine: str, seed: int, steps: int) -> pl.DataFrame:
    """Train, or go on with a run that was stopped; numbers of each update."""
    words = [sys.executable, "-m", "entropy_lab.cli", "train", "grpo", "--out", str(out), "--resume"]
    words += ["--engine", engine, "--seed", str(seed), "--steps", str(steps), "--eval-every", "0"]
    subprocess.run([*words, "--checkpoint-every", "20"], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return el.open_run(out).metrics()


def thirds(steps: int) -> dict[str, slice]:
    """Parts of a run that are averaged."""
    ends = [1, *(round(steps * share) for share in (1 / 3, 2 / 3, 1))]
    parts = {f"updates {a} to {b - 1}": slice(a, b) for a, b in pairwise(ends) if a < b}
    return {"update 0": slice(0, 1), **parts}


def compare(curves: Curves, quantity: str, part: slice) -> dict[str, Any]:
    """Compare two engines, or trainers, pair by pair in one part of the runs."""
    mean_SE = np.array([[_mean(run, quantity, part) for run in runs] for runs in curves.values()]).T
    difference_S = mean_SE[:, 1] - mean_SE[:, 0]
    between = [abs(a - b) for engine_S in mean_SE.T for a, b in combinations(engine_S, 2)]
    low, high = student_interval(difference_S)
    return {
        **dict(zip(curves, mean_SE.mean(0).tolist(), strict=True)),
        "difference": float(difference_S.mean()),
        "interval": [low, high],
        "between_seeds": float(np.mean(between)) if between else float("nan"),
        "agree": bool(low <= 0 <= high),
    }


def _mean(run: pl.DataFrame, column: str, part: slice) -> float:
    values: NDArray[np.float64] = run[column].to_numpy()
    return float(values[part].mean())


def speed(runs: list[pl.DataFrame]) -> dict[str, float]:
    """Give medians over the updates of all runs; the first update, which starts things, does not count."""
    rows = pl.concat([run.slice(1) for run in runs], how="diagonal")
    named = {name: float(rows[name].median()) for name in ("time_rollout", "time_logp", "time_update")}  # type: ignore[arg-type]
    tokens = (rows["n_tokens"] / rows["time_rollout"]).median()
    return {**named, "sampled_tokens_per_second": float(tokens)}  # type: ignore[arg-type]


def measure(out: Path, seeds: int, steps: int) -> dict[str, Any]:
    """Train what is missing, and compare."""
    curves: Curves = {engine: [] for engine in ENGINES}
    for seed in range(seeds):
        for engine in ENGINES:
            curves[engine].append(train(out / f"{engine}-{seed}", engine, seed, steps))
    engine_rows = pl.concat(curves["vllm"], how="diagonal")
    return {
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "seeds": seeds,
        "steps": steps,
        "compared": {
            quantity: {part: compare(curves, quantity, rows) for part, rows in thirds(steps).items()}
            for quantity in QUANTITIES
        },
        "vllm_against_trainer": {
            name: [float(engine_rows[name].min()), float(engine_rows[name].max())]  # type: ignore[arg-type]
            for name in AGREEMENT
        },
        "speed": {engine: speed(curves[engine]) for engine in ENGINES},
    }


def report(found: dict[str, Any]) -> None:
    """Print the tables."""
    print(f"{found['seeds']} seeds, {found['steps']} updates, torch {found['torch']}, {found['machine']}\n")
    show_compared(found["compared"], "transformers", "vllm")
    print("\n| vLLM against the trainer's pass | lowest | highest update |\n|---|---|---|")
    for name, (low, high) in found["vllm_against_trainer"].items():
        print(f"| `{name}` | {low:.3g} | {high:.3g} |")
    print(
        "\n| | tokens/s sampled | rollout s | log-probabilities s | update s, weights pushed |\n|---|---|---|---|---|"
    )
    for engine, row in found["speed"].items():
        times = " | ".join(f"{row[name]:.3f}" for name in ("time_rollout", "time_logp", "time_update"))
        print(f"| {engine} | {row['sampled_tokens_per_second']:,.0f} | {times} |")


def show_compared(compared: dict[str, Any], first: str, second: str) -> None:
    """Print the table of what `compare` found of two, and how many intervals hold 0."""
    print(f"| | | {first} | {second} | difference (95 % interval) | two seeds apart |\n|---|---|---|---|---|---|")
    for quantity, parts in compared.items():
        for part, row in parts.items():
            low, high = row["interval"]
            difference = f"{row['difference']:+.4f} ({low:+.4f} to {high:+.4f})"
            means = f"{row[first]:.4f} | {row[second]:.4f}"
            print(f"| {quantity} | {part} | {means} | {difference} | {row['between_seeds']:.4f} |")
    rows = [row for parts in compared.values() for row in parts.values()]
    print(f"\n{sum(row['agree'] for row in rows)} of {len(rows)} intervals hold 0 (95 % of them are expected to)")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo-engines"), help="directory of the runs")
    parser.add_argument("--seeds", type=int, default=3, help="pairs of runs")
    parser.add_argument("--steps", type=int, default=80, help="updates of a run")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    words = parser.parse_args()
    found = measure(words.out, words.seeds, words.steps)
    report(found)
    if words.json:
        words.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
