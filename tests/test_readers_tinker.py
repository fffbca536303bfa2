"""What the readers of the Tinker cookbook and of OpenRLHF make of summaries and scalars."""

import json

import polars as pl
import pytest

from entropy_lab.errors import RunFormatError
from entropy_lab.readers import open_any
from tests.foreign_samples import lines, notes, tfevents
from tests.foreign_token_samples import metrics_file, rollouts, tinker


def table(run):
    return run.scan().collect()


def test_summaries_have_rewards_groups_and_lengths(tmp_path):
    run = open_any(tinker(tmp_path, (0, 1)))
    frame = table(run)
    want = [one for iteration in (1, 2) for one in rollouts(iteration)]
    assert frame["step"].to_list() == [0] * 12 + [1] * 12
    assert frame["reward"].to_list() == [one["reward"] for one in want]
    assert frame["correct"].to_list() == [one["verdict"] for one in want]
    assert frame["n_tokens"].to_list() == [len(one["response"]) for one in want]
    assert frame["group_id"].to_list() == [one["group"] for one in want]
    assert frame["prompt_id"].n_unique() == 6
    assert not {"logp", "entropy", "prompt", "truncated"} & set(frame.columns)
    assert "each group counts as a prompt of its own" in notes(run)


def test_newer_releases_say_what_stopped_a_turn(tmp_path):
    tinker(tmp_path, (0,))
    file = tmp_path / "iteration_000000" / "train_rollout_summaries.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for number, row in enumerate(rows):
        row["steps"][0]["stop_reason"] = "length" if number == 2 else "stop"
    lines(file, rows)
    assert table(open_any(tmp_path))["truncated"].to_list() == [k == 2 for k in range(12)]


def test_evaluations_become_evals(tmp_path):
    tinker(tmp_path, (0, 1))
    run = open_any(tinker(tmp_path, (0, 1, 2), name="eval_gsm8k"))
    assert [file.step for file in run.eval_files] == [0, 1]
    frame = pl.read_parquet(run.eval_files[0].path)
    assert frame["benchmark"].unique(maintain_order=True).to_list() == ["gsm8k before training", "gsm8k"]


def test_rows_of_another_iteration_are_refused(tmp_path):
    tinker(tmp_path, (0,))
    file = tmp_path / "iteration_000000" / "train_rollout_summaries.jsonl"
    file.write_text(file.read_text().replace('"iteration": 0', '"iteration": 4', 1))
    with pytest.raises(RunFormatError, match="line 1 is of step 4: rows of several steps are mixed"):
        open_any(tmp_path)


def test_the_monte_carlo_entropy_is_not_taken_for_the_entropy(tmp_path):
    row = {"optim/entropy": 0.5, "optim/lr": 1e-4, "kl_policy_base": 0.25, "time/total": 3.0}
    metrics_file(tmp_path / "metrics.jsonl", [{"step": step, **row} for step in (0, 1)])
    run = open_any(tmp_path)
    metrics = run.metrics()
    assert run.info["imported"]["format"] == "tinker"
    assert metrics["step"].to_list() == [0, 1]
    assert metrics["reference_kl"].to_list() == [0.25, 0.25]
    assert "optim/entropy" in metrics.columns
    assert "entropy" not in metrics.columns


@pytest.mark.parametrize("turns", [1.0, 2.5])
def test_scalars_whose_definition_is_ours(tmp_path, turns):
    """Tokens a turn are tokens a rollout in single-turn runs alone; "all good" groups need not be solved."""
    row = {"optim/entropy": 0.5, "env/all/total_ac_tokens": 96, "env/all/ac_tokens_per_turn": 12.0}
    row |= {"env/all/turns_per_episode": turns, "env/all/by_group/frac_all_good": 0.25, "env/all/reward/total": 0.125}
    evaluation = {"step": 0, "test/env/all/reward/total": 0.5}  # asynchronous evaluations have rows of their own
    metrics_file(tmp_path / "metrics.jsonl", [evaluation, *({"step": step, **row} for step in (0, 1))])
    run = open_any(tmp_path)
    metrics = run.metrics()
    assert run.info["imported"]["format"] == "tinker"
    assert metrics["n_tokens"].to_list() == [96, 96]
    assert metrics["reward"].to_list() == [0.125, 0.125]
    assert ("mean_length" in metrics.columns) is (turns == 1.0)
    assert not {"all_solved", "none_solved"} & set(metrics.columns)


def test_openrlhf_keeps_scalars_alone(tmp_path):
    names = ("train/reward", "train/vllm_kl", "train/entropy_loss", "train/response_length")
    tfevents(tmp_path / "events.out.tfevents.1.host.0", [(step, name, 0.5) for step in (1, 2) for name in names])
    run = open_any(tmp_path)
    assert run.info["imported"]["format"] == "openrlhf"
    assert run.metrics()["step"].to_list() == [0, 1]
    assert {"reward", "mean_length", "train/entropy_loss"} <= set(run.metrics().columns)
    assert "entropy" not in run.metrics().columns
    assert "Recorder" in run.info["imported"]["how_to_record"]["rollouts"]
