"""What the reader of AReaL makes of dumped trajectories."""

import json

import polars as pl
import pytest

from entropy_lab.errors import RunFormatError
from entropy_lab.readers import open_any
from tests.foreign_samples import lines, tfevents
from tests.foreign_token_samples import areal, ids, rollouts


def table(run):
    return run.scan().collect()


def notes(run):
    return " ".join(run.info["imported"]["notes"])


def test_the_version_of_the_weights_is_the_step(tmp_path):
    run = open_any(areal(tmp_path, (0, 1, 2)))
    frame = table(run)
    want = [one for version in (1, 2, 3) for one in rollouts(version)]
    assert frame["step"].to_list() == [k // 12 for k in range(36)]
    assert frame["completion"].to_list() == [one["said"] for one in want]
    assert frame["n_tokens"].to_list() == [len(one["response"]) for one in want]
    assert frame["reward"].to_list() == [one["reward"] for one in want]
    assert frame["group_id"].to_list() == [one["group"] for one in want]
    assert "some updates later" in notes(run)
    assert "rejected" in notes(run)


def test_a_run_that_was_started_again_appends(tmp_path):
    areal(tmp_path, (0,))
    file = tmp_path / "rollout" / "0" / "1.jsonl"
    row = json.loads(file.read_text().splitlines()[2])
    with file.open("a") as stream:
        stream.write(json.dumps({**row, "completion": "again"}) + "\n")
    run = open_any(tmp_path)
    assert table(run)["completion"].to_list().count("again") == 1
    assert table(run).height == 12
    assert "1 rows repeat a task and sample" in notes(run)


def test_of_a_conversation_only_the_turns_of_the_policy_count(tmp_path):
    one = next(rollouts(1))
    row = {"task_id": 0, "sample_idx": 0, "seqlen": len(ids(one)) + 9, "prompt_len": 3, "head_version": 0}
    row |= {"tail_version": 0, "reward": 1.0, "prompt": "1+1=", "completion": "2", "original_reward": 3.0}
    row["segments"] = [
        {"role": role, "len": n, "text": ""} for role, n in (("prompt", 3), ("gen", 4), ("context", 7), ("gen", 2))
    ]
    lines(tmp_path / "rollout" / "0" / "0.jsonl", [row])
    frame = table(open_any(tmp_path))
    assert frame["n_tokens"].to_list() == [6]
    assert frame["original_reward"].to_list() == [3.0]


def test_evaluations_become_evals(tmp_path):
    areal(tmp_path, (0, 1))
    run = open_any(areal(tmp_path, (0, 1), place="eval-rollout"))
    frame = pl.read_parquet(run.eval_files[0].path)
    assert frame["benchmark"].unique(maintain_order=True).to_list() == ["validation before training", "validation"]
    assert len(run.step_files) == 2


def test_two_runs_are_refused(tmp_path):
    for name in ("a", "b"):
        areal(tmp_path / name, (0,))
    with pytest.raises(RunFormatError, match="trajectories of 2 runs"):
        open_any(tmp_path)


def test_scalars(tmp_path):
    names = ("ppo_actor/update/entropy/avg", "ppo_actor/task_reward/avg")
    tfevents(tmp_path / "events.out.tfevents.1.host.0", [(0, name, 0.5) for name in names])
    assert open_any(tmp_path).metrics().select("step", "entropy", "reward").row(0) == (0, 0.5, 0.5)
