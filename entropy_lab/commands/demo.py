"""``entropy-lab demo``: a real, small experiment from nothing to figures."""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path

from entropy_lab.cli import Analyze, Demo
from entropy_lab.commands import analyze, train


def run(command: Demo) -> None:
    """Train the tiny default, analyse the run, and say where everything is and what to try next."""
    out = command.out or _free("demo")
    began = time.perf_counter()
    sys.stdout.write(f"training a tiny Qwen3 on the countdown task with GRPO, recorded in {out}/ …\n")
    sys.stdout.flush()
    train.run("grpo", ["--out", str(out)])
    analyze.run(Analyze(out))
    sys.stdout.write(
        f"\ndone in {time.perf_counter() - began:.0f} s. Next:\n"
        f"  look at {out}/figures/figure2.png\n"
        "  entropy-lab train grpo --advantage asym_grpo --advantage-params beta_pos 0.9 beta_neg 0.4 --out RUN\n"
        "  entropy-lab figures STUDY   draws runs side by side when they lie in STUDY/runs/\n"
    )


def _free(name: str) -> Path:
    """Give the first of ``name``, ``name-2``, ``name-3``, … that does not exist."""
    candidates = (Path(name if i == 1 else f"{name}-{i}") for i in itertools.count(1))
    return next(path for path in candidates if not path.exists())
