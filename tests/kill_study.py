"""Kill a running study ten times at random moments, and compare where it ends with one that was left alone.

``make kill``: about ten minutes on two cores. The seed of the moments is printed; give it as the first argument to
repeat them.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KILLS = 10
PLAN = """
name = "kill"
seeds = 3
[defaults]
steps = 12
train_prompts = 64
prompts_per_step = 16
mini_batches = 2
warm_start_steps = 10
eval_every = 4
eval_problems = 20
eval_samples = 2
[settings.five]
task = "countdown"
[settings.four]
task = "countdown-4"
[methods.base]
advantage = "grpo"
lr = 0.0
steps = 1
[methods.grpo]
advantage = "grpo"
[methods.entropy-target]
advantage = "entropy_target"
"""


def contents(study: Path) -> dict[str, object]:
    """Everything that a study holds but times and the lock."""
    found: dict[str, object] = {}
    for file in sorted(path for path in study.rglob("*") if path.is_file()):
        name = str(file.relative_to(study))
        if file.name == "run.json":
            found[name] = {**json.loads(file.read_text()), "created": None}
        elif file.name == "metrics.jsonl":
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            found[name] = [{k: v for k, v in row.items() if not k.startswith("time")} for row in rows]
        elif file.name == "timings.json":
            found[name] = sorted(json.loads(file.read_text()))
        elif file.name != ".lock":
            found[name] = file.read_bytes()
    return found


def finished(study: Path) -> int:
    """Runs that are whole."""
    return len(list((study / "runs").glob("*")))


def wait_for_work(process: subprocess.Popen[bytes], study: Path, least: int) -> None:
    """Wait until this start of the study trains, and so many runs are whole: each kill throws work away."""
    while process.poll() is None:
        if finished(study) >= least and list(study.glob(f"unfinished/{process.pid}/*/metrics.jsonl")):
            return
        time.sleep(0.02)


def say(line: str) -> None:
    """Tell how far it is, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run the comparison; exit with 1 where the two studies differ."""
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else random.SystemRandom().randrange(10**6)
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["ENTROPY_LAB_CACHE"] = str(root / "cache")
        (root / "kill.toml").write_text(PLAN)

        def command(out: str) -> list[str]:
            words = ["study", str(root / "kill.toml"), "--out", str(root / out), "--keep", "rollouts"]
            return [sys.executable, "-m", "entropy_lab.cli", *words]

        began = time.monotonic()
        subprocess.run(command("whole"), check=True, stdout=subprocess.DEVNULL)
        lasts = time.monotonic() - began
        whole = contents(root / "whole")
        say(f"seed {seed}: {len(whole)} files in {lasts:.0f} s undisturbed")
        for number in range(1, KILLS + 1):
            process = subprocess.Popen(command("killed"), stdout=subprocess.DEVNULL)
            # Every third kill falls into the start, the others while runs are being made.
            if number % 3:
                wait_for_work(process, root / "killed", (number - 1) * finished(root / "whole") // KILLS)
            after = rng.uniform(0, lasts / KILLS)
            try:
                process.wait(after)
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
            ended = process.wait()
            done = finished(root / "killed")
            into = "its work" if number % 3 else "its start"
            say(f"kill {number}: {after:.1f} s into {into}, exit {ended}, {done} runs finished")
            early = {name: value for name, value in contents(root / "killed").items() if name.startswith("runs/")}
            assert all(whole[name] == value for name, value in early.items()), "a finished run differs"
        subprocess.run(command("killed"), check=True, stdout=subprocess.DEVNULL)
        killed = contents(root / "killed")
    different = sorted(name for name in whole.keys() | killed.keys() if whole.get(name) != killed.get(name))
    if different:
        sys.exit(f"different: {', '.join(different)}")
    say(f"all {len(whole)} files equal")


if __name__ == "__main__":
    main()
