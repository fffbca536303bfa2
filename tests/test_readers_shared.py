"""Files that the real frameworks wrote, when they are at hand: they open, and say the same in every layout."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from entropy_lab.readers import Options, open_any

FOREIGN = Path(__file__).parent.parent.parent / "shared" / "data" / "foreign"
pytestmark = pytest.mark.skipif(not FOREIGN.exists(), reason="needs ../shared/data/foreign")


def rollouts(run):
    return run.scan().collect()


def test_verl_layouts_agree_value_by_value_and_with_its_own_scalars(tmp_path):
    source = FOREIGN / "verl" / "hook"
    key = ["step", "prompt", "completion", "reward", "correct", "answer"]
    one, two = (
        rollouts(open_any(source / name, out=tmp_path / name)).select(key).sort(key)
        for name in ("rollout_v0", "rollout_v1")
    )
    assert one.equals(two)
    run = open_any(source, out=tmp_path / "all")
    frame, metrics = rollouts(run), run.metrics()
    tokens = frame.group_by("step", maintain_order=True).agg(
        entropy=(pl.col("entropy") * pl.col("n_tokens")).sum() / pl.col("n_tokens").sum(),
        reward=pl.col("reward").mean(),
        mean_length=pl.col("n_tokens").mean(),
    )
    for name in ("entropy", "reward", "mean_length"):
        np.testing.assert_allclose(tokens[name], metrics[name], rtol=1e-6)
    np.testing.assert_allclose(
        frame.group_by("step", "group_id").agg(pl.col("advantage").mean())["advantage"], 0, atol=1e-6
    )


def test_verl_tensorboard_says_what_its_file_logger_says(tmp_path):
    names = ("file_logger", "tensorboard")
    logs = [open_any(FOREIGN / "verl" / "grpo" / name, out=tmp_path / name).metrics() for name in names]
    assert sorted(logs[0].columns) == sorted(logs[1].columns)
    for name in logs[0].columns:
        np.testing.assert_allclose(logs[1][name], logs[0][name], rtol=1e-6)


@pytest.mark.parametrize(("name", "steps", "evals"), [("base", 3, 0), ("tb", 1, 2), ("adaptent", 3, 0), ("hook", 3, 0)])
def test_trl_rewards_are_those_that_it_logged(tmp_path, name, steps, evals):
    run = open_any(FOREIGN / "trl" / name, Options(columns={"correct": "exact"}), out=tmp_path / "run")
    assert (len(run.step_files), len(run.eval_files)) == (steps, evals)
    frame, metrics = rollouts(run), run.metrics()
    logged = dict(zip(metrics["step"], metrics["reward"], strict=True))
    for (step,), part in frame.group_by("step"):
        assert part["reward"].mean() == pytest.approx(logged[step], abs=1e-6)
    np.testing.assert_allclose(
        frame.group_by("step", "group_id").agg(pl.col("advantage").mean())["advantage"], 0, atol=1e-5
    )
    if name == "hook":
        entropy = frame.group_by("step", maintain_order=True).agg(
            (pl.col("entropy") * pl.col("n_tokens")).sum() / pl.col("n_tokens").sum()
        )
        np.testing.assert_allclose(entropy["entropy"], metrics["entropy"], rtol=1e-5)


def test_public_logs_open(tmp_path):
    for file in sorted((FOREIGN / "public").glob("*step_logs.json")):
        entries = json.loads(file.read_text())
        metrics = open_any(file, out=tmp_path / file.stem).metrics()
        want = {entry["step"] - 1: entry["entropy"] for entry in entries if "entropy" in entry}
        assert dict(zip(metrics["step"], metrics["entropy"], strict=True)) == want
    dump = next((FOREIGN / "public").glob("*verl*.jsonl"))
    frame = rollouts(open_any(dump, out=tmp_path / "dump"))
    assert frame["completion"].to_list() == [json.loads(line)["output"] for line in dump.read_text().splitlines()]
