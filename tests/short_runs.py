"""Training runs of a few steps of a small policy, and what they recorded."""

import json
from dataclasses import replace
from pathlib import Path

import polars as pl

from entropy_lab import recipes
from entropy_lab.rl.policy import PolicySettings
from entropy_lab.tasks.countdown import Countdown

GRPO = recipes.load("trainers", "grpo")
SIZES = PolicySettings(hidden=48, layers=2, heads=3, kv_heads=1, head_dim=16, feed_forward=96)
TASK = Countdown()


def config(out, **changes):
    tiny = GRPO.Config(
        out=Path(out),
        model=SIZES,
        warm_start_steps=120,
        steps=3,
        train_prompts=16,
        prompts_per_step=8,
        group_size=4,
        lr=3e-3,
        eval_every=0,
        eval_problems=3,
        eval_samples=2,
    )
    return replace(tiny, **changes)


def rollouts(run):
    return pl.concat([pl.read_parquet(file) for file in sorted((run / "rollouts").iterdir())])


def evals(run):
    return pl.concat([pl.read_parquet(file) for file in sorted((run / "evals").iterdir())])


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
