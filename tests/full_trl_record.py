"""The record of a training in the real TRL agrees with its loss, its log and its policy; `make test-trl` runs it.

It does so however TRL spreads a step over passes, generations and processes, and neither it nor its failing changes
the training.
"""

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from transformers import TrainerCallback
from trl import GRPOTrainer

import entropy_lab as el
from entropy_lab import cli
from entropy_lab.errors import EntropyLabError
from entropy_lab.integrations.trl import StepMetricsCallback
from entropy_lab.run import RunWarning
from tests.full_trl_small_run import (
    GROUP,
    IGNORED_WARNINGS,
    LETTERS,
    LIMIT,
    PROMPTS,
    TEMPERATURE,
    closed_form,
    data,
    first_logged,
    model,
    right,
    rows_of,
    trained,
)

pytestmark = [pytest.mark.filterwarnings("ignore::" + kind) for kind in IGNORED_WARNINGS]

CASES = {
    "plain": {},
    "accumulated": {"gradient_accumulation_steps": 4},
    "two generations a step": {"gradient_accumulation_steps": 4, "steps_per_generation": 2},
    "steps_per_generation": {"steps_per_generation": 4},
    "num_iterations": {"num_iterations": 2},
    "repeated inside a step": {"num_iterations": 2, "gradient_accumulation_steps": 4, "steps_per_generation": 2},
    "reference policy": {"beta": 0.04, "num_iterations": 2},
    "all": {"num_iterations": 2, "gradient_accumulation_steps": 2, "steps_per_generation": 4},
}


@pytest.fixture(scope="module", params=CASES, ids=lambda name: name.replace(" ", "_"))
def case(request, tmp_path_factory):
    out = tmp_path_factory.mktemp("trl")
    trainer = trained(out, **CASES[request.param], log_completions=True)
    return request.param, trainer, el.open_run(out / "entropy-lab"), out


def test_advantages_in_the_loss_are_the_closed_form(case):
    _, trainer, _, _ = case
    groups, checked = defaultdict(dict), 0
    drawn = defaultdict(list)
    for generation, _, keys, advantages in trainer.seen:
        for key, advantage in zip(keys, advantages.tolist(), strict=True):
            groups[generation, key[0]].setdefault(key[1], advantage)
            assert groups[generation, key[0]][key[1]] == advantage
            drawn[generation, key[0]].append(key[1])
    repeats = CASES[case[0]].get("num_iterations", 1)
    for name, completions in drawn.items():
        if len(completions) != GROUP * repeats:
            continue  # the training ended before all of its rollouts were used
        rewards = [right(ids) for ids in completions]
        found = [groups[name][ids] for ids in completions]
        np.testing.assert_allclose(found, closed_form(rewards), atol=1e-6, rtol=0)
        checked += any(found)
    assert checked >= 3


def test_the_run_passes_check_and_analyze(case, capsys):
    _, _, run, _ = case
    cli.main(["check", str(run.path)])
    assert "valid: every file keeps the run format" in capsys.readouterr().out
    cli.main(["analyze", str(run.path), "--no-figures"])


def test_every_rollout_is_recorded_once_in_whole_groups(case):
    name, trainer, run, _ = case
    rows = rows_of(run)
    assert rows.height == trainer._generations * GROUP * PROMPTS
    assert (rows.group_by("step", "group_id").len()["len"] == GROUP).all()
    assert (rows.group_by("step", "group_id").agg(pl.col("prompt_id").n_unique())["prompt_id"] == 1).all()
    a_step = 2 if name in ("two generations a step",) else 1
    assert run.metrics().height == rows["step"].n_unique() == -(-trainer._generations // a_step)
    assert rows["reward"].to_list() == [right(ids) for ids in rows["token_ids"].to_list()]
    assert rows["truncated"].to_list() == [ids[-1] > 1 for ids in rows["token_ids"].to_list()]
    assert rows["n_tokens"].to_list() == list(map(len, rows["token_ids"].to_list()))


def recorded(trainer, run):
    """Entropy and advantage of what entered the loss, by step, prompt and tokens."""
    found = {}
    for row in rows_of(run).iter_rows(named=True):
        found[row["step"], tuple(row["prompt_token_ids"]), tuple(row["token_ids"])] = row
    return found


def test_entropies_are_those_that_trl_logs(case):
    name, trainer, run, _ = case
    rows, logged = recorded(trainer, run), first_logged(trainer, "entropy")
    a_step = 2 if name == "two generations a step" else 1
    first, means = {}, defaultdict(list)
    for generation, update, keys, advantages in trainer.seen:
        first.setdefault(generation // a_step, update)
        found = [rows[generation // a_step, *key] for key in keys]
        np.testing.assert_allclose([row["advantage"] for row in found], advantages.numpy(), atol=1e-6)
        assert all(row["trainer_step"] <= update for row in found)
        if update == first[generation // a_step]:
            tokens = np.concatenate([row["token_entropy"] for row in found])
            means[update].append(tokens.mean())
    assert means
    for update, each in means.items():
        assert np.mean(each) == pytest.approx(logged[update], abs=1e-5)


# Of two generations a step TRL keeps the last only.
@pytest.mark.parametrize(
    "case", [name for name in CASES if name != "two generations a step"], indirect=True, scope="module"
)
def test_the_logged_advantages_are_ours(case):
    _, _, run, out = case
    rows = rows_of(run)
    files = sorted((out / "completions").glob("*.parquet"))
    assert files
    metrics = run.metrics()
    for file in files:
        table = pl.read_parquet(file)
        step = metrics.filter(pl.col("trainer_step") >= table["step"][0])["step"].min()
        ours = rows.filter(pl.col("step") == step)["advantage"].sort().to_numpy()
        np.testing.assert_allclose(table["advantage"].tail(GROUP * PROMPTS).sort().to_numpy(), ours, atol=1e-6)


def test_numbers_of_a_step_are_means_of_what_trl_logs(case):
    _, trainer, run, _ = case
    logged, last = {name: first_logged(trainer, name) for name in ("loss", "grad_norm", "learning_rate")}, 0
    for row in run.metrics().iter_rows(named=True):
        updates = range(last + 1, row["trainer_step"] + 1)
        for ours, theirs in (("loss", "loss"), ("grad_norm", "grad_norm")):
            assert row[ours] == pytest.approx(np.mean([logged[theirs][u] for u in updates]), rel=1e-4, abs=1e-6)
        assert row["lr"] == pytest.approx(logged["learning_rate"][updates[-1]])
        last = row["trainer_step"]
    assert last == trainer.state.global_step


def reference(policy, rows):
    """Log-probabilities and entropies by brute force, one rollout at a time."""
    policy.train(False)
    for row in rows.iter_rows(named=True):
        ids = torch.tensor([[*row["prompt_token_ids"], *row["token_ids"]]])
        with torch.no_grad():
            logp = (policy(input_ids=ids).logits[0, :-1].double() / TEMPERATURE).log_softmax(-1)[-row["n_tokens"] :]
        chosen = logp.gather(1, torch.tensor(row["token_ids"])[:, None])[:, 0]
        yield chosen.numpy(), -(logp.exp() * logp).sum(1).numpy()


def test_numbers_by_token_are_those_of_the_policy_before_and_after(tmp_path):
    trainer = trained(tmp_path, logp_after_every=2, max_steps=3, lr_scheduler_type="constant")
    rows = rows_of(el.open_run(tmp_path / "entropy-lab"))
    with_after = rows.filter(pl.col("logp_after").is_not_null())["step"].unique().to_list()
    assert sorted(with_after) == [0, 2]
    base, last = rows.filter(pl.col("step") == 0), rows.filter(pl.col("step") == 2)
    for row, (logp, entropy) in zip(base.iter_rows(named=True), reference(model(), base), strict=True):
        np.testing.assert_allclose(row["token_logp"], logp, atol=2e-5)
        np.testing.assert_allclose(row["token_entropy"], entropy, atol=2e-5)
        assert row["logp"] == pytest.approx(logp.sum(), abs=1e-4)
    for row, (logp, _) in zip(last.iter_rows(named=True), reference(trainer.model, last), strict=True):
        np.testing.assert_allclose(row["token_logp_after"], logp, atol=2e-5)
        assert row["logp_after"] != row["logp"]


def test_without_learning_every_logged_entropy_is_the_recorded_one(tmp_path):
    trainer = trained(
        tmp_path, **CASES["all"], learning_rate=0.0, max_steps=8, generation_kwargs={"min_new_tokens": LIMIT}
    )
    run = el.open_run(tmp_path / "entropy-lab")
    logged, metrics = first_logged(trainer, "entropy"), run.metrics()
    found = metrics.select("trainer_step", "entropy", "entropy_in_loss").rows()
    assert [row[0] for row in found] == [4, 8]
    for last, entropy, in_loss in found:
        theirs = np.mean([logged[step] for step in range(last - 3, last + 1)])
        assert entropy == pytest.approx(theirs, abs=1e-5)
        assert in_loss == pytest.approx(theirs, abs=1e-6)


def test_evaluations_are_not_recorded(tmp_path):
    trainer = trained(
        tmp_path,
        eval_strategy="steps",
        eval_steps=1,
        eval_dataset=data(4),
        per_device_eval_batch_size=GROUP,
        max_steps=2,
    )
    rows = rows_of(el.open_run(tmp_path / "entropy-lab"))
    assert rows.height == 2 * GROUP * PROMPTS
    assert any("eval_loss" in line for line in trainer.state.log_history)
    assert len(trainer.seen) == 2


def test_rollouts_that_trl_masks_have_no_tokens(tmp_path):
    trained(tmp_path, max_steps=2, mask_truncated_completions=True)
    rows = rows_of(el.open_run(tmp_path / "entropy-lab"))
    assert 0 < rows["truncated"].mean() < 1
    assert rows.filter(pl.col("truncated"))["n_tokens"].sum() == 0
    assert rows.filter(~pl.col("truncated"))["n_tokens"].min() > 0
    assert rows.filter(pl.col("truncated"))["entropy"].null_count() == rows["truncated"].sum()
    cli.main(["check", str(tmp_path / "entropy-lab")])


def told_by_the_sampler(prompts, trainer):
    """Answers as an engine of its own gives them, with its log-probabilities: one that it cannot tell is none."""
    rng, found = (
        np.random.default_rng(trainer.state.global_step),
        {"prompt_ids": [], "completion_ids": [], "logprobs": []},
    )
    for number, prompt in enumerate(prompts):
        ids = rng.integers(2, len(LETTERS), rng.integers(1, LIMIT)).tolist()
        found["prompt_ids"].append(trainer.processing_class(prompt)["input_ids"])
        found["completion_ids"].append([*ids, 1])
        found["logprobs"].append([float("nan") if number == 3 else -0.5] * (len(ids) + 1))
    return found


def test_log_probabilities_of_a_sampler_are_recorded(tmp_path):
    trained(tmp_path, max_steps=2, rollout_func=told_by_the_sampler, **CASES["steps_per_generation"])
    rows = rows_of(el.open_run(tmp_path / "entropy-lab"))
    assert rows["sampler_logp"].null_count() == 1
    told = rows.filter(pl.col("sampler_logp").is_not_null())
    np.testing.assert_allclose(told["sampler_logp"], -0.5 * told["n_tokens"])
    assert not rows["truncated"].any()
    assert rows["n_tokens"].n_unique() > 2


def test_the_training_is_trls_own_where_only_the_record_is_added(tmp_path):
    plain = trained(tmp_path / "plain", watch=GRPOTrainer, **CASES["all"])
    ours = trained(tmp_path / "ours", advantage=None, **CASES["all"])
    for (name, a), (_, b) in zip(plain.model.state_dict().items(), ours.model.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


class Sabotage(TrainerCallback):
    """Puts a file where the record's folder was, as a full disk would end it."""

    def on_step_begin(self, args, state, control, **_):
        folder = Path(args.output_dir) / "entropy-lab/rollouts"
        if state.global_step == 1:
            folder.rename(folder.with_name("moved"))
            folder.write_text("")


def test_a_record_that_fails_does_not_stop_the_training(tmp_path):
    with pytest.warns(RunWarning, match="training goes on"):
        trainer = trained(tmp_path, callbacks=[Sabotage()])
    assert trainer.state.global_step == 4
    info = json.loads((tmp_path / "entropy-lab/run.json").read_text())
    assert info["incomplete"]["steps"] == [1, 2, 3]


def test_step_metrics_from_any_trainer(tmp_path):
    trainer = trained(tmp_path, watch=GRPOTrainer, callbacks=[StepMetricsCallback()])
    metrics = el.open_run(tmp_path / "entropy-lab").metrics()
    assert metrics["step"].to_list() == [0, 1, 2, 3]
    logged = first_logged(trainer, "entropy")
    assert metrics["entropy"].to_list() == list(logged.values())
    assert {"lr", "grad_norm", "reward", "clip_fraction_low", "mean_length"} <= set(metrics.columns)


def test_a_place_that_holds_a_run_is_refused(tmp_path):
    trained(tmp_path, max_steps=1)
    with pytest.raises(EntropyLabError, match="is not empty"):
        trained(tmp_path, max_steps=1)


def test_two_processes_write_one_run(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    one = Path(__file__).with_name("full_trl_small_run.py")
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(one), str(tmp_path)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    run = el.open_run(tmp_path / "entropy-lab")
    rows = rows_of(run)
    assert rows.height == 2 * 2 * GROUP * PROMPTS
    assert (rows.group_by("step", "group_id").len()["len"] == 2 * GROUP).all()  # a group lies on both processes
    for (_, _), group in rows.group_by("step", "group_id"):
        assert group["prompt_id"].n_unique() == 1
        np.testing.assert_allclose(group["advantage"], closed_form(group["reward"].to_list()), atol=1e-6)
    state = json.loads((tmp_path / "state.json").read_text())
    logged = [line["entropy"] for line in state if "entropy" in line]
    np.testing.assert_allclose(run.metrics()["entropy"], logged, atol=1e-5)
    assert rows["logp_after"].null_count() == 0
    assert not list(run.path.glob(".parts-*"))
