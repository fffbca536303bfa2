"""What the reader of prime-rl makes of token exports, episodes and metrics."""

import json
import shutil

import polars as pl
import pytest

from entropy_lab.errors import RunFormatError
from entropy_lab.readers import Options, open_any
from tests.foreign_samples import change, lines, notes
from tests.foreign_token_samples import episode, metrics_file, prime_rl_episodes, prime_rl_exports, rollouts


def table(run):
    return run.scan().collect()


def test_an_export_alone_has_everything_but_the_reward(tmp_path):
    run = open_any(prime_rl_exports(tmp_path, (1, 2)))
    assert "reward" not in run.columns
    assert table(run)["correct"].null_count() == 24
    assert {"logp", "entropy", "sampler_logp", "advantage", "n_tokens"} <= set(run.columns)
    assert "reward" in run.info["imported"]["how_to_record"]
    assert table(run)["n_masked_low"].to_list() == [1] * 24
    assert "their rollouts have no reward" in notes(run)


def test_export_and_episodes_are_joined_by_their_tokens(tmp_path):
    prime_rl_exports(tmp_path, (1, 2))
    run = open_any(prime_rl_episodes(tmp_path, (1, 2)))
    frame = table(run)
    want = [one for step in (1, 2) for one in rollouts(step)]
    assert frame["completion"].to_list() == [one["said"] for one in want]
    assert frame["reward"].to_list() == [one["reward"] for one in want]  # the score times its weight
    assert frame["logp"].to_list() == pytest.approx([sum(one["logp"]) for one in want], rel=1e-6)
    entropies = [sum(one["entropy"]) / len(one["entropy"]) for one in want]
    assert frame["entropy"].to_list() == pytest.approx(entropies, rel=1e-6)
    assert frame["group_id"].to_list() == [one["group"] for one in want]
    assert frame["truncated"].to_list() == [k % 5 == 4 for k in range(12)] * 2
    assert frame["answer"].to_list() == ["1"] * 12 + ["2"] * 12
    assert frame["source"].unique().to_list() == ["add"]
    assert "were found" not in notes(run)


def test_what_cannot_be_joined_is_said(tmp_path):
    prime_rl_exports(tmp_path, (1,))
    file = tmp_path / "token_exports" / "step_1" / "rank_1.jsonl"
    lines(file, [json.loads(line) for line in file.read_text().splitlines()[:2]])
    run = open_any(prime_rl_episodes(tmp_path, (1,)))
    assert table(run)["logp"].null_count() == 4
    assert table(run)["sampler_logp"].null_count() == 0  # of the episodes
    assert "8 of 12 rollouts were found among 8 exported sequences" in notes(run)


def test_episodes_alone_have_the_sampler_s_log_probabilities(tmp_path):
    run = open_any(prime_rl_episodes(tmp_path, (1,)))
    frame = table(run)
    assert frame["token_ids"].to_list() == [one["response"] for one in rollouts(1)]
    assert frame["prompt_token_ids"].to_list() == [one["prompt"] for one in rollouts(1)]
    assert frame["sampler_logp"].to_list() == pytest.approx([sum(one["sampler"]) for one in rollouts(1)], rel=1e-6)
    assert frame["advantage"].to_list() == pytest.approx([one["advantage"] for one in rollouts(1)])
    assert {"logp", "entropy"} & set(frame.columns) == set()


def test_the_subset_that_was_trained_on_counts(tmp_path):
    prime_rl_episodes(tmp_path, (1, 2), subset="all", group=8)
    run = open_any(prime_rl_episodes(tmp_path, (1,), subset="effective"))
    assert table(run)["step"].value_counts(sort=True).sort("step")["count"].to_list() == [12, 24]
    assert "all episodes that arrived" in notes(run)


def test_failed_traces_are_left_out_and_counted(tmp_path):
    prime_rl_episodes(tmp_path, (1,), subset="all")
    file = tmp_path / "rollouts" / "step_1" / "train" / "all" / "traces.jsonl"

    def fail(row):
        if row["id"] == "e3":
            row["traces"][0]["rewards"] = {}
        return row

    change(file, fail)
    run = open_any(tmp_path)
    assert table(run).height == 11
    assert "1 traces have no reward (they failed)" in notes(run)


def test_a_conversation_that_branched_keeps_its_sampled_tokens(tmp_path):
    one = next(rollouts(1))
    row = episode(1, one, 0)
    answer = row["traces"][0]["nodes"][1]
    row["traces"][0]["nodes"].append({**answer, "parent": 0})
    lines(tmp_path / "rollouts" / "step_1" / "train" / "effective" / "traces.jsonl", [row])
    frame = table(open_any(tmp_path))
    assert frame["token_ids"].to_list() == [one["response"] * 2]
    assert frame["interrupted"].to_list() == [True]


def test_evaluations_become_evals(tmp_path):
    prime_rl_episodes(tmp_path, (1, 2))
    run = open_any(prime_rl_episodes(tmp_path, (1, 2), kind="eval", subset="all"))
    frame = pl.read_parquet(run.eval_files[0].path)
    assert frame["benchmark"].unique(maintain_order=True).to_list() == ["add before training", "add"]
    assert frame["correct"].to_list() == [one["verdict"] for step in (1, 2) for one in rollouts(step)]


def test_metrics_of_all_who_write_into_one_file(tmp_path):
    rows = [
        {"step": None, "time": 90.0, "engine/queue": 3},
        {"step": 1, "time": 100.0, "entropy/all/mean": 1.5, "optim/lr": 1e-6},
        {"step": 1, "time": 101.0, "reward/all/mean": 0.5, "producer": "orchestrator"},
        {"step": 2, "time": 110.0, "entropy/all/mean": 1.25, "mismatch_kl/all/mean": 0.01},
    ]
    metrics_file(tmp_path / "metrics.jsonl", rows)
    run = open_any(tmp_path)
    metrics = run.metrics()
    assert metrics["step"].to_list() == [0, 1]
    assert metrics["entropy"].to_list() == [1.5, 1.25]
    assert metrics["reward/all/mean"].to_list() == [0.5, None]
    assert metrics["time"].to_list() == [11.0, 20.0]
    assert "1 rows of no step" in notes(run)


def test_releases_that_count_from_zero(tmp_path):
    run = open_any(prime_rl_exports(tmp_path, (0, 1)))
    assert [file.step for file in run.step_files] == [0, 1]
    assert "counts updates from 0" in notes(run)


def test_a_step_that_is_still_exported_is_said(tmp_path):
    prime_rl_exports(tmp_path, (1, 2))
    (tmp_path / "token_exports" / "step_2" / "STABLE").unlink()
    with pytest.warns(UserWarning, match="step_2: has no STABLE: step 2 was still being exported"):
        assert len(open_any(tmp_path).step_files) == 2


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (lambda row: {**row, "step": 7}, "line 1 is of step 7: rows of several steps are mixed"),
        (lambda row: {**row, "entropy": row["entropy"][1:]}, "values in entropy, not"),
        (lambda row: {**row, "token_ids": ["a"] * len(row["token_ids"])}, "other values than whole numbers"),
        (lambda row: {**row, "loss_mask": None}, "has no token_ids and loss_mask"),
    ],
)
def test_rows_of_another_shape_are_refused(tmp_path, edit, what):
    prime_rl_exports(tmp_path, (1,))
    change(tmp_path / "token_exports" / "step_1" / "rank_0.jsonl", edit)
    with pytest.raises(RunFormatError, match=what):
        open_any(tmp_path)


def test_a_value_that_is_not_finite_leaves_no_total(tmp_path):
    prime_rl_exports(tmp_path, (1,))

    def spoil(row):
        row["trainer_logprobs"][-1] = None
        return row

    change(tmp_path / "token_exports" / "step_1" / "rank_0.jsonl", spoil)
    frame = table(open_any(tmp_path))
    assert frame["logp"].null_count() == 6
    assert frame["token_logp"].list.last().null_count() == 6


def test_two_runs_are_refused(tmp_path):
    for name in ("a", "b"):
        prime_rl_exports(tmp_path / "x" / name, (1,))
    with pytest.raises(RunFormatError, match="a/token_exports and b/token_exports, which both begin at step 1"):
        open_any(tmp_path / "x")
    shutil.rmtree(tmp_path / "x")
    for name in ("a", "b"):
        prime_rl_episodes(tmp_path / "x" / name, (1,))
    with pytest.raises(RunFormatError, match="episodes of 2 runs"):
        open_any(tmp_path / "x")


def test_a_verdict_can_be_named(tmp_path):
    run = open_any(prime_rl_episodes(tmp_path, (1,)), Options(columns={"correct": "metrics/solved"}))
    assert table(run)["correct"].to_list() == [one["verdict"] for one in rollouts(1)]
