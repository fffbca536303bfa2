"""Damage what other frameworks wrote at random and hold ``entropy-lab import`` to its promise; run by ``make fuzz``.

Each trial cuts off, empties or overwrites one file, or puts another value into a line of JSON or CSV. Allowed: success,
or exit code 2 with one line. Nothing else, whatever the file holds; and what was imported passes ``entropy-lab check``.
"""

import contextlib
import io
import random
import re
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

from entropy_lab.cli import main as command_line
from tests import foreign_token_samples as tokens
from tests.foreign_samples import (
    lines,
    tfevents,
    trackio_db,
    trainer_state,
    trl_completions,
    trl_entry,
    trl_rows,
    verl_scalars,
    verl_v0,
    verl_v1,
    wandb_log,
)

TRIALS = 1000
VALUES = ("null", '"x"', "[1]", '{"a":1}', "-3", "99999999999999999999", "1e400", "NaN", "true", "0.5", "")


def make_runs(folder: Path) -> list[Path]:
    verl_v1(folder / "v1", (1, 2))
    verl_v0(folder / "v0", (1, 2))
    lines(folder / "logger" / "run.jsonl", [{"step": step, "data": verl_scalars(step)} for step in (1, 2, 3)])
    scalars = [(step, name, value) for step in (1, 2, 3) for name, value in verl_scalars(step).items()]
    tfevents(folder / "events" / "events.out.tfevents.1.host.0", scalars)
    for step in (1, 2):
        trl_completions(folder / "trl" / "completions", step, list(trl_rows(step)))
    trainer_state(folder / "trl" / "trainer_state.json", [trl_entry(1), trl_entry(2)])
    wandb_log(folder / "wandb" / "run-a.wandb", [(step, verl_scalars(step)) for step in (1, 2)], [("n", 4)])
    trackio_db(folder / "trackio" / "p.db", {"one": [{"train/frac_reward_zero_std": 0.0, "train/global_step": 1}]})
    rows = [{"step": step, "prompt": "a", "reward": 0.5 * k} for step in (1, 2) for k in (0, 1)]
    lines(folder / "table" / "rollouts.jsonl", rows)
    texts = {
        "scalars/m.csv": "step,entropy\n1,0.5\n2,0.25\n",
        "console/out.log": "step:1 - actor/entropy:0.5 - actor/pg_loss:0.1\nstep:2 - actor/entropy:0.4\n",
        "printed/out.log": "{'loss': 0.1, 'reward_std': 0.1, 'reward': nan}\n",
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir()
        (folder / name).write_text(text)
    make_token_runs(folder)
    return sorted(folder.iterdir())


def make_token_runs(folder: Path) -> None:
    small = {"n_prompts": 2, "group": 2}
    for name in ("nemo_rl", "slime", "open_instruct", "skyrl", "tinker"):
        getattr(tokens, name)(folder / name, (1, 2), **small)
    tokens.skyrl(folder / "skyrl_rewards", (1,), {"uids": ["a", "a", "b", "b"]}, rewards=True, **small)
    tokens.prime_rl_exports(folder / "prime_rl", (1, 2), **small)
    tokens.prime_rl_episodes(folder / "prime_rl", (1, 2), **small)
    tokens.prime_rl_episodes(folder / "episodes", (1, 2), **small)
    tokens.prime_rl_episodes(folder / "episodes", (2,), kind="eval", subset="all", **small)
    rows = [{"step": step, "time": float(k), "entropy/all/mean": 0.5} for k, step in enumerate((1, 1, 2))]
    tokens.metrics_file(folder / "prime_rl" / "metrics.jsonl", rows)
    tokens.areal(folder / "areal", (0, 1), **small)
    tokens.areal(folder / "areal", (1,), place="eval-rollout", **small)
    tokens.roll_rows(folder / "roll", (0, 1), **small)
    tokens.roll_columns(folder / "roll", (0, 1), **small)
    tokens.roll_columns(folder / "roll_columns", (0, 1), **small)
    tokens.tinker(folder / "tinker", (1,), name="eval_gsm8k", **small)


def damaged(data: bytes, rng: random.Random) -> bytes:
    how = rng.choice(("cut", "empty", "bytes", "bytes", "value", "value"))
    if how == "cut":
        return data[: rng.randrange(len(data))]
    if how == "bytes":
        spoilt = bytearray(data)
        for _ in range(rng.choice([1, 1, 4, 30])):
            spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
        return bytes(spoilt)
    places = list(re.finditer(rb'(?<=[: ,\n])-?\d+\.?\d*|"[^"]*"', data))
    if how == "value" and places:
        place = rng.choice(places)
        return data[: place.start()] + rng.choice(VALUES).encode() + data[place.end() :]
    return b""


def outcome(*words: str) -> str:
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            command_line(words)
    except SystemExit as stop:
        last = (errors.getvalue().splitlines() or [""])[-1]
        if stop.code == 2 and last.startswith("entropy-lab: "):
            return "refused in words"
        return f"BROKEN PROMISE: exit {stop.code}, {last!r}"
    except Exception:
        return f"BROKEN PROMISE: {traceback.format_exc(limit=-2)}"
    return "read"


def main() -> None:
    rng, seen = random.Random(0), Counter()
    with tempfile.TemporaryDirectory() as folder:
        sources, case, out = make_runs(Path(folder) / "made"), Path(folder) / "case", Path(folder) / "out"
        for _ in range(TRIALS):
            for old in (case, out):
                shutil.rmtree(old, ignore_errors=True)
            shutil.copytree(rng.choice(sources), case)
            file = rng.choice(sorted(path for path in case.rglob("*") if path.is_file() and path.stat().st_size))
            file.write_bytes(damaged(file.read_bytes(), rng))
            result = outcome("import", str(case), "--out", str(out), *rng.choice(((), ("--skip-invalid",))))
            if result == "read" and any((out / part).exists() for part in ("rollouts", "evals")):
                checked = outcome("check", str(out))
                result = result if checked == "read" else f"BROKEN PROMISE: imported {file.name}, then {checked}"
            seen[result] += 1
    for result, count in seen.most_common():
        print(f"{count:5d}  {result}")  # noqa: T201
    sys.exit(any(result.startswith("BROKEN") for result in seen))


if __name__ == "__main__":
    main()
