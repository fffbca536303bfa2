"""Train the same tiny policy on the same task with our trainer and with TRL and our estimator, and compare the runs.

Both start from one warm-started policy saved to disk, with the settings that `trainers/grpo.py` and
`trainers/trl_grpo.py` share: prompts, group size, mini-batches, loss, clip range, optimizer and learning rate. A pair
of runs has a seed; order of prompts and samples differ, since each trainer draws its own. Compared are reward, entropy
and length, averaged over thirds of the updates (mean of the paired differences, 95 % interval by Student's t), and the
recorded advantages with the estimator's on the recorded rewards, group by group.

Runs that are there already are not repeated. TRL lives in an environment of its own: ``make bench-trl-curves``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import torch

import entropy_lab as el
from benchmarks.engines import Curves, compare, show_compared, thirds
from benchmarks.train_step import TASK, tokenizer
from entropy_lab.rl.policy import PolicySettings, make_policy
from entropy_lab.rl.progress import TrainingProgress
from entropy_lab.rl.warm_start import WarmStart

QUANTITIES: Final = ("reward", "entropy", "mean_length")
ADVANTAGE: Final = {"beta_pos": 0.9, "beta_neg": 0.4}
TRAINERS: Final = {"entropy-lab": ("grpo", ["--eval-every", "0"]), "TRL": ("trl_grpo", ["--engine", "transformers"])}


def save_base(folder: Path) -> Path:
    """Write the warm-started policy and its tokenizer, once."""
    if not folder.exists():
        with TrainingProgress() as progress:
            asked = TASK.problems(np.random.default_rng(0), 1024)
            policy = make_policy(PolicySettings(), TASK, WarmStart(), progress, asked, 26)
        policy.model.save_pretrained(folder)
        tokenizer().save_pretrained(folder)
    return folder


def train(out: Path, trainer: str, base: Path, seed: int, steps: int) -> pl.DataFrame:
    """Train, unless the run is there; numbers of each update."""
    recipe, own = TRAINERS[trainer]
    if not (out / "run.json").exists():
        words = [sys.executable, "-m", "entropy_lab.cli", "train", recipe, "--out", str(out), *own]
        words += ["--model.path", str(base), "--model.prompt", "plain", "--task", "countdown", "--lr", "1e-4"]
        words += ["--advantage", "asym_grpo", "--advantage-params", *map(str, sum(ADVANTAGE.items(), ()))]
        words += ["--max-new-tokens", "26", "--lr-rise", "0", "--increments-every", "1000"]
        words += ["--per-device", "128"] if trainer == "TRL" else ["--micro-batch", "128"]
        words += ["--seed", str(seed), "--steps", str(steps)]
        subprocess.run(words, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    metrics = el.open_run(out).metrics()
    assert metrics.height == steps, f"{out} has {metrics.height} steps of {steps}: delete it"
    return metrics


def furthest_advantage(run: Path) -> float:
    """Largest difference between a recorded advantage and the estimator's on the group's recorded rewards."""
    estimator, furthest = el.advantages.get("asym_grpo", **ADVANTAGE), 0.0
    rows = el.open_run(run).scan().select("step", "group_id", "reward", "advantage").collect()
    for _, group in rows.group_by("step", "group_id"):
        expected = estimator(group["reward"].to_numpy().astype(float)[None])[0]
        furthest = max(furthest, float(np.abs(group["advantage"].to_numpy() - expected).max()))
    return furthest


def measure(out: Path, seeds: int, steps: int) -> dict[str, Any]:
    """Train what is missing, and compare."""
    base = save_base(out / "base")
    curves: Curves = {name: [] for name in TRAINERS}
    furthest = dict.fromkeys(TRAINERS, 0.0)
    for seed in range(seeds):
        for name in TRAINERS:
            run = out / f"{name}-{seed}"
            curves[name].append(train(run, name, base, seed, steps))
            furthest[name] = max(furthest[name], furthest_advantage(run))
    compared = {
        quantity: {part: compare(curves, quantity, rows) for part, rows in thirds(steps).items()}
        for quantity in QUANTITIES
    }
    return {"torch": torch.__version__, "seeds": seeds, "steps": steps, "advantages": furthest, "compared": compared}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo-trl-curves"), help="directory of the runs")
    parser.add_argument("--seeds", type=int, default=3, help="pairs of runs")
    parser.add_argument("--steps", type=int, default=60, help="updates of a run")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    words = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(words.out, words.seeds, words.steps)
    show_compared(found["compared"], *TRAINERS)
    print(f"recorded advantages and the estimator's differ by at most {found['advantages']}")
    if words.json:
        words.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
