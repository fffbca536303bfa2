"""What the reader of open-instruct makes of its traces."""

import json

import pytest

from entropy_lab.errors import RunFormatError
from entropy_lab.readers import Options, open_any
from tests.foreign_samples import lines, tfevents
from tests.foreign_token_samples import open_instruct, rollouts


def table(run):
    return run.scan().collect()


def notes(run):
    return " ".join(run.info["imported"]["notes"])


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


def test_scalars_of_an_unknown_mean_keep_their_names(tmp_path):
    names = ("loss/kl_avg", "policy/entropy_avg")
    tfevents(tmp_path / "events.out.tfevents.1.host.0", [(1, name, 0.5) for name in names])
    run = open_any(tmp_path)
    assert run.info["imported"]["format"] == "open_instruct"
    assert set(run.metrics().columns) == {"step", *names}
