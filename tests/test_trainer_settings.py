"""What each setting of the trainer does to a run, which settings are refused, and how the command line reads them."""

import itertools
from dataclasses import fields

import numpy as np
import polars as pl
import pytest
import torch
import tyro

import entropy_lab as el
from entropy_lab import advantages
from entropy_lab.errors import OutputError, ParameterError, UnknownNameError
from entropy_lab.plots.series import family
from entropy_lab.rl.policy import PolicySettings
from tests.short_runs import GRPO, config, evals, metrics, rollouts

torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """One cache for the module: the policies that the tests share are made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENTROPY_LAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def same(left, right):
    return left.equals(right, null_equal=True)


@pytest.mark.parametrize("name", advantages.names())
def test_every_estimator_trains_and_is_recorded(tmp_path, name):
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
        ({"steps": 0}, "steps: is 0"),
        ({"lr": -1e-4}, "lr: is -0.0001"),
        ({"increments_every": 0}, "increments_every: is 0"),
        ({"old_logp": "engine"}, "sampler"),
        ({"lr": float("inf")}, "lr: is inf"),
        ({"temperature": -1.0}, "temperature: is -1.0"),
        ({"seed": -1}, "seed: is -1"),
        ({"mini_batches": 3}, "a multiple of mini_batches 3"),
        ({"train_prompts": 7}, "prompts_per_step 8 or more"),
        ({"train_prompts": 20_000}, "10,000"),
        ({"aggregation": "mean"}, "seq-mean-token-mean"),
        ({"clip_low": 2.0}, "clip_low: is 2.0"),
        ({"clip_high": float("nan")}, "clip_high: is nan"),
        ({"entropy_coef": float("nan")}, "entropy_coef: is nan"),
        ({"warm_start_steps": -1}, "warm_start: is -1 steps"),
        ({"advantage": "asym_grpo", "advantage_params": {"beta": 1}}, "beta_pos"),
        ({"advantage": "pass_at_k", "advantage_params": {"k": 5}}, "k is 5"),
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
