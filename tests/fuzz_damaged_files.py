"""Damage a run's Parquet files at random and hold the command line to its promise; run by ``make fuzz``.

Each trial overwrites a few bytes of one file, or cuts it off, and analyses the run with and without
``--skip-invalid``, and checks it. Allowed: success (the damage hit a value, and the value is plausible), or exit code 2
with one line (``check`` lists every fault before it). Nothing else, whatever the file holds.
"""

import contextlib
import io
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

import entropy_lab as el
from entropy_lab.cli import main as command_line

TRIALS = 1500


def make_run(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    writer = el.RunWriter(folder, method={"name": "grpo", "params": {}})
    files = []
    for step in range(3):
        columns = {
            "prompt_id": [f"q{i // 4}" for i in range(24)],
            "group_id": np.arange(24) // 4,
            "sample": np.arange(24) % 4,
            "epoch": np.zeros(24, int),
            "correct": rng.random(24) < 0.5,
            "n_tokens": rng.integers(1, 9, 24),
            **{name: rng.random(24) for name in ("reward", "advantage", "entropy")},
            **{name: -rng.random(24) for name in ("logp", "logp_after")},
        }
        files.append(writer.write_rollouts(step, columns))
    return files


def damaged(data: bytes, rng: random.Random) -> bytes:
    spoilt = bytearray(data)
    for _ in range(rng.choice([1, 1, 4, 30])):
        spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
    return bytes(spoilt[: rng.randrange(len(spoilt))] if rng.random() < 0.2 else spoilt)


def outcome(*words: str) -> str:
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            command_line(words)
    except SystemExit as stop:
        said = [line for line in errors.getvalue().splitlines() if not line.startswith("warning: ")]
        *faults, line = said or [""]
        listed = words[0] == "check" and all(fault.startswith("invalid: ") for fault in faults)
        if stop.code == 2 and line.startswith("entropy-lab: ") and (listed or not faults):
            return f"{words[0]}: refused in words"
        return f"{words[0]}: exit {stop.code}: {errors.getvalue()[:200]}"
    except BaseException as error:
        return f"{words[0]}: {type(error).__name__}: {error}"
    return f"{words[0]}: done"


def main() -> None:
    rng, outcomes = random.Random(0), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        run, out = str(Path(folder) / "run"), str(Path(folder) / "out")
        analyze = ("analyze", run, "--no-figures", "--out", out)
        commands = (analyze, (*analyze, "--skip-invalid"), ("check", run))
        files = make_run(Path(run))
        for _ in range(TRIALS):
            file = rng.choice(files)
            whole = file.read_bytes()
            file.write_bytes(damaged(whole, rng))
            outcomes.update(outcome(*words) for words in commands)
            file.write_bytes(whole)
    for text, count in outcomes.most_common():
        sys.stdout.write(f"{count:6,} {text}\n")
    if not all(text.endswith((": done", ": refused in words")) for text in outcomes):
        sys.exit("a damaged file escaped")


if __name__ == "__main__":
    main()
