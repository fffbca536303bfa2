"""Time ``entropy-lab analyze`` on 2.5 million rollouts beside DuckDB, polars and pandas doing the same aggregation.

One run of 300 steps x 512 prompts x 16 rollouts is written once. The aggregation is the group table that the analyses
stand on: for each (step, group) the counts, the accuracy, the covariance of log-likelihood and advantage, and the sums
behind increments, entropy, reward and channels. Contenders take turns, so that ratios are of the same minutes of the
same machine. Run ``make bench``; ``--steps 20`` is a quick look.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command line sets it

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq

from entropy_lab import recipes
from entropy_lab.fold import Fold, run_folds
from entropy_lab.run import open_run

PROMPTS, GROUP = 512, 16
GROUP_TABLE = ("advantages", "covariance", "entropy", "likelihood", "solve_rates", "training")
"""Analyses that stand on the group table; the others (ledger, counterfactual map, mismatch lens, …) compute more."""
COLUMNS = [
    "step",
    "group_id",
    "correct",
    "reward",
    "advantage",
    "n_tokens",
    "logp",
    "logp_after",
    "entropy",
    "truncated",
]
SQL = """
select step, group_id, any_value(prompt_id) as prompt, any_value(epoch) as epoch, count(*) as n,
    count(correct) as verified, count(*) filter (correct) as correct,
    covar_samp(logp / n_tokens, advantage) filter (n_tokens > 0) as covariance,
    sum(logp_after - logp) filter (correct) as up, sum(logp_after - logp) filter (not correct) as down,
    sum(entropy * n_tokens) as nats, sum(n_tokens) as tokens, sum(reward) as reward, count(*) filter (truncated) as cut,
    sum(advantage) filter (correct) as positive, sum(advantage) filter (not correct) as negative
from read_parquet('{files}') group by step, group_id
"""


def make_run(folder: Path, steps: int) -> None:
    """Write the run with random but plausible values."""
    (folder / "rollouts").mkdir(parents=True)
    info = {"format": "entropy-lab/run", "version": 1, "name": "bench", "method": {"name": "grpo", "params": {}}}
    (folder / "run.json").write_text(json.dumps(info), encoding="utf-8")
    rng, n = np.random.default_rng(0), PROMPTS * GROUP
    for step in range(steps):
        correct = rng.random(n) < np.repeat(rng.beta(0.8, 0.8, PROMPTS), GROUP)
        p = np.repeat(correct.reshape(PROMPTS, GROUP).mean(axis=1), GROUP).clip(1e-9, 1 - 1e-9)
        n_tokens = rng.integers(50, 4096, n)
        logp = -n_tokens * rng.gamma(4, 0.1, n)
        columns = {
            "step": np.full(n, step, np.int32),
            "epoch": np.full(n, step // 15, np.int32),
            "prompt_id": [f"math/{(step * PROMPTS + i // GROUP) % 7500}" for i in range(n)],
            "group_id": np.repeat(np.arange(PROMPTS), GROUP),
            "sample": np.tile(np.arange(GROUP, dtype=np.int32), PROMPTS),
            "reward": correct.astype(np.float32),
            "correct": correct,
            "group_accuracy": p.astype(np.float32),
            "advantage": np.where(correct, np.sqrt((1 - p) / p), -np.sqrt(p / (1 - p))).astype(np.float32),
            "n_tokens": n_tokens.astype(np.int32),
            "logp": logp.astype(np.float32),
            "logp_after": np.minimum(logp + rng.normal(size=n), 0).astype(np.float32),
            "entropy": rng.gamma(4, 0.1, n).astype(np.float32),
            "truncated": n_tokens > 4000,
        }
        pl.DataFrame(columns).write_parquet(folder / "rollouts" / f"step-{step:06d}.parquet", compression="zstd")


def with_duckdb(run: Path) -> int:
    """Aggregate in DuckDB, straight from the files."""
    connection = duckdb.connect()
    return len(connection.execute(SQL.format(files=run / "rollouts" / "*.parquet")).fetchnumpy()["n"])


def with_polars(run: Path) -> int:
    """Aggregate in a lazy polars query: the covariance by sums of products."""
    x, right = pl.col("logp").cast(pl.Float64) / pl.col("n_tokens"), pl.col("correct")
    increment, advantage = pl.col("logp_after") - pl.col("logp"), pl.col("advantage").cast(pl.Float64)
    sums = {"x": x, "xa": x * advantage, "a": advantage, "nats": pl.col("entropy") * pl.col("n_tokens")}
    sums |= {"up": increment * right, "down": increment * ~right, "positive": advantage * right}
    sums |= {name: pl.col(name) for name in ("correct", "n_tokens", "reward", "truncated")}
    keys = pl.col("prompt_id", "epoch").first()
    query = pl.scan_parquet(run / "rollouts" / "*.parquet").group_by("step", "group_id")
    return query.agg(keys, pl.len(), *[value.sum().alias(name) for name, value in sums.items()]).collect().height


def with_pandas(run: Path) -> int:
    """Aggregate in pandas, vectorised: products first, then one grouped sum."""
    frame = pq.read_table(run / "rollouts", columns=[*COLUMNS, "prompt_id", "epoch"]).to_pandas()
    x, right, advantage = frame.logp.astype(float) / frame.n_tokens, frame.correct, frame.advantage.astype(float)
    increment = frame.logp_after - frame.logp
    products = {"x": x, "a": advantage, "xa": x * advantage, "nats": frame.entropy * frame.n_tokens}
    products |= {"up": increment * right, "down": increment * ~right, "positive": advantage * right}
    products |= {name: frame[name] for name in ("correct", "n_tokens", "reward", "truncated")}
    grouped = pd.DataFrame(products).groupby([frame.step, frame.group_id])
    sums = grouped.sum()
    sums["covariance"] = (sums.xa - sums.x * sums.a / grouped.size()) / (grouped.size() - 1)
    return len(sums)


def with_fold(run: Path, analyses: Sequence[str]) -> int:
    """Run the pass that analyses share, every check and per-step interval included."""
    opened = open_run(run)
    folds: list[tuple[Fold, tuple[str, ...]]] = []
    for name in analyses:
        module = recipes.load("analyses", name)
        started = module.analyze(opened)
        if isinstance(started, Fold):
            folds.append((started, (*module.NEEDS, *getattr(module, "WANTS", ()), *started.columns)))
    run_folds(opened, folds)
    return len(opened.step_files) * PROMPTS


def with_command(run: Path, out: Path, peaks: list[float]) -> int:
    """Run the whole command in a process of its own, figures included, and note its peak memory."""
    words = ["analyze", str(run), "--out", str(out), "--json"]
    # The process itself reads its peak: what wait4 reports counts the memory of the parent it was spawned from.
    code = (
        f"from entropy_lab.cli import main; main({words}); import re, sys; "
        "sys.stderr.write(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    peaks.append(int(done.stderr) / 1024)
    return len(done.stdout)


def main() -> None:
    """Time every contender in turn and print medians, ratios and the targets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run, out = Path(folder) / "run", Path(folder) / "out"
        make_run(run, options.steps)
        peaks: list[float] = []
        contenders: dict[str, Callable[[], int]] = {
            "DuckDB": lambda: with_duckdb(run),
            "polars group-by": lambda: with_polars(run),
            "pandas": lambda: with_pandas(run),
            "fold": lambda: with_fold(run, GROUP_TABLE),
            "fold, all analyses": lambda: with_fold(run, recipes.names("analyses")),
            "entropy-lab analyze": lambda: with_command(run, out, peaks),
        }
        seconds = measure(contenders, options.rounds)
    n = options.steps * PROMPTS * GROUP
    print(f"{n:,} rollouts, {os.cpu_count()} cores, {platform.machine()}, median of {options.rounds}")
    for name, times in seconds.items():
        spread = f"{min(times):.2f}-{max(times):.2f}"
        print(
            f"{name:20} {statistics.median(times):6.2f} s  ({spread})  {ratio(seconds, name, 'DuckDB'):5.2f} x DuckDB"
        )
    print(f"fold / DuckDB        {ratio(seconds, 'fold', 'DuckDB'):.2f}   target at most 2")
    print(f"analyze / pandas     {ratio(seconds, 'entropy-lab analyze', 'pandas'):.2f}   target below 1")
    print(f"analyze peak memory  {max(peaks):.0f} MiB   target at most 400")


def measure(contenders: dict[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Let the contenders take turns; the first turn warms the file cache and does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, contend in contenders.items():
            start = time.perf_counter()
            contend()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: dict[str, list[float]], above: str, below: str) -> float:
    """Median over rounds of the ratio of two contenders' times in the same round."""
    return statistics.median(a / b for a, b in zip(seconds[above], seconds[below], strict=True))


if __name__ == "__main__":
    main()
