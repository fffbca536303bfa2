"""What the reader of open-instruct makes of its traces."""

import json

import pytest

from entropy_lab.errors import RunFormatError
from entropy_lab.readers import Options, open_any
from tests.foreign_samples import lines, notes, tfevents, wandb_log
from tests.foreign_token_samples import open_instruct, rollouts


def table(run):
    return run.scan().collect()


def test_steps_that_straddle_shards_are_whole(tmp_path):
    run = open_any(open_instruct(tmp_path, (1, 2, 3), per_shard=7))
    frame = table(run)
    want = [one for step in (1, 2, 3) for one in rollouts(step)]
    assert frame["step"].to_list() == [k // 12 for k in range(36)]
    assert frame["token_ids"].to_list() == [one["response"] for one in want]
    assert frame["prompt_token_ids"].to_list() == [one["prompt"] for one in want]
    assert frame["group_id"].to_list() == [one["group"] for one in want]
    assert frame["sampler_logp"].to_list() == pytest.approx([sum(one["sampler"]) for one in want], rel=1e-6)
    assert frame["truncated"].to_list() == [k % 5 == 4 for k in range(12)] * 3
    assert frame["source"].unique().to_list() == ["add"]
    assert (run.info["name"], run.info["model"]) == ("run", "Qwen/Qwen3")
    assert "logp" not in run.columns  # what the traces have is the engine's


def test_traces_without_log_probabilities(tmp_path):
    open_instruct(tmp_path, (1,), per_shard=12)
    file = tmp_path / "run_rollouts_000000.jsonl"
    lines(file, [{**json.loads(line), "logprobs": None} for line in file.read_text().splitlines()])
    frame = table(open_any(tmp_path))
    assert "sampler_logp" not in frame.columns
    assert frame["n_tokens"].to_list() == [len(one["response"]) for one in rollouts(1)]


def test_a_run_that_was_resumed_counts_from_there(tmp_path):
    open_instruct(tmp_path / "first", (1, 2, 3), per_shard=100)
    open_instruct(tmp_path, (2, 3), per_shard=100)
    early = (tmp_path / "first" / "run_rollouts_000000.jsonl").read_text()
    late = (tmp_path / "run_rollouts_000000.jsonl").read_text().replace('"dataset": "add"', '"dataset": "late"')
    (tmp_path / "run_rollouts_000000.jsonl").write_text(early + late)
    (tmp_path / "first" / "run_rollouts_000000.jsonl").unlink()
    run = open_any(tmp_path)
    assert table(run)["source"].to_list() == ["add"] * 12 + ["late"] * 24
    assert "training was resumed: of steps that stand twice (steps 2, 3), the later rows count" in notes(run)


def test_traces_of_two_runs(tmp_path):
    open_instruct(tmp_path, (1,), per_shard=12)
    (tmp_path / "run_rollouts_000000.jsonl").rename(tmp_path / "other_rollouts_000000.jsonl")
    open_instruct(tmp_path, (1, 2), per_shard=24)
    with pytest.raises(RunFormatError, match=r"traces of 2 runs: other, run; one run. Hint: --run-name other"):
        open_any(tmp_path)
    assert len(open_any(tmp_path, Options(run_name="run")).step_files) == 2


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        ({"step": None}, "line 1 has step None"),
        ({"step": -1}, "line 1 has step -1"),
        ({"reward": "high"}, "line 1 has no number as reward"),
        ({"response_tokens": 5}, "line 1 has no list as response_tokens"),
        ({"logprobs": [0.0] * 99}, "line 1 has 99 values in logprobs"),
        ({"prompt_idx": 1.5}, "line 1 has prompt_idx 1.5"),
    ],
)
def test_rows_of_another_shape(tmp_path, edit, what):
    open_instruct(tmp_path, (1,), per_shard=12)
    file = tmp_path / "run_rollouts_000000.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    lines(file, [{**rows[0], **edit}, *rows[1:]])
    with pytest.raises(RunFormatError, match=what):
        open_any(tmp_path)
    with pytest.warns(UserWarning, match="left out 1 row"):
        assert table(open_any(tmp_path, Options(skip_invalid=True))).height == 11


def test_the_entropy_is_taken_unless_the_settings_make_it_another_mean(tmp_path):
    names = ("loss/kl_avg", "policy/entropy_avg")
    tfevents(tmp_path / "a" / "events.out.tfevents.1.host.0", [(1, name, 0.5) for name in names])
    run = open_any(tmp_path / "a")
    assert run.info["imported"]["format"] == "open_instruct"
    assert set(run.metrics().columns) == {"step", "loss/kl_avg", "entropy"}
    assert "masked_mean_axis is unknown" in notes(run)
    rows = [(1, dict.fromkeys(names, 0.5))]
    for axis, name in ((None, "entropy"), (1, "policy/entropy_avg")):
        folder = tmp_path / f"axis {axis}"
        folder.mkdir()
        wandb_log(folder / "run-a.wandb", rows, [("masked_mean_axis", axis), ("masked_mean_denominator", None)])
        assert name in open_any(folder).metrics().columns


def test_the_entropy_of_the_older_trainers_counts_padding(tmp_path):
    names = ("objective/verifiable_correct_rate", "policy/approxkl_avg", "policy/entropy_avg")
    tfevents(tmp_path / "events.out.tfevents.1.host.0", [(1, name, 0.5) for name in names])
    run = open_any(tmp_path)
    assert "entropy" not in run.metrics().columns
    assert "no mean over the response's tokens" in notes(run)


def test_scalars_are_filed_under_the_training_step_and_not_under_episodes(tmp_path):
    """The sinks' own steps, and `global_step`, count episodes."""
    rows = [
        {"global_step": step * 64, "episode": step * 64, "training_step": step, "scores": step / 8, "lr": 1e-6}
        | {"val/sequence_lengths": 7.0, "val/stop_rate": 0.5, "optim/grad_norm": 2.0}
        for step in (1, 2, 3)
    ]
    (tmp_path / "wandb").mkdir()
    wandb_log(tmp_path / "wandb" / "run-a.wandb", [(row["training_step"], row) for row in rows])
    scalars = [(row["episode"], name, value) for row in rows for name, value in row.items()]
    tfevents(tmp_path / "tb" / "events.out.tfevents.1.host.0", scalars)
    for place in (tmp_path / "wandb", tmp_path / "tb"):
        metrics = open_any(place).metrics()
        assert metrics["step"].to_list() == [0, 1, 2]
        assert metrics["reward"].to_list() == [0.125, 0.25, 0.375]
        assert metrics["mean_length"].to_list() == [7.0] * 3
        assert {"lr", "grad_norm", "episode"} <= set(metrics.columns)


def test_shards_of_newer_releases_count_from_0(tmp_path):
    run = open_any(open_instruct(tmp_path, (0, 1), per_shard=12))
    assert [file.step for file in run.step_files] == [0, 1]
    assert "the shards count from 0, scalars from 1" in notes(run)


def test_prompts_make_groups_where_truncated_rollouts_were_taken_out(tmp_path):
    """The writer divides the number of the row by the group size, after rows were taken out."""
    open_instruct(tmp_path, (1,), per_shard=12)
    file = tmp_path / "run_rollouts_000000.jsonl"
    kept = [json.loads(line) for line in file.read_text().splitlines()][1:]
    size = [row["prompt_idx"] for row in kept].count(1)
    lines(file, [{**row, "prompt_idx": number // size} for number, row in enumerate(kept)])
    run = open_any(tmp_path)
    assert table(run)["group_id"].to_list() == [one["group"] for one in rollouts(1)][1:]
    assert "equal prompts make a group" in notes(run)


def test_the_older_traces_have_a_line_of_columns_each_step(tmp_path):
    def line(step):
        of_step = list(rollouts(step))
        return {
            "scores": [one["reward"] for one in of_step],
            "finish_reasons": ["length" if k == 2 else "stop" for k in range(12)],
            "responses": [one["response"] for one in of_step],
            "training_step": step,
            "queries": [one["prompt"] for one in of_step],
            "ground_truths": [["3"]] * 12,
            "datasets": ["gsm8k"] * 12,
            "objective/verifiable_reward": 0.5,
        }

    lines(tmp_path / "traces_run__1__17.jsonl", [line(1), line(2), line(2)])
    run = open_any(tmp_path)
    frame = table(run)
    assert run.info["imported"]["format"] == "open_instruct"
    assert frame["step"].to_list() == [0] * 12 + [1] * 12
    assert frame["reward"].to_list() == [one["reward"] for step in (1, 2) for one in rollouts(step)]
    assert frame["group_id"].to_list() == [one["group"] for step in (1, 2) for one in rollouts(step)]
    assert frame["truncated"].to_list() == [k == 2 for k in range(12)] * 2
    assert frame["source"].unique().to_list() == ["gsm8k"]
    assert "of steps that stand twice, the later lines count" in notes(run)
    lines(tmp_path / "traces_run__1__17.jsonl", [line(1) | {"scores": [1.0]}])
    with pytest.raises(RunFormatError, match="line 1 has another number of scores than of responses"):
        open_any(tmp_path, out=tmp_path / "again.entropy-lab")
