"""Advantages that change during training: schedules and the entropy controller."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import entropy_lab as el
from entropy_lab import recipes
from entropy_lab.advantages import Modulation, get, modulation, modulation_names, names
from entropy_lab.advantages.parameters import ranges
from entropy_lab.advantages.registry import MODULATIONS
from entropy_lab.cli import main
from entropy_lab.errors import ParameterError, UnknownNameError
from entropy_lab.plots.series import family
from entropy_lab.rl.policy import PolicySettings
from entropy_lab.schema import METRICS

EXACT = {"rtol": 1e-12, "atol": 1e-12}
few = settings(max_examples=40, deadline=None, database=None)
REWARDS = (np.arange(8) < np.arange(9)[:, None]).astype(float)  # a group of each accuracy
SHAPES = ("constant", "linear", "cosine")

entropies = st.lists(st.floats(0.01, 5), min_size=1, max_size=30)


def betas(controller: Modulation, entropy: list[float]) -> np.ndarray:
    """Exponents of each update, shape (updates, 2)."""
    made = [controller.at(step, len(entropy), h) for step, h in enumerate(entropy)]
    return np.array([[each.params["beta_pos"], each.params["beta_neg"]] for each in made], dtype=float)


# --- what every modulation promises


@pytest.mark.parametrize("name", names())
def test_every_estimator_is_a_constant_modulation(name):
    constant, estimator = modulation(name), get(name)
    for step in range(3):
        assert constant.at(step, 3, entropy=math.nan) == estimator
    assert (constant.name, constant.params, constant.label) == (name, estimator.params, estimator.label)
    assert (constant.formula, constant.reference) == (estimator.formula, estimator.reference)
    assert constant.aggregation == estimator.aggregation
    assert constant.values() == constant.state() == {}


@pytest.mark.parametrize("name", modulation_names())
def test_a_modulation_says_what_it_is_and_is_built_again_from_its_params(name):
    first = modulation(name)
    assert first.name == name
    assert first.params == modulation(name, **first.params).params
    assert list(first.params) == list(ranges(MODULATIONS[name]))
    assert first.initial == modulation(name).at(0, 10, 0.4)
    assert first.aggregation == "token-mean"
    for text in (first.formula, first.reference, first.label):
        assert text
        assert text.isprintable()
    json.dumps(dict(first.params))
    assert family(first.label, name, first.params) == name
    with pytest.raises(TypeError):
        first.params["beta_pos"] = 1.0  # type: ignore[index]


@pytest.mark.parametrize("name", modulation_names())
def test_values_are_those_of_the_latest_update_and_named_in_the_schema(name):
    made = modulation(name)
    assert made.values() == {}
    for step in range(4):
        estimator = made.at(step, 4, 0.4 - 0.1 * step)
        values = made.values()
        assert {key: values[key] for key in estimator.params} == dict(estimator.params)
        assert set(values) <= set(METRICS)


@pytest.mark.parametrize("name", ["grpo", *modulation_names()])
@given(entropy=entropies, stop=st.integers(0, 30))
@few
def test_stopped_at_any_update_and_restored_it_continues_exactly(name, entropy, stop):
    stop = min(stop, len(entropy))
    whole, first, second = modulation(name), modulation(name), modulation(name)
    expected = [whole.at(step, len(entropy), h) for step, h in enumerate(entropy)]
    found = [first.at(step, len(entropy), h) for step, h in enumerate(entropy[:stop])]
    second.restore(json.loads(json.dumps(first.state())))
    found += [second.at(step, len(entropy), h) for step, h in list(enumerate(entropy))[stop:]]
    assert found == expected
    assert second.state() == whole.state()
    assert stop == len(entropy) or second.values() == whole.values()


@pytest.mark.parametrize("name", ["grpo", *modulation_names()])
def test_the_state_of_something_else_is_refused(name):
    with pytest.raises(ParameterError, match=f"{name}: the state to restore holds gain; expected"):
        modulation(name).restore({"gain": 1.0})


def test_restoring_the_state_before_the_first_update_starts_anew():
    controller = modulation("entropy_target")
    betas(controller, [0.4, 0.1])
    controller.restore({})
    assert betas(controller, [0.7]).tolist() == [[0.5, 0.5]]
    assert controller.values()["entropy_target"] == 0.35


def test_the_command_line_lists_them(capsys):
    main(["list"])
    assert set(modulation_names()) <= set(capsys.readouterr().out.split())


def test_unknown_names_and_parameters_are_refused_as_by_get():
    with pytest.raises(UnknownNameError, match=r"Hint: did you mean entropy_target\?") as caught:
        modulation("Entropy-Target")
    assert all(name in str(caught.value) for name in (*names(), *modulation_names()))
    with pytest.raises(UnknownNameError, match="changes during training"):
        get("entropy_target")
    for name in modulation_names():
        with pytest.raises(ParameterError, match=r"there is no parameter 'beta'; parameters: .*beta_pos in \[0, ∞\)"):
            modulation(name, beta=1)
    with pytest.raises(ParameterError, match="grpo: ddof is 2"):
        modulation("grpo", ddof=2)


# --- schedules


@pytest.mark.parametrize("shape", ["linear", "cosine"])
@given(ends=st.tuples(*[st.floats(0, 3)] * 4), steps=st.integers(2, 60))
@few
def test_a_schedule_runs_from_its_start_to_its_end_and_never_back(shape, ends, steps):
    keys = ("beta_pos", "beta_neg", "beta_pos_end", "beta_neg_end")
    schedule = modulation("asym_grpo_schedule", shape=shape, **dict(zip(keys, ends, strict=True)))
    path = betas(schedule, [0.4] * steps)
    assert tuple(path[0]) == ends[:2]
    assert tuple(path[-1]) == ends[2:]
    assert (np.diff(path, axis=0) * np.sign(path[-1] - path[0]) >= -1e-12).all()


def test_linear_steps_are_equal_and_cosine_is_its_formula():
    line = betas(modulation("asym_grpo_schedule", shape="linear"), [0.4] * 7)
    assert_allclose(line, np.linspace([0.9, 0.4], [0.5, 0.5], 7), **EXACT)
    wave = betas(modulation("asym_grpo_schedule", shape="cosine"), [0.4] * 7)
    w = np.sin(np.pi / 2 * np.arange(7) / 6)[:, None] ** 2  # (1 − cos x)/2 = sin²(x/2)
    assert_allclose(wave, (1 - w) * [0.9, 0.4] + w * [0.5, 0.5], **EXACT)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_run_of_one_update_and_a_constant_shape_stay_at_the_start(shape):
    assert betas(modulation("asym_grpo_schedule", shape=shape), [0.4]).tolist() == [[0.9, 0.4]]
    if shape == "constant":
        assert betas(modulation("asym_grpo_schedule", shape=shape), [0.4] * 5).tolist() == [[0.9, 0.4]] * 5


def test_a_schedules_estimator_is_asym_grpo_with_its_exponents():
    estimator = modulation("asym_grpo_schedule").at(40, 81, 0.4)
    assert estimator == get("asym_grpo", **estimator.params)
    assert_allclose(estimator(REWARDS), get("asym_grpo", beta_pos=0.7, beta_neg=0.45)(REWARDS), **EXACT)


@pytest.mark.parametrize(("step", "steps"), [(-1, 5), (5, 5), (0, 0)])
def test_updates_outside_the_run_have_no_exponents(step, steps):
    with pytest.raises(ParameterError, match=f"step is {step} of a run of {steps} updates"):
        modulation("asym_grpo_schedule").at(step, steps, 0.4)


# --- the controller: its law


@given(entropy=entropies, smoothing=st.floats(0, 0.95), gains=st.tuples(st.floats(0, 5), st.floats(0, 1)))
@few
def test_unclipped_exponents_are_the_positional_form_of_the_controller(entropy, smoothing, gains):
    controller = modulation(
        "entropy_target",
        target=0.5,
        unit="nats",
        smoothing=smoothing,
        proportional=gains[0],
        integral=gains[1],
        beta_pos=500,
        beta_neg=500,
        beta_min=0,
        beta_max=1000,
    )
    k = np.arange(len(entropy))
    weights = np.where(k[:, None] >= k, smoothing ** np.maximum(k[:, None] - k, 0) * (1 - smoothing), 0)
    weights[:, 0] = smoothing**k
    error = np.maximum(1 - weights @ np.array(entropy) / 0.5, -1)
    moved = gains[0] * (error - error[0]) + gains[1] * np.cumsum(np.where(k > 0, error, 0))
    assert_allclose(betas(controller, entropy), np.stack([500 + moved, 500 - moved], axis=1), rtol=0, atol=1e-9)


@given(entropy=entropies)
@few
def test_exponents_stay_inside_their_bounds(entropy):
    path = betas(modulation("entropy_target", beta_min=0.3, beta_max=0.8), entropy)
    assert path.min() >= 0.3
    assert path.max() <= 0.8


@given(entropy=entropies, lower=st.floats(0.01, 5), higher=st.floats(0.01, 5))
@few
def test_a_lower_entropy_never_gives_a_lower_beta_pos_or_a_higher_beta_neg(entropy, lower, higher):
    lower, higher = sorted((lower, higher))
    below, above = (
        betas(modulation("entropy_target", target=1.0, unit="nats"), [*entropy, h])[-1] for h in (lower, higher)
    )
    assert below[0] >= above[0]
    assert below[1] <= above[1]


@pytest.mark.parametrize(("entropy", "end"), [(0.8, [1.0, 0.1]), (1.2, [0.1, 1.0])])
def test_a_lasting_error_moves_both_exponents_one_way_to_their_bounds(entropy, end):
    path = betas(modulation("entropy_target", target=1.0, unit="nats"), [entropy] * 100)
    steps = np.diff(path, axis=0) * np.sign(np.array(end) - 0.5)
    assert (steps >= 0).all()
    assert steps[0].min() > 0
    assert path[-1].tolist() == end


def test_on_target_nothing_moves():
    assert (betas(modulation("entropy_target", target=0.4, unit="nats"), [0.4] * 20) == 0.5).all()
    assert (betas(modulation("entropy_target", target=1.0), [0.3] * 20) == 0.5).all()


def test_the_target_is_a_share_of_the_first_entropy_or_a_number_of_nats():
    share, absolute = modulation("entropy_target", target=0.5), modulation("entropy_target", target=0.5, unit="nats")
    for controller, expected in ((share, 0.2), (absolute, 0.5)):
        betas(controller, [0.4, 0.3, 0.1])
        assert controller.values()["entropy_target"] == expected


@pytest.mark.parametrize("entropy", [math.nan, math.inf, -0.1])
def test_an_entropy_that_is_none_is_refused_and_changes_nothing(entropy):
    controller = modulation("entropy_target")
    betas(controller, [0.4, 0.3])
    before = controller.state()
    with pytest.raises(ParameterError, match="entropy of update 2 is"):
        controller.at(2, 5, entropy)
    assert controller.state() == before


def test_a_share_of_no_entropy_is_no_target():
    controller = modulation("entropy_target")
    with pytest.raises(ParameterError, match=r"entropy of the first update is 0.*Hint: unit nats"):
        controller.at(0, 5, 0.0)
    assert controller.state() == {}
    assert modulation("entropy_target", unit="nats").at(0, 5, 0.0).label == "AsymGRPO 0.5/0.5"


@pytest.mark.parametrize(
    "params", [{"beta_pos": 1.5}, {"beta_neg": 0.05}, {"beta_min": 0.6}, {"beta_min": 0.9, "beta_max": 0.1}]
)
def test_start_exponents_outside_the_bounds_are_refused(params):
    with pytest.raises(ParameterError, match=r"entropy_target: beta_pos is .* beta_min = .* to beta_max = "):
        modulation("entropy_target", **params)


# --- the controller: in a closed loop with a simulated policy


def closed_loop(
    controller: Modulation, rate: Callable[[int, float], float], steps: int, noise: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Entropy and exponents where log entropy changes by ``rate(step, beta_pos − beta_neg)`` in each update."""
    rng, entropy, seen, exponents = np.random.default_rng(0), 0.4, [], []
    for step in range(steps):
        made = controller.at(step, steps, entropy * math.exp(noise * rng.normal()))
        seen.append(entropy)
        exponents.append((made.params["beta_pos"], made.params["beta_neg"]))
        entropy *= math.exp(rate(step, exponents[-1][0] - exponents[-1][1]))
    return np.array(seen), np.array(exponents)


@pytest.mark.parametrize(("fall", "strength"), [(0.003, 0.0043), (0.01, 0.02), (0.05, 0.1), (0.1, 0.3)])
def test_entropy_is_brought_to_a_target_that_can_be_reached_and_held_there(fall, strength):
    # The weakest plant is about as strong as the exponents are in the tiny study, the others up to 70 times that.
    def rate(_: int, difference: float) -> float:
        return -fall + strength * difference

    entropy, exponents = closed_loop(modulation("entropy_target", target=0.5), rate, 3000)
    assert_allclose(entropy[-200:], 0.2, rtol=0.01)
    assert_allclose(exponents[-1, 0] - exponents[-1, 1], fall / strength, rtol=0.05)  # where the rate is 0
    assert entropy.min() > 0.85 * 0.2  # no deep undershoot on the way
    noisy, _ = closed_loop(modulation("entropy_target", target=0.5), rate, 3000, noise=0.08)
    assert_allclose(noisy[-1000:].mean(), 0.2, rtol=0.05)
    uncontrolled, _ = closed_loop(modulation("entropy_target", proportional=0, integral=0), rate, 3000)
    assert uncontrolled[-1] < 0.01 * 0.2


@pytest.mark.parametrize("waiting", [100, 1000])
def test_at_an_unreachable_target_it_stands_at_the_bounds_and_leaves_them_at_once_when_it_can(waiting):
    def rate(step: int, difference: float) -> float:
        return 0.02 * difference - (0.001 if step >= waiting else 0.05 if step < 50 else 0.018)

    entropy, exponents = closed_loop(modulation("entropy_target", target=0.5), rate, waiting + 600)
    assert exponents[waiting].tolist() == [1.0, 0.1]
    assert entropy[waiting] < 0.5 * 0.2
    back = waiting + int(np.argmax(entropy[waiting:] >= 0.2))
    assert exponents[back, 0] < 1.0  # off the bound before the target is passed
    assert entropy[waiting:].max() < 1.25 * 0.2
    assert_allclose(entropy[-50:], 0.2, rtol=0.02)


# --- in training


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Train the tiniest policy, without a warm start; give run.json, the rollouts of each step, and the metrics."""
    monkeypatch.setenv("ENTROPY_LAB_CACHE", str(tmp_path / "cache"))
    grpo = recipes.load("trainers", "grpo")

    def trained(steps: int, advantage: str, **params: float | str) -> tuple[dict, list[pl.DataFrame], list[dict]]:
        sizes = PolicySettings(hidden=16, layers=1, heads=1, kv_heads=1, head_dim=16, feed_forward=16)
        shape = {"train_prompts": 8, "prompts_per_step": 8, "group_size": 4, "mini_batches": 1, "eval_every": 0}
        out = tmp_path / advantage
        named = {"advantage": advantage, "advantage_params": params}
        grpo.main(grpo.Config(out=out, model=sizes, warm_start_steps=0, steps=steps, **shape, **named))
        rollouts = [pl.read_parquet(file) for file in sorted(Path(out / "rollouts").iterdir())]
        lines = (out / "metrics.jsonl").read_text().splitlines()
        return el.open_run(out).info, rollouts, [json.loads(line) for line in lines]

    return trained


def test_a_run_logs_what_the_controller_did_with_its_entropies(train):
    info, _, rows = train(2, "entropy_target", target=0.9)
    again = modulation("entropy_target", target=0.9)
    assert info["method"] == {"name": "entropy_target", "params": dict(again.params), "label": again.label}
    for row in rows:
        again.at(row["step"], 2, row["entropy"])
        assert {name: row[name] for name in again.values()} == again.values()
    assert rows[0]["entropy_target"] == 0.9 * rows[0]["entropy"] > 0
    assert rows[1]["beta_pos"] != rows[0]["beta_pos"] == 0.5


def test_a_run_takes_its_advantages_from_the_schedule(train):
    # A random policy is wrong everywhere: −1 with beta_neg 0, else 0.
    _, rollouts, rows = train(2, "asym_grpo_schedule", beta_neg=0.0, beta_neg_end=0.4)
    assert [(row["beta_pos"], row["beta_neg"]) for row in rows] == [(0.9, 0.0), (0.5, 0.4)]
    for frame, row in zip(rollouts, rows, strict=True):
        estimator = get("asym_grpo", beta_pos=row["beta_pos"], beta_neg=row["beta_neg"])
        expected = estimator(frame["reward"].to_numpy(), frame["group_id"].to_numpy())
        assert_allclose(frame["advantage"], expected, rtol=1e-6)
    assert set(rollouts[0]["advantage"]) != set(rollouts[1]["advantage"])
