"""What the reader of NeMo-RL makes of its logger's files and its scalars."""

import json

import polars as pl
import pytest

from entropy_lab.errors import RunFormatError
from entropy_lab.readers import Options, open_any
from tests.foreign_samples import lines, notes, tfevents
from tests.foreign_token_samples import nemo_rl, rollouts


def table(run):
    return run.scan().collect()


def rewrite(file, change):
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    lines(file, [change(row) for row in rows])


def test_only_the_positions_of_the_loss_mask_are_read(tmp_path):
    run = open_any(nemo_rl(tmp_path, (1, 2)))
    frame = table(run)
    want = [one for step in (1, 2) for one in rollouts(step)]
    assert frame["token_ids"].to_list() == [one["response"] for one in want]
    assert frame["prompt_token_ids"].to_list() == [one["prompt"] for one in want]
    assert frame["logp"].to_list() == pytest.approx([sum(one["logp"]) for one in want], rel=1e-6)
    assert frame["advantage"].to_list() == pytest.approx([one["advantage"] for one in want])
    assert frame["content"].to_list() == [one["question"] + one["said"] for one in want]
    assert not frame["interrupted"].any()
    assert "token_advantage" not in frame.columns  # the same for all tokens of a rollout


def test_log_probabilities_that_were_never_computed_are_absent(tmp_path):
    run = open_any(nemo_rl(tmp_path, (1,), passed=False))
    assert "logp" not in run.columns
    assert "sampler_logp" in run.columns
    assert "prev_logprobs is zero everywhere" in notes(run)
    assert "logp" in run.info["imported"]["how_to_record"]


def test_a_prompt_drawn_twice_makes_two_groups(tmp_path):
    nemo_rl(tmp_path, (1,))
    file = tmp_path / "exp_001" / "train_data_step1.jsonl"
    rows = file.read_text().splitlines()
    file.write_text("\n".join([*rows[:4], *rows[:4], *rows[4:]]) + "\n")
    assert table(open_any(tmp_path))["group_id"].to_list() == [k // 4 for k in range(16)]


def test_the_group_size_of_the_settings_counts(tmp_path):
    nemo_rl(tmp_path, (1,), n_prompts=1, group=8)
    (tmp_path / "config.yaml").write_text(
        "grpo:\n  num_generations_per_prompt: 4\n  use_dynamic_sampling: false\npolicy:\n  model_name: Qwen/Qwen3\n"
    )
    run = open_any(tmp_path)
    assert table(run)["group_id"].to_list() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert (run.info["group_size"], run.info["model"]) == (4, "Qwen/Qwen3")


def test_dynamic_sampling_trains_on_the_filtered_reward(tmp_path):
    nemo_rl(tmp_path, (1,))
    rewrite(tmp_path / "exp_001" / "train_data_step1.jsonl", lambda row: {**row, "filtered_rewards": [0.25]})
    frame = table(open_any(tmp_path))
    assert frame["reward"].unique().to_list() == [0.25]
    assert frame["unfiltered_reward"].to_list() == [one["reward"] for one in rollouts(1)]


def test_a_tool_between_the_turns_is_told(tmp_path):
    nemo_rl(tmp_path, (1,), n_prompts=1, group=4)

    def two_turns(row):
        first = row["token_loss_mask"][0].index(1.0)
        row["token_loss_mask"][0][first + 1 : first + 2] = [0.0]
        return row

    rewrite(tmp_path / "exp_001" / "train_data_step1.jsonl", two_turns)
    frame = table(open_any(tmp_path))
    want = list(rollouts(1, n_prompts=1, group=4))
    assert frame["token_ids"].to_list() == [one["response"][:1] + one["response"][2:] for one in want]
    assert frame["interrupted"].to_list() == [len(one["response"]) > 2 for one in want]


def test_a_run_that_was_started_again_goes_on(tmp_path):
    nemo_rl(tmp_path, (1, 2))
    nemo_rl(tmp_path / "new", (2, 3))
    (tmp_path / "new" / "exp_001").rename(tmp_path / "exp_002")
    run = open_any(tmp_path)
    assert [file.step for file in run.step_files] == [0, 1, 2]
    assert "exp_002 goes on where exp_001 was left: it counts from step 2 on" in notes(run)
    nemo_rl(tmp_path / "exp_003", (1,))
    with pytest.raises(RunFormatError, match="both begin at step 1: several runs"):
        open_any(tmp_path, out=tmp_path / "out")


def test_validation_becomes_evals(tmp_path):
    nemo_rl(tmp_path, (1, 2))
    for step, reward in ((0, 0.0), (1, 1.0)):
        log = [{"role": "user", "content": "1+1="}, {"role": "assistant", "content": "2"}]
        rows = [{"content": [log], "rewards": [reward], "idx": k} for k in range(2)]
        lines(tmp_path / "exp_001" / f"val_data_step{step}.jsonl", rows)
    run = open_any(tmp_path)
    frame = pl.read_parquet(run.eval_files[0].path)
    assert frame["benchmark"].to_list() == ["validation before training"] * 2 + ["validation"] * 2
    assert frame["correct"].to_list() == [False, False, True, True]
    assert frame["sample"].to_list() == [0, 1, 0, 1]
    assert frame["completion"].to_list() == ["2"] * 4


def test_the_monte_carlo_entropy_is_not_taken_for_the_entropy(tmp_path):
    scalars = [(step, name, 0.5) for step in (1, 2) for name in ("train/approx_entropy", "train/reward", "train/lr")]
    tfevents(tmp_path / "logs" / "events.out.tfevents.1.host.0", scalars)
    run = open_any(tmp_path)
    metrics = run.metrics()
    assert run.info["imported"]["format"] == "nemo_rl"
    assert {"train/approx_entropy", "reward", "lr"} <= set(metrics.columns)
    assert "entropy" not in metrics.columns
    assert "Monte Carlo" in notes(run)


def test_rows_without_token_ids_need_the_group_size(tmp_path):
    nemo_rl(tmp_path, (1,))
    file = tmp_path / "exp_001" / "train_data_step1.jsonl"
    kept = ("content", "rewards", "input_lengths", "generation_logprobs", "prev_logprobs", "idx")
    rewrite(file, lambda row: {key: row[key] for key in kept})
    with pytest.raises(RunFormatError, match="line 1 has no token_ids and token_loss_mask, as an older NeMo-RL"):
        open_any(tmp_path)
    (tmp_path / "config.yaml").write_text("grpo:\n  num_generations_per_prompt: 4\n")
    frame = table(open_any(tmp_path))
    assert frame["group_id"].to_list() == [k // 4 for k in range(12)]
    assert "logp" not in frame.columns


def test_columns_can_be_named(tmp_path):
    frame = table(open_any(nemo_rl(tmp_path, (1,)), Options(correct_above=-1.0)))
    assert frame["correct"].all()
    with pytest.raises(LookupError, match="nowhere is no column of the source"):
        open_any(tmp_path, Options(columns={"reward": "nowhere"}), out=tmp_path / "x")


def test_older_releases_name_their_first_file_0(tmp_path):
    want = table(open_any(nemo_rl(tmp_path / "new", (1, 2))))
    folder = nemo_rl(tmp_path / "old", (1, 2)) / "exp_001"
    for step in (1, 2):
        (folder / f"train_data_step{step}.jsonl").rename(folder / f"train_data_step{step - 1}.jsonl")
    tfevents(
        folder / "events.out.tfevents.1.host.0", [(step, "train/mean_gen_tokens_per_sample", 9.5) for step in (1, 2)]
    )
    run = open_any(tmp_path / "old")
    assert table(run).equals(want)
    assert run.metrics()["step"].to_list() == [0, 1]
    assert "counts from 0, as in older releases" in notes(run)
