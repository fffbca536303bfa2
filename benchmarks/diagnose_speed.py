"""Time `entropy-lab diagnose` on a long run: by default 1,000 steps of 8,000 rollouts, eight million in all.

``python benchmarks/diagnose_speed.py`` writes such a run into a temporary folder (minutes, 0.3 GB), and measures the
whole command in a process of its own. ``--groups 100`` makes a tenth of it. Where other processes share the cores, the
processor time tells more than the clock.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from entropy_lab import advantages
from entropy_lab.writer import RunWriter


@dataclass
class Settings:
    """Size of the run, and how often it is measured."""

    steps: int = 1000
    """Policy updates."""
    groups: int = 1000
    """Groups of a step."""
    group_size: int = 8
    """Rollouts of a group."""
    rounds: int = 3
    """Measurements."""
    limit: float = 10.0
    """Seconds that are promised on two cores."""


def write(settings: Settings, folder: Path) -> Path:
    """Write a healthy run with every column that a diagnosis reads."""
    rng = np.random.default_rng(0)
    writer = RunWriter(folder / "run", method={"name": "grpo", "params": {}}, group_size=settings.group_size)
    shape = (settings.groups, settings.group_size)
    estimator = advantages.get("grpo")
    for step in range(settings.steps):
        progress = step / settings.steps
        ability = rng.beta(2, 3 - 1.5 * progress, (settings.groups, 1))
        correct = rng.random(shape) < ability
        n_tokens = rng.integers(200, 3000, shape)
        entropy = np.exp(rng.normal(-0.7 - 0.4 * progress, 0.2, shape))
        logp = -entropy * n_tokens * rng.normal(1, 0.05, shape)
        columns = {
            "prompt_id": np.repeat([f"prompt-{i}" for i in rng.choice(50_000, settings.groups)], settings.group_size),
            "group_id": np.repeat(np.arange(settings.groups), settings.group_size),
            "sample": np.tile(np.arange(settings.group_size), settings.groups),
            "epoch": np.full(correct.size, step * settings.groups // 50_000),
            "reward": correct.astype(float).ravel(),
            "correct": correct.ravel(),
            "advantage": estimator(correct.astype(float)).ravel(),
            "n_tokens": n_tokens.ravel(),
            "truncated": (n_tokens > 2950).ravel(),
            "entropy": entropy.ravel(),
            "logp": logp.ravel(),
            "logp_after": np.minimum(logp + np.where(correct, 0.002, -0.003) * n_tokens, 0).ravel(),
            "sampler_logp": np.minimum(logp + rng.normal(0, 0.3, shape), 0).ravel(),
        }
        writer.write_rollouts(step, columns)
        writer.write_metrics({"step": step, "clip_fraction_low": 0.001, "clip_fraction_high": 0.002})
    return writer.path


def measure(run: Path) -> tuple[float, float]:
    """Seconds on the clock, and of the processor, that the command takes from its start to its end."""
    begun, before = time.perf_counter(), _processor_seconds()
    words = [sys.executable, "-m", "entropy_lab.cli", "diagnose", str(run), "--json"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun, _processor_seconds() - before


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(settings: Settings) -> None:
    """Write, measure, and fail where it takes longer than promised."""
    with tempfile.TemporaryDirectory() as folder:
        run = write(settings, Path(folder))
        size = sum(file.stat().st_size for file in run.rglob("*.parquet")) / 1e6
        n = settings.steps * settings.groups * settings.group_size
        print(f"{settings.steps:,} steps, {n:,} rollouts, {size:.0f} MB; {os.cpu_count()} cores", flush=True)
        rounds = sorted(measure(run) for _ in range(settings.rounds))
    (clock, processor), peak = rounds[len(rounds) // 2], resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"diagnose: median {clock:.2f} s ({rounds[0][0]:.2f} to {rounds[-1][0]:.2f}) on the clock,")
    print(f"          {processor:.2f} s of the processor, peak {peak:.0f} MiB")
    if clock > settings.limit:
        raise SystemExit(f"slower than {settings.limit} s")


if __name__ == "__main__":
    main(tyro.cli(Settings))
