"""What the reader of AReaL makes of dumped trajectories."""

import json

import polars as pl
import pytest

from entropy_lab.errors import RunFormatError
from entropy_lab.readers import open_any
from tests.foreign_samples import lines, notes, tfevents
from tests.foreign_token_samples import areal, ids, rollouts


def table(run):
    return run.scan().collect()


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


def coloured(number, one, reward):
    yellow, reset = "\x1b[33m\x1b[2m", "\x1b[0m"
    return (
        f"idx: {number} / 4, seqlen: 9, reward is {reward}.\nprompt is \n{yellow}{one['question']}{reset}\n"
        f"sequence is: \n{yellow}{one['said']}\nidx: no record{reset}\n"
    )


def test_the_texts_of_older_releases(tmp_path):
    for place in ("generated", "generated-eval"):
        for version in (0, 1):
            groups = {}
            for one in rollouts(version + 1):
                groups.setdefault(one["group"], []).append(one)
            for group, members in groups.items():
                file = tmp_path / place / str(version) / f"query-{group}.txt"
                file.parent.mkdir(parents=True, exist_ok=True)
                parts = [coloured(k + 1, one, one["reward"]) for k, one in enumerate(members)]
                file.write_text("".join([*parts, *parts[-1:]]))
    run = open_any(tmp_path)
    frame = table(run)
    want = [one for version in (1, 2) for one in rollouts(version)]
    assert frame["step"].to_list() == [k // 12 for k in range(24)]
    assert frame["reward"].to_list() == [one["reward"] for one in want]
    assert frame["completion"].to_list() == [f"{one['said']}\nidx: no record" for one in want]
    assert frame["group_id"].to_list() == [one["group"] for one in want]
    assert "n_tokens" not in frame.columns  # a text has the length of prompt and response together
    assert [file.step for file in run.eval_files] == [0]
    file = tmp_path / "generated" / "0" / "query-0.txt"
    file.write_text(file.read_text()[:-20])
    with pytest.warns(UserWarning, match="query-0.txt: its last sample is cut off"):
        assert table(open_any(tmp_path)).height == 24


def test_two_runs_are_refused(tmp_path):
    for name in ("a", "b"):
        areal(tmp_path / name, (0,))
    with pytest.raises(RunFormatError, match="trajectories of 2 runs"):
        open_any(tmp_path)


@pytest.mark.parametrize("first", [0, 1])
def test_scalars_count_from_1_and_versions_from_0(tmp_path, first):
    """A log that has a step 0 counts as the versions do."""
    names = ("ppo_actor/update/entropy/avg", "ppo_actor/task_reward/avg", "ppo_actor/update/grad_norm")
    scalars = [(step, name, (step - first) / 4) for step in (first, first + 1) for name in names]
    tfevents(tmp_path / "events.out.tfevents.1.host.0", scalars)
    run = open_any(areal(tmp_path, (0, 1)))
    rows = run.metrics().select("step", "entropy", "reward", "grad_norm").rows()
    assert rows == [(0, 0.0, 0.0, 0.0), (1, 0.25, 0.25, 0.25)]
    assert [file.step for file in run.step_files] == [0, 1]
    assert ("scalars count from 1" in notes(run)) is (first == 1)


@pytest.mark.parametrize("start", [1, 9])
def test_older_releases_log_a_row_each_mini_batch(tmp_path, start):
    """The first row of an update has what was measured once; a log of a run that went on begins later."""
    rows = {start + k: {"grpo_actor/update/entropy/avg": float(k), "grpo_actor/update/lr": 0.5} for k in range(8)}
    for k in (0, 4):
        rows[start + k] |= {"grpo_actor/task_reward/avg": k / 8, "timeperf/rollout": 3.0}
    scalars = [(step, name, value) for step, row in rows.items() for name, value in row.items()]
    tfevents(tmp_path / "events.out.tfevents.1.host.0", scalars)
    run = open_any(tmp_path)
    metrics = run.metrics()
    assert metrics["step"].to_list() == [start // 4, start // 4 + 1]
    assert metrics["entropy"].to_list() == [1.5, 5.5]
    assert metrics["reward"].to_list() == [0.0, 0.5]
    assert "a row each mini-batch, 4 an update" in notes(run)


def test_the_tables_of_a_console_log(tmp_path):
    text = """\x1b[37m20260101-00:00:01.000 StatsLogger INFO: Epoch 1/2 Step 1/9 Train step 1/18 done.
20260101-00:00:01.000 StatsLogger INFO: Stats (1/2):
│ ppo_actor/update/entropy/avg │ 5.0000e-01 │ ppo_actor/task_reward/avg │ 2.5000e-01 │
20260101-00:00:01.000 StatsLogger INFO: Stats (2/2):
│ ppo_actor/update/entropy/avg │ 2.5000e-01 │ name │ text │
20260101-00:00:02.000 StatsLogger INFO: Epoch 1/2 Step 2/9 Train step 2/18 done.
│ ppo_actor/update/entropy/avg │ 1.2500e-01 │ ppo_actor/task_reward/avg │ nan │
"""
    (tmp_path / "main.log").write_text(text, encoding="utf-8")
    metrics = open_any(tmp_path).metrics()
    assert metrics["step"].to_list() == [0, 1]
    assert metrics["entropy"].to_list() == [0.375, 0.125]
    assert metrics["reward"][0] == 0.25
