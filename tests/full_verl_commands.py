"""`entropy-lab doctor verl` and the recipe trainers/verl_grpo.py beside the real verl; `make test-verl` runs it."""

import json
import os
import subprocess
import sys

import pytest
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl.trainer.ppo.utils import create_rl_dataset, need_critic
from verl.trainer.ppo.v1 import get_trainer_cls
from verl.utils.config import validate_config

import entropy_lab as el
from entropy_lab import recipes
from entropy_lab.advantages.registry import ESTIMATORS, MODULATIONS
from entropy_lab.integrations.verl_settings import RecordSettings
from entropy_lab.presets.preset import PRESETS
from entropy_lab.studies.command_line import from_command_line
from entropy_lab.tasks.countdown import Countdown
from tests import full_verl_stand_ins as small

RECIPE = recipes.load("trainers", "verl_grpo")


def entropy_lab_command(*words, **environment):
    code = "import sys; from entropy_lab.cli import main; main(sys.argv[1:])"
    given = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, env=given, timeout=300, check=False
    )


def test_doctor_finds_all_well():
    done = entropy_lab_command("doctor", "verl", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["verl"]
    assert [check["about"] for check in found][-1] == "an estimator called by verl"
    assert all(check["passed"] for check in found)


def test_doctor_sees_a_plugin_that_verl_does_not_load():
    done = entropy_lab_command("doctor", "verl", VERL_USE_EXTERNAL_PLUGINS="others")
    assert done.returncode == 1
    assert "VERL_USE_EXTERNAL_PLUGINS: is 'others'" in done.stdout


def test_doctor_says_why_the_trainers_are_missing():
    """verl itself would say nothing: it swallows what a plugin raises."""
    code = "import sys; sys.modules['cachetools'] = None\nfrom entropy_lab.cli import main; main(['doctor', 'verl'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert "ok  verl estimators: 19" in done.stdout
    assert "BAD verl trainers: ModuleNotFoundError: import of cachetools" in done.stdout
    assert "entropy-lab is not (wholly) in verl" in done.stderr


def launch(*words):
    return from_command_line(RECIPE.Config, [*words])


@pytest.mark.parametrize("preset", PRESETS.names())
@pytest.mark.parametrize(("nodes", "gpus"), [(1, 4), (1, 8), (2, 8)])
def test_the_paper_s_settings_are_composed_by_verl_s_hydra(preset, nodes, gpus, capsys, tmp_path):
    words = ["--preset", preset, "--out", str(tmp_path / "run"), "--nodes", str(nodes), "--gpus", str(gpus)]
    config = launch(*words)
    RECIPE.main(launch(*words, "--dry-run"))
    shown = json.loads(capsys.readouterr().out)
    verl = shown["verl"]
    actor, rollout, trainer = verl["actor_rollout_ref"]["actor"], verl["actor_rollout_ref"]["rollout"], verl["trainer"]
    small_model = "1.5b" in preset
    assert (verl["algorithm"]["adv_estimator"], verl["algorithm"]["beta_pos"], verl["algorithm"]["beta_neg"]) == (
        "asym_grpo",
        0.9,
        0.4,
    )
    assert verl["data"]["train_batch_size"] == (512 if small_model else 128)
    assert actor["ppo_mini_batch_size"] == (128 if small_model else 64)
    assert verl["data"]["max_response_length"] == (2560 if small_model else 4096)
    assert (rollout["n"], rollout["name"], rollout["val_kwargs"]["do_sample"]) == (8, "vllm", False)
    assert (actor["optim"]["lr"], actor["optim"]["optimizer"]) == (2e-6, "AdamW")
    assert (actor["clip_ratio_low"], actor["clip_ratio_high"], actor["loss_agg_mode"]) == (0.2, 0.2, "token-mean")
    assert not actor["use_kl_loss"]
    assert actor["entropy_coeff"] == 0
    assert (trainer["nnodes"], trainer["n_gpus_per_node"], trainer["test_freq"]) == (nodes, gpus, 10)
    assert trainer["v1"]["trainer_mode"] == "entropy_lab"
    assert RecordSettings.of(trainer["v1"]["entropy_lab"]).record_to == str(tmp_path / "run")
    assert verl["data"]["apply_chat_template_kwargs"] == {"enable_thinking": False}
    assert not list(tmp_path.iterdir())
    composed = RECIPE.compose(RECIPE.overrides(config))
    validate_config(config=composed, use_reference_policy=False, use_critic=need_critic(composed))
    kept = get_trainer_cls("entropy_lab")(composed)
    assert kept._modulation.label == "AsymGRPO 0.9/0.4"


@pytest.mark.parametrize("name", [*ESTIMATORS, *MODULATIONS])
def test_every_estimator_is_launched_under_its_name_with_its_parameters(name, tmp_path):
    wanted = el.advantages.modulation(name)
    params = [str(word) for pair in wanted.params.items() for word in pair]
    words = ["--preset", PRESETS.names()[0], "--out", str(tmp_path / "run"), "--advantage", name]
    composed = RECIPE.compose(RECIPE.overrides(launch(*words, *(["--advantage-params", *params] if params else []))))
    built = get_trainer_cls("entropy_lab")(composed)._modulation
    assert (built.name, dict(built.params)) == (name, dict(wanted.params))
    assert composed.actor_rollout_ref.actor.loss_agg_mode == wanted.aggregation


def test_the_recipe_s_data_and_reward_work_in_verl(tmp_path):
    words = ["--model.path", "none", "--out", str(tmp_path / "run"), "--task", "countdown", "--train-prompts", "8"]
    small_batch = ["--prompts-per-step", "4", "--mini-batches", "1", "--eval-every", "1", "--eval-problems", "3"]
    RECIPE.main(launch(*words, *small_batch, "--only", "data"))
    composed = RECIPE.compose(RECIPE.overrides(launch(*words, *small_batch)))
    texts = small.tokenizer()
    held_out = create_rl_dataset(composed.data.val_files, composed.data, texts, None, is_train=False)
    assert len(held_out) == 3 * len(composed.data.val_files) > 0
    score = get_custom_reward_fn(composed)
    task, row = Countdown(), held_out[0]
    problem = next(p for each in task.benchmarks(3).values() for p in each if p.id == row["extra_info"]["problem"])
    for answer in (problem.answer, "1+1=2"):
        told = score(row["data_source"], answer, row["reward_model"]["ground_truth"], extra_info=row["extra_info"])
        assert told["acc"] == told["score"] == float(task.verify(problem, answer) is True)


def test_answers_of_math_are_compared_by_verl():
    composed = RECIPE.compose(RECIPE.overrides(launch("--preset", PRESETS.names()[0], "--out", "run")))
    score = get_custom_reward_fn(composed)
    assert score("aime", r"so \boxed{\frac12}", r"\frac{1}{2}") == {"score": 1.0, "acc": 1.0}
    assert score("aime", r"so \boxed{2}", r"\frac{1}{2}") == {"score": 0.0, "acc": 0.0}
