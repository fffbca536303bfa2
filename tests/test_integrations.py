"""What our additions to TRL are made of, without TRL; tests/full_trl_*.py run them inside it."""

import json
import tomllib
from collections import deque
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import entropy_lab as el
from entropy_lab import recipes
from entropy_lab.errors import EntropyLabError, MissingExtraError, OutputError
from entropy_lab.integrations import trl as door
from entropy_lab.integrations.trl_advantages import for_loss, log_instead, of_all
from entropy_lab.integrations.trl_releases import TESTED, require_tested
from entropy_lab.integrations.trl_rollouts import Waiting
from entropy_lab.presets.preset import PRESETS
from entropy_lab.rl.advantage import advantages_of
from entropy_lab.studies.command_line import from_command_line

RECIPE = recipes.load("trainers", "trl_grpo")


@pytest.mark.parametrize("release", ["0.28.0", "1.17.0", "2.0", "main", "1"])
def test_other_releases_are_refused_in_one_line(release):
    with pytest.raises(MissingExtraError, match=r"1\.0 to 1\.16") as error:
        require_tested(release)
    assert release in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("release", ["1.0.0", "1.9.2", "1.16.1.dev0"])
def test_releases_in_between_are_taken(release):
    require_tested(release)


def test_the_extra_allows_what_was_tested():
    extras = tomllib.loads((Path(el.__file__).parents[1] / "pyproject.toml").read_text())["project"]
    (oldest, newest) = TESTED
    allowed = f"trl>={oldest[0]}.{oldest[1]},<{newest[0]}.{newest[1] + 1}"
    assert allowed in extras["optional-dependencies"]["trl"]


def test_without_trl_only_its_trainer_is_missing():
    assert door.RecorderMixin.__doc__
    with pytest.raises(AttributeError, match="nothing"):
        _ = door.nothing
    try:
        import trl  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtraError, match="TRL is not installed"):
            _ = door.EntropyLabGRPOTrainer


@pytest.mark.parametrize("name", el.advantages.names())
def test_trl_gets_the_advantages_that_our_trainer_gives_the_same_rollouts(name):
    rng = np.random.default_rng(0)
    estimator = el.advantages.get(name)
    reward_PG = rng.integers(0, 2, (6, 8)).astype(float)
    reward_PG[0], reward_PG[1] = 0, 1
    mask_BT = torch.from_numpy((np.arange(5) < rng.integers(1, 6, 48)[:, None]).astype(int))
    entropy_BT = torch.from_numpy(rng.random((48, 5))).float() * mask_BT
    ours = advantages_of(estimator, reward_PG, entropy_BT, mask_BT)
    reward_N = torch.from_numpy(reward_PG).float().flatten()
    level_N = of_all(estimator, reward_N, torch.ones(48, dtype=torch.bool), group_size=8)
    theirs = for_loss(estimator, level_N, entropy_BT, mask_BT).float()
    theirs_BT = theirs if theirs.dim() == 2 else theirs[:, None] * mask_BT
    np.testing.assert_allclose(level_N, ours.rollout_B, atol=1e-6)
    np.testing.assert_allclose(theirs_BT * mask_BT, ours.token_BT * mask_BT, atol=1e-6)


def test_the_log_keeps_what_is_older():
    logged = deque([9.0, 1.0, 2.0], maxlen=3)
    log_instead(logged, np.array([5.0, 6.0]))
    assert list(logged) == [9.0, 5.0, 6.0]
    log_instead(logged, np.array([1.0, 2.0, 3.0, 4.0]))
    assert list(logged) == [2.0, 3.0, 4.0]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 4), st.booleans())
def test_rows_find_their_way_back_after_shuffling_and_splitting(seed, generations, splits, known):
    """Whatever order rows are used in, and however often, each gets what was first measured at it."""
    rng, waiting, drawn_rows, truth = np.random.default_rng(seed), Waiting(), [], []
    n, width = 2 * splits, 3
    for _ in range(generations):
        mask = torch.ones(n, width, dtype=torch.long)
        logp = -torch.from_numpy(rng.random((n, width))).float()
        inputs = {"completion_mask": mask, "completion_ids": mask, "prompt_ids": mask, "prompt_mask": mask}
        about = {"rewards": [0.0] * n, "prompts": ["a"] * n}
        inputs["advantages"] = torch.zeros(n)
        scores = (logp, -logp) if known else None
        drawn_rows.append(waiting.add(inputs, about, torch.ones(n, dtype=torch.bool), scores))
        truth.append(logp)
    for update in (1, 2):
        for rows, logp in zip(drawn_rows, truth, strict=True):
            order = torch.from_numpy(rng.permutation(n))
            for part in order.split(2):
                now = logp[part] if update == 1 and not known else torch.full((2, width), -9.0)
                waiting.measure(rows[part], (now, -now), update)
    for drawn, logp in zip(waiting.drawn, truth, strict=True):
        assert torch.equal(drawn.logp_BT, logp)
        assert torch.equal(drawn.entropy_BT, -logp)
        assert drawn.update_B.tolist() == [1] * n
        columns = drawn.columns(tokens=False)
        assert columns["extra"]["trainer_step"] == [1] * n
        assert not {"token_ids", "prompt_token_ids"} & set(columns)


def composed(*words):
    return RECIPE.prepare(from_command_line(RECIPE.Config, [*words, "--out", "run"]))


@pytest.mark.parametrize("preset", PRESETS.names())
@pytest.mark.parametrize("processes", [4, 8, 16, 32])
def test_the_paper_s_batches_whatever_the_machine(preset, processes):
    config = from_command_line(RECIPE.Config, ["--preset", preset, "--out", "run", "--processes", str(processes)])
    trl = RECIPE.prepare(config)["trl"]
    at_once = trl["per_device_train_batch_size"] * processes
    rollouts = config.prompts_per_step * config.group_size
    assert at_once * trl["steps_per_generation"] == rollouts
    assert at_once * trl["gradient_accumulation_steps"] * config.mini_batches == rollouts
    assert trl["max_steps"] == config.steps * config.mini_batches
    assert trl["save_steps"] == 10 * config.mini_batches
    assert (trl["learning_rate"], trl["beta"], trl["epsilon"], trl["epsilon_high"]) == (2e-6, 0.0, 0.2, 0.2)
    assert trl["loss_type"] == "dapo"  # token-level aggregation


def test_a_preset_s_settings_are_all_taken_over():
    plan = composed("--preset", "qwen3-4b-math", "--processes", "8")
    assert plan["trl"]["max_completion_length"] == 4096
    assert plan["trl"]["vllm_gpu_memory_utilization"] == 0.3
    assert plan["recorder"]["advantage_params"] == {"beta_pos": 0.9, "beta_neg": 0.4}
    assert plan["recorder"]["logp_after_every"] == 10


def test_the_command_that_validates_a_checkpoint_takes_the_preset_s_validation():
    line = composed("--preset", "qwen3-4b-math", "--processes", "8")["commands"]["validate a checkpoint"]
    words = line.replace("PRESET", "qwen3-4b-math").split()
    assert words[:3] == ["entropy-lab", "train", "grpo"]
    config = from_command_line(recipes.load("trainers", "grpo").Config, words[3:])
    assert (config.steps, config.lr, config.eval_every) == (1, 0.0, 1)
    assert (config.eval_problems, config.eval_samples) == (1000, 5)
    assert config.model.path == "run-trl/checkpoint-N"


@pytest.mark.parametrize("name", ["trl_grpo", "verl_grpo"])
def test_settings_that_are_left_out_are_known_to_our_trainer_and_are_no_options(name, capsys):
    recipe, ours = recipes.load("trainers", name), recipes.load("trainers", "grpo")
    assert set(recipe.Config.LEFT_OUT) <= {each.name for each in fields(ours.Config)}
    assert not set(recipe.Config.LEFT_OUT) & {each.name for each in fields(recipe.Config)}
    for setting in recipe.Config.LEFT_OUT:
        with pytest.raises(SystemExit):
            from_command_line(recipe.Config, ["--out", "run", f"--{setting.replace('_', '-')}", "1"])
        assert "nrecognized" in capsys.readouterr().err


def test_a_dry_run_prints_and_starts_nothing(capsys, tmp_path):
    words = ["--preset", "qwen3-4b-math", "--processes", "8", "--dry-run", "--out", str(tmp_path / "run")]
    RECIPE.main(from_command_line(RECIPE.Config, words))
    assert json.loads(capsys.readouterr().out)["trl"]["num_generations"] == 8
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        ["--processes", "7"],
        ["--processes", "512"],
        ["--advantage", "gpro"],
        ["--advantage", "pass_at_k", "--advantage-params", "k", "9"],
        ["--mini-batches", "0"],
        ["--model.path", ""],
    ],
)
def test_what_does_not_fit_is_refused(words):
    with pytest.raises(EntropyLabError):
        composed("--preset", "qwen3-4b-math", *words)


def test_step_metrics_that_go_on_after_a_checkpoint(tmp_path):
    arguments = SimpleNamespace(output_dir=str(tmp_path), seed=0, to_sanitized_dict=dict)

    def log(updates, begun=0):
        callback = door.StepMetricsCallback(tmp_path / "run")
        state = SimpleNamespace(global_step=begun, is_world_process_zero=True)
        callback.on_train_begin(arguments, state, None)
        for update in updates:
            state.global_step = update
            callback.on_log(arguments, state, None, logs={"entropy": 1.0 / update, "epoch": 0.1})
        callback.on_log(arguments, state, None, logs={"train_runtime": 3.0})
        callback.on_train_end(arguments, state, None)

    log([1, 2, 3])
    log([3, 4], begun=2)
    metrics = el.open_run(tmp_path / "run").metrics()
    assert metrics["step"].to_list() == [0, 1, 2, 3]
    np.testing.assert_allclose(metrics["entropy"], 1 / np.arange(1, 5))
    assert set(metrics.columns) == {"step", "entropy"}
    with pytest.raises(OutputError, match="is not empty"):
        log([1])
    other = door.StepMetricsCallback(tmp_path / "other")
    other.on_train_begin(arguments, SimpleNamespace(global_step=0, is_world_process_zero=False), None)
    assert not (tmp_path / "other").exists()
