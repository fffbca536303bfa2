"""Whole training runs, a few steps long: what they record, and that equal settings give equal runs."""

import io

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console

import entropy_lab as el
from entropy_lab.errors import OutputError
from entropy_lab.rl.model import build_model
from entropy_lab.rl.policy import make_policy
from entropy_lab.rl.progress import TrainingProgress
from entropy_lab.rl.tokens import VocabularyTokens
from entropy_lab.rl.transformers_engine import TransformersEngine
from entropy_lab.rl.warm_start import WarmStart
from entropy_lab.schema import EVALS, METRICS, ROLLOUTS
from entropy_lab.writer import RunWriter
from tests.short_runs import GRPO, SIZES, TASK, config, evals, metrics, rollouts

torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """One cache for the module: the policies that the tests share are made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENTROPY_LAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def base(setup):
    """The base policy of `config`."""
    return make_policy(SIZES, setup.task, WarmStart(steps=120), TrainingProgress(), setup.asked, 26)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Four updates, two epochs of sixteen prompts, validation at both ends and in the middle."""
    return GRPO.main(config(tmp_path_factory.mktemp("runs") / "run", steps=4, eval_every=2, advantage="reinforce"))


def test_every_column_and_metric_is_recorded(run):
    assert set(rollouts(run).columns) == set(ROLLOUTS)
    assert rollouts(run).null_count().transpose().to_series().sum() == 0
    assert set(evals(run).columns) == set(EVALS)
    changing = {"beta_pos", "beta_neg", "entropy_smoothed", "entropy_target"}  # logged by what changes: test_modulation
    optional = {"clip_fraction_dual", "chosen_fraction", "reference_kl", "entropy_coef"}  # test_pretrained
    assert all(set(METRICS) - changing - optional <= set(row) for row in metrics(run))
    assert el.open_run(run).info["config"]["warm_start_steps"] == 120


def test_verdict_reward_and_texts_belong_together(run):
    frame = rollouts(run)
    assert 0 < frame["correct"].mean() < 1
    for row in frame.iter_rows(named=True):
        digits, target = row["prompt_id"].split(">")
        problem = TASK.problem(tuple(map(int, digits)), int(target))
        assert (problem.prompt, problem.answer) == (row["prompt"], row["answer"])
        assert TASK.vocabulary.decode(row["token_ids"]) == row["completion"]
        assert TASK.verify(problem, row["completion"], truncated=row["truncated"]) is row["correct"]
        assert row["reward"] == row["correct"]
        assert row["truncated"] == (row["token_ids"][-1] != 1)
        assert row["n_tokens"] == len(row["token_ids"]) == len(row["token_logp"]) == len(row["token_entropy"])


def test_rollout_values_are_the_sums_and_means_of_their_tokens(run):
    frame = rollouts(run).with_columns(
        summed=pl.col("token_logp").list.sum(),
        summed_after=pl.col("token_logp_after").list.sum(),
        mean=pl.col("token_entropy").list.mean(),
    )
    for name, expected in (("logp", "summed"), ("logp_after", "summed_after"), ("entropy", "mean")):
        np.testing.assert_allclose(frame[name], frame[expected], atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(frame["sampler_logp"], frame["logp"], atol=1e-4 * 26)
    assert (frame["logp"] - frame["logp_after"]).abs().max() > 0.01  # updates happened


def test_each_epoch_sees_each_prompt_once_and_groups_are_whole(run):
    frame = rollouts(run)
    assert frame.group_by("step").agg(pl.col("epoch").first()).sort("step")["epoch"].to_list() == [0, 0, 1, 1]
    seen = [frame.filter(pl.col("epoch") == epoch, pl.col("sample") == 0)["prompt_id"] for epoch in (0, 1)]
    assert len(seen[0]) == len(set(seen[0])) == 16
    assert set(seen[0]) == set(seen[1])
    assert seen[0].to_list() != seen[1].to_list()
    groups = frame.group_by("step", "group_id").agg(pl.col("prompt_id").n_unique(), pl.col("sample").sort())
    assert groups["prompt_id"].to_list() == [1] * 32
    assert groups["sample"].to_list() == [[0, 1, 2, 3]] * 32


def test_prompts_that_do_not_fill_an_update_wait_for_another_epoch(tmp_path):
    setup = GRPO.prepare(config(tmp_path / "run", train_prompts=20, max_new_tokens=1))
    tokens = VocabularyTokens(TASK.vocabulary)
    engine = TransformersEngine(build_model(SIZES.sizes, TASK.vocabulary.size, seed=0))
    batches = [GRPO.rollout(setup, tokens, engine, step) for step in range(8)]
    assert [batch.epoch for batch in batches] == [0, 0, 1, 1, 2, 2, 3, 3]
    seen = [{problem.id for batch in batches[i : i + 2] for problem in batch.problems} for i in range(0, 8, 2)]
    assert [len(each) for each in seen] == [16] * 4
    assert len(set().union(*seen)) == 20  # no prompt is left out for good


def test_metrics_are_those_of_the_recorded_rollouts(run):
    for row in metrics(run):
        frame = pl.read_parquet(run / f"rollouts/step-{row['step']:06d}.parquet")
        accuracy = frame.group_by("group_id").agg(pl.col("correct").mean())["correct"]
        expected = {
            "entropy": frame["token_entropy"].explode().mean(),
            "reward": frame["reward"].mean(),
            "n_tokens": frame["n_tokens"].sum(),
            "mean_length": frame["n_tokens"].mean(),
            "truncated": frame["truncated"].mean(),
            "all_solved": (accuracy == 1).mean(),
            "none_solved": (accuracy == 0).mean(),
        }
        assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-6)
        assert sum(value for name, value in row.items() if name.startswith("time_")) <= row["time"]
    assert [row["lr"] for row in metrics(run)] == pytest.approx([3e-3 * (step + 1) / 5 for step in range(4)])


def test_validation_follows_the_first_every_second_and_the_last_update(run):
    frame = evals(run)
    assert frame["step"].unique().sort().to_list() == [0, 2, 3]
    benchmarks = TASK.benchmarks(3)
    for step in (0, 2, 3):
        greedy = frame.filter(pl.col("step") == step, "greedy")
        assert greedy["problem_id"].to_list() == [problem.id for each in benchmarks.values() for problem in each]
        assert set(greedy["temperature"]) == {0.0}
        sampled = frame.filter(pl.col("step") == step, ~pl.col("greedy"))
        assert sampled.group_by("benchmark", "problem_id").agg(pl.col("sample"))["sample"].to_list() == [[0, 1]] * 15
        assert set(sampled["temperature"]) == {1.0}


def test_greedy_validation_is_greedy_under_the_latest_policy(tmp_path):
    settings = config(tmp_path / "run", steps=1, eval_every=1, advantage="reinforce", lr_rise=0)
    setup, progress = GRPO.prepare(settings), TrainingProgress()
    policy = base(setup)
    model = policy.model
    GRPO.train(setup, policy, RunWriter(settings.out, method={"name": "reinforce", "params": {}}), progress)
    for row in evals(settings.out).filter("greedy").iter_rows(named=True):
        digits, target = row["problem_id"].split(">")
        ids = torch.tensor([TASK.vocabulary.encode(TASK.problem(tuple(map(int, digits)), int(target)).prompt)])
        answer = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=26)
        assert TASK.vocabulary.decode(answer[0, 9:].tolist()) == row["completion"]


def test_equal_settings_give_the_same_run_to_the_last_bit(run, tmp_path):
    again = GRPO.main(config(tmp_path / "again", steps=4, eval_every=2, advantage="reinforce"))
    assert same(rollouts(run), rollouts(again))
    assert same(evals(run), evals(again))
    clocks = ("time", "time_rollout", "time_logp", "time_update", "time_write", "time_eval")
    for left, right in zip(metrics(run), metrics(again), strict=True):
        assert {k: v for k, v in left.items() if k not in clocks} == {k: v for k, v in right.items() if k not in clocks}


def test_another_seed_gives_another_run_on_the_same_prompts(run, tmp_path):
    other = GRPO.main(config(tmp_path / "other", steps=4, seed=1, advantage="reinforce"))
    assert set(rollouts(run)["prompt_id"]) == set(rollouts(other)["prompt_id"])
    assert rollouts(run)["prompt_id"].to_list() != rollouts(other)["prompt_id"].to_list()
    assert rollouts(run)["completion"].to_list() != rollouts(other)["completion"].to_list()


def test_validating_changes_nothing_in_training(run, tmp_path):
    without = GRPO.main(config(tmp_path / "without", steps=4, advantage="reinforce"))
    assert same(rollouts(run), rollouts(without))
    assert not (without / "evals").exists()


def plain_logp(model, frame, temperature):
    """Sum of log-probabilities of each response, one plain forward pass each."""
    sums = []
    for row in frame.iter_rows(named=True):
        prompt = TASK.vocabulary.encode(row["prompt"])
        ids = torch.tensor(prompt + row["token_ids"])
        with torch.no_grad():
            logits_SV = model(input_ids=ids[None]).logits[0].double() / temperature
        distribution_TV = torch.log_softmax(logits_SV[len(prompt) - 1 : -1], dim=-1)
        sums.append(distribution_TV.gather(1, ids[len(prompt) :, None]).sum().item())
    return np.array(sums)


def same(left, right):
    return left.equals(right, null_equal=True)


@pytest.mark.parametrize("temperature", [1.0, 0.8])
def test_increments_are_differences_of_two_plain_forward_passes(tmp_path, temperature):
    settings = config(tmp_path / "run", steps=1, lr_rise=0, advantage="reinforce", temperature=temperature)
    setup = GRPO.prepare(settings)
    policy = base(setup)
    model = policy.model
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    writer = RunWriter(settings.out, method={"name": "reinforce", "params": {}})
    GRPO.train(setup, policy, writer, TrainingProgress())
    frame = rollouts(settings.out)
    np.testing.assert_allclose(frame["logp_after"], plain_logp(model, frame, temperature), atol=1e-4)
    model.load_state_dict(before)
    np.testing.assert_allclose(frame["logp"], plain_logp(model, frame, temperature), atol=1e-4)
    np.testing.assert_allclose(frame["sampler_logp"], plain_logp(model, frame, temperature), atol=1e-3)


def test_a_directory_that_holds_a_run_is_refused(run):
    with pytest.raises(OutputError, match="not empty"):
        GRPO.main(config(run))


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_on_terminals_only(terminal):
    text = io.StringIO()
    with TrainingProgress(Console(file=text, force_terminal=terminal, width=160)) as progress:
        progress.show("training", 1, 4, {"entropy": 0.37, "reward": 0.5})
    assert ("entropy 0.370  reward 0.500" in text.getvalue()) is terminal
    assert terminal or text.getvalue() == ""
