"""Time a look of `el.Monitor` at a run that grows, step by step: what it costs a training loop to call it each step.

``python -m benchmarks.monitor_speed`` writes a run of 1,000 steps of 512 rollouts, and lets its files appear one by one
in another folder. The cost of a look grows with the steps recorded, since all of the diagnosis is made anew; what is
read does not. Where other processes share the cores, the processor time tells more than the clock.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from benchmarks.diagnose_speed import Settings as Size
from benchmarks.diagnose_speed import write
from entropy_lab.monitoring.monitor import Monitor

AT = (20, 100, 300, 1000)
"""Steps recorded at which a look is timed, over the twenty steps before."""
_BEFORE = 20


@dataclass
class Settings:
    """Size of the run."""

    steps: int = 1000
    """Policy updates."""
    groups: int = 64
    """Groups of a step."""
    group_size: int = 8
    """Rollouts of a group."""


def measure(whole: Path, target: Path) -> list[tuple[float, float]]:
    """Let the files of a run appear step by step; seconds on the clock, and of the processor, of each look."""
    (target / "rollouts").mkdir(parents=True)
    shutil.copy(whole / "run.json", target)
    monitor, taken = Monitor(target), []
    lines = (whole / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    for file, line in zip(sorted((whole / "rollouts").iterdir()), lines, strict=True):
        file.rename(target / "rollouts" / file.name)
        with (target / "metrics.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(line)
        clock, processor = time.perf_counter(), time.process_time()
        monitor.update()
        taken.append((time.perf_counter() - clock, time.process_time() - processor))
    return taken


def main(settings: Settings) -> None:
    """Write, measure and print a table."""
    with tempfile.TemporaryDirectory() as folder:
        whole = write(Size(settings.steps, settings.groups, settings.group_size), Path(folder))
        taken = np.array(measure(whole, Path(folder) / "growing"))
    print("| steps recorded | ms of the clock | ms of the processor |\n|---|---|---|")
    for n in AT:
        if n <= settings.steps:
            clock, processor = 1000 * np.median(taken[n - _BEFORE : n], axis=0)
            print(f"| {n:,} | {clock:.0f} | {processor:.0f} |")


if __name__ == "__main__":
    main(tyro.cli(Settings))
