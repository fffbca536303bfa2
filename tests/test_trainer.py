"""Whole training runs, a few steps long: what they record, and that equal settings give equal runs."""

import io
import itertools
import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import tyro
from rich.console import Console

import entropy_lab as el
from entropy_lab import advantages, recipes
from entropy_lab.errors import OutputError, ParameterError, UnknownNameError
from entropy_lab.plots.series import family
from entropy_lab.rl.model import build_model
from entropy_lab.rl.policy import PolicySettings, make_policy
from entropy_lab.rl.progress import TrainingProgress
from entropy_lab.rl.tokens import VocabularyTokens
from entropy_lab.rl.transformers_engine import TransformersEngine
from entropy_lab.rl.warm_start import WarmStart
from entropy_lab.schema import EVALS, METRICS, ROLLOUTS
from entropy_lab.tasks.countdown import Countdown
from entropy_lab.writer import RunWriter

torch.set_num_threads(1)
GRPO = recipes.load("trainers", "grpo")
SIZES = PolicySettings(hidden=48, layers=2, heads=3, kv_heads=1, head_dim=16, feed_forward=96)
TASK = Countdown()


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """One cache for the module: the policies that the tests share are made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENTROPY_LAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def config(out, **changes):
    tiny = GRPO.Config(
        out=Path(out),
        model=SIZES,
        warm_start_steps=120,
        steps=3,
        train_prompts=16,
        prompts_per_step=8,
        group_size=4,
        lr=3e-3,
        eval_every=0,
        eval_problems=3,
        eval_samples=2,
    )
    return replace(tiny, **changes)


def base(setup):
    """The base policy of `config`."""
    return make_policy(SIZES, setup.task, WarmStart(steps=120), TrainingProgress(), setup.asked, 26)


def rollouts(run):
    return pl.concat([pl.read_parquet(file) for file in sorted((run / "rollouts").iterdir())])


def evals(run):
    return pl.concat([pl.read_parquet(file) for file in sorted((run / "evals").iterdir())])


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


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


def same(left, right):
    return left.equals(right, null_equal=True)


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


@pytest.mark.parametrize("name", advantages.names())
def test_every_estimator_trains(tmp_path, name):
    run = GRPO.main(config(tmp_path / name, steps=1, advantage=name))
    frame, estimator = rollouts(run), advantages.get(name)
    expected = estimator(frame["reward"].to_numpy().reshape(8, 4)).reshape(-1)
    np.testing.assert_allclose(frame["advantage"], expected, rtol=1e-6)
    assert el.open_run(run).info["method"] == {
        "name": name,
        "params": dict(estimator.params),
        "label": estimator.label,
    }


def test_dropped_rollouts_leave_the_denominator_and_the_first_gradient_step_is_on_policy(tmp_path):
    many = {"prompts_per_step": 16, "group_size": 32}  # a few of so many are right, whatever the last bits
    run = GRPO.main(config(tmp_path / "run", steps=1, advantage="psr", mini_batches=1, **many))
    (row,) = metrics(run)
    assert 0 < row["reward"] < 0.5
    assert row["loss"] == pytest.approx(-1, abs=1e-5)  # the mean over correct rollouts' tokens of -1 x ratio 1
    assert [row["ratio_min"], row["ratio_max"]] == pytest.approx([1, 1], abs=1e-4)


def test_large_gradients_are_scaled_down(tmp_path):
    # AdamW divides by the gradient's size, so only gradients below its epsilon of 1e-8 show that they were scaled.
    run = GRPO.main(config(tmp_path / "run", steps=1, lr_rise=0, advantage="reinforce", max_grad_norm=1e-13))
    assert metrics(run)[0]["grad_norm"] > 0.01
    np.testing.assert_allclose(rollouts(run)["logp_after"], rollouts(run)["logp"], atol=1e-3)


def test_threads_are_set(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    GRPO.main(config(tmp_path / "run", steps=1, threads=1))
    assert asked == [1]


def test_each_seed_purpose_and_step_has_randomness_of_its_own():
    keys = list(itertools.product((0, 1), (2, 3), (0, 1)))
    drawn = {torch.rand(1, generator=GRPO.torch_generator(*key)).item() for key in keys}
    assert len(drawn) == len(keys)


def test_a_positive_advantage_makes_a_response_likelier(tmp_path):
    changes = {"steps": 1, "lr_rise": 0, "mini_batches": 1, "prompts_per_step": 16, "group_size": 32, "lr": 1e-4}
    for name, sign in (("psr", 1), ("nsr", -1)):
        frame = rollouts(GRPO.main(config(tmp_path / name, advantage=name, **changes)))
        counted = frame.filter(pl.col("correct") == (name == "psr"))
        assert len(counted) > 5
        assert sign * (counted["logp_after"] - counted["logp"]).mean() > 0


def test_entropy_bonus_and_clip_range_reach_the_loss(tmp_path):
    plain, bonus, clipped = (
        rollouts(GRPO.main(config(tmp_path / name, steps=2, mini_batches=4, advantage="reinforce", **changes)))
        for name, changes in (("plain", {}), ("bonus", {"entropy_coef": 0.1}), ("clipped", {"clip_low": 1e-3}))
    )
    first = pl.col("step") == 0
    assert same(plain.filter(first).drop("logp_after", "token_logp_after"),
                bonus.filter(first).drop("logp_after", "token_logp_after"))  # fmt: skip
    assert not same(plain, bonus)
    assert not same(plain, clipped)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps"),
        ({"lr": -1e-4}, "lr"),
        ({"increments_every": 0}, "increments_every"),
        ({"old_logp": "engine"}, "sampler"),
        ({"lr": float("inf")}, "lr"),
        ({"temperature": -1.0}, "temperature"),
        ({"seed": -1}, "seed"),
        ({"mini_batches": 3}, "a multiple of mini_batches 3"),
        ({"train_prompts": 7}, "prompts_per_step 8 or more"),
        ({"train_prompts": 20_000}, "10,000"),
        ({"aggregation": "mean"}, "seq-mean-token-mean"),
        ({"clip_low": 2.0}, "clip_low"),
        ({"clip_high": float("nan")}, "clip_high"),
        ({"entropy_coef": float("nan")}, "entropy_coef"),
        ({"warm_start_steps": -1}, "warm_start"),
        ({"advantage": "asym_grpo", "advantage_params": {"beta": 1}}, "beta_pos"),
        ({"advantage": "pass_at_k", "advantage_params": {"k": 5}}, "5"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(ParameterError, match=message):
        GRPO.main(config(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("changes", [{"advantage": "gpro"}, {"task": "countup"}])
def test_unknown_names_are_refused(tmp_path, changes):
    with pytest.raises(UnknownNameError, match=next(iter(changes.values()))):
        GRPO.main(config(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_a_directory_that_holds_a_run_is_refused(run):
    with pytest.raises(OutputError, match="not empty"):
        GRPO.main(config(run))


def test_the_command_line_reads_estimator_parameters_as_pairs():
    pairs = ["--advantage-params", "beta_pos", "0.9", "beta_neg", "1"]
    read = tyro.cli(GRPO.Config, args=["--out", "r", "--advantage", "asym_grpo", *pairs, "--model.hidden", "64"])
    assert read.advantage_params == {"beta_pos": 0.9, "beta_neg": 1}
    assert read.model == PolicySettings(hidden=64)
    assert advantages.get(read.advantage, **read.advantage_params).params == {"beta_pos": 0.9, "beta_neg": 1.0}
    read = tyro.cli(GRPO.Config, args=["--out", "r", "--advantage-params", "K", "0.3", "variant", "released"])
    assert advantages.get("qae", **read.advantage_params).params == {"K": 0.3, "variant": "released"}


def test_the_command_line_explains_every_setting(capsys):
    with pytest.raises(SystemExit):
        tyro.cli(GRPO.Config, args=["--help"])
    shown = capsys.readouterr().out
    assert all(f"--{each.name.replace('_', '-')}" in shown for each in fields(GRPO.Config) if each.name != "model")


def test_a_learning_rate_of_0_measures_the_base_policy(tmp_path):
    run = el.open_run(GRPO.main(config(tmp_path / "run", steps=1, lr=0.0, eval_every=1, setting="small")))
    assert run.method["name"] == "base"
    assert run.info["setting"] == "small"
    assert "out" not in run.info["config"]
    rows = rollouts(run.path)
    assert rows["logp"].to_list() == pytest.approx(rows["logp_after"].to_list(), abs=1e-5)


def test_the_sampler_tells_what_the_trainer_finds(tmp_path):
    """The embedded engine runs the trainer's weights: both passes see one policy, but for rounding."""
    told, found = (rollouts(GRPO.main(config(tmp_path / who, steps=1, old_logp=who))) for who in ("sampler", "trainer"))
    assert told["token_ids"].equals(found["token_ids"])
    for name in ("logp", "entropy"):
        assert told[name].to_list() == pytest.approx(found[name].to_list(), abs=1e-4)
    assert told["logp"].equals(told["sampler_logp"])


def test_increments_are_measured_as_often_as_asked(tmp_path):
    run = GRPO.main(config(tmp_path / "run", steps=3, increments_every=2))
    rows = rollouts(run)
    for name in ("logp_after", "token_logp_after"):
        assert set(rows.filter(pl.col(name).is_not_null())["step"].unique()) == {0, 2}
    table = el.analyze(run, "likelihood").frame
    assert ((table["n_correct"] + table["n_wrong"]) > 0).to_list() == [True, False, True]


def test_samples_are_taken_as_often_as_asked(tmp_path):
    settings = {"steps": 4, "eval_every": 1, "eval_samples": 1, "eval_samples_every": 2}
    passes = evals(GRPO.main(config(tmp_path / "run", **settings))).filter(~pl.col("greedy"))
    assert sorted(passes["step"].unique()) == [0, 2, 3]
    passes = evals(GRPO.main(config(tmp_path / "last", **{**settings, "eval_samples_every": 0}))).filter(
        ~pl.col("greedy")
    )
    assert passes["step"].unique().to_list() == [3]


def test_what_changes_the_loss_is_part_of_the_method(tmp_path):
    plain, changed = (
        GRPO.Config(out=tmp_path, **settings) for settings in ({}, {"clip_high": 0.28, "entropy_coef": 0.1})
    )
    constant = advantages.modulation("grpo")
    assert plain.method(constant)["label"] == "GRPO"
    method = changed.method(constant)
    assert method["label"] == "GRPO + clip high 0.28 + entropy bonus 0.1"
    assert method["params"] == {**constant.params, "clip_high": 0.28, "entropy_coef": 0.1}
    assert family(method["label"], method["name"], method["params"]) == "grpo+clip_higher+entropy_bonus"


def test_a_used_directory_is_refused_before_any_work(tmp_path):
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(OutputError, match="not empty"):
        GRPO.prepare(GRPO.Config(out=tmp_path))


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_on_terminals_only(terminal):
    text = io.StringIO()
    with TrainingProgress(Console(file=text, force_terminal=terminal, width=160)) as progress:
        progress.show("training", 1, 4, {"entropy": 0.37, "reward": 0.5})
    assert ("entropy 0.370  reward 0.500" in text.getvalue()) is terminal
    assert terminal or text.getvalue() == ""
