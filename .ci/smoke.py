"""A researcher's first minutes with the installed wheel; run from a folder with its own ``analyses/``."""

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np

import entropy_lab as el


def main() -> None:
    """Write a run, analyse and draw it, copy a recipe and use the copy; draw and judge the study that we ran."""
    assert "site-packages" in el.__file__, el.__file__
    assert importlib.util.find_spec("torch") is None, "the core must not need torch"
    files = importlib.metadata.files("entropy-lab") or []
    top = {file.parts[0] for file in files if not file.parts[0].startswith(("entropy_lab", ".."))}
    assert not top, f"the wheel may put nothing else into site-packages: {top}"
    rng = np.random.default_rng(0)
    writer = el.RunWriter("run", method={"name": "grpo", "params": {}}, group_size=4)
    for step in range(3):
        correct = rng.random(32) < 0.5
        columns = {
            "prompt_id": [f"p{i // 4}" for i in range(32)],
            "group_id": np.arange(32) // 4,
            "sample": np.arange(32) % 4,
            "reward": correct.astype(float),
            "correct": correct,
            "epoch": np.zeros(32, int),
            "advantage": el.advantages.get("grpo")(correct.reshape(8, 4)).ravel(),
            "n_tokens": rng.integers(1, 9, 32),
            "logp": -rng.random(32),
            "entropy": rng.random(32),
        }
        writer.write_rollouts(step, columns)
    run("entropy-lab", "check", "run")
    run("entropy-lab", "analyze", "run")
    assert Path("run/analysis/covariance.parquet").exists()
    assert Path("run/figures/figure1.png").exists()
    run("entropy-lab", "copy", "analyses/covariance", ".")
    run("entropy-lab", "analyze", "run", "./covariance.py", "--out", "mine", "--json")
    run("entropy-lab", "figures", "tiny-study", "--out", "drawn")
    run("entropy-lab", "claims", "tiny-study", "--out", "drawn")
    assert Path("drawn/figures/table1.png").exists()
    assert Path("drawn/tables/claims.parquet").exists()
    refused = subprocess.run(
        ["entropy-lab", "train", "grpo", "--out", "x"], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2, refused
    assert "entropy-lab[train]" in refused.stderr, refused.stderr
    sys.stdout.write("the wheel works\n")


def run(*words: str) -> None:
    """Run a command that must succeed quietly."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


if __name__ == "__main__":
    main()
