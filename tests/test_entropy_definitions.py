"""What a number called entropy can be: its reduction, its name, what settings declare, and what is impossible."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entropy_lab.entropy_definitions import REDUCTIONS, Lengths, declared, is_entropy, per_token, reduced
from entropy_lab.entropy_inference import alignment, lag_correlations
from entropy_lab.errors import ParameterError
from tests.made_up_entropies import V, audit, by_hand, responses, write_run


@pytest.fixture(scope="module")
def steps():
    return responses()


# Reductions


@given(st.lists(st.lists(st.floats(0, 3), min_size=1, max_size=6), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_reductions_are_those_of_padded_matrices(rows):
    n = np.array([len(row) for row in rows], float)
    sizes = Lengths(np.array([len(n)]), np.array([n.sum()]), np.array([n.max()]), 9)
    total, mean = np.array([sum(map(sum, rows))]), np.array([np.mean([np.mean(row) for row in rows])])
    expected = by_hand(rows, 9)
    assert set(expected) == set(REDUCTIONS)
    for how, value in expected.items():
        assert reduced(how, total, mean, sizes).item() == pytest.approx(value, abs=1e-12)
        factor = per_token(how, sizes).item()
        assert how == "seq-mean-token-mean" or value * factor == pytest.approx(expected["token-mean"], abs=1e-12)


def test_an_unknown_reduction_is_refused_and_an_unknown_limit_gives_none():
    sizes = Lengths(np.ones(1), np.ones(1), np.ones(1))
    assert np.isnan(reduced("seq-mean-token-sum-norm", np.ones(1), np.ones(1), sizes)).all()
    with pytest.raises(ParameterError, match="token-mean, seq-mean"):
        per_token("mean", sizes)


@pytest.mark.parametrize(
    "name", ["actor/entropy", "policy.policy_entropy", "ENTROPY", "optim/entropy", "entropy/all/mean"]
)
def test_names_of_entropies(name):
    assert is_entropy(name)


@pytest.mark.parametrize(
    "name", ["entropy_coeff", "eval_entropy", "entropy_min", "crossentropy", "kl", "entropy_target"]
)
def test_names_of_other_things(name):
    assert not is_entropy(name)


# Declared


def metrics_only(path, rows, **info):
    path.mkdir()
    known = {"format": "entropy-lab/run", "version": 1, "method": {"name": "grpo", "params": {}}, **info}
    (path / "run.json").write_text(json.dumps(known))
    (path / "metrics.jsonl").write_text("".join(json.dumps({"step": i, **row}) + "\n" for i, row in enumerate(rows)))
    return path


VERL_LENGTH = {"response_length/mean": 7.09375, "response_length/max": 8.0}


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("token-mean", 3.778, 3.778),
        ("seq-mean-token-sum", 26.80, 3.778),
        ("seq-mean-token-sum-norm", 3.350, 3.778),
        ("seq-mean-token-mean", 3.778, None),
        ("token-sum", 1715.3, None),
    ],
)
def test_verls_number_is_converted_by_its_declared_mode(tmp_path, mode, value, expected):
    config = {"actor_rollout_ref": {"actor": {"loss_agg_mode": mode}}, "data": {"max_response_length": 8}}
    rows = [{"actor/entropy": value, **VERL_LENGTH}] * 2
    row = audit(metrics_only(tmp_path / "run", rows, config=config, imported={"format": "verl"}))["actor/entropy"]
    assert (row["verdict"], row["definition"], row["estimator"]) == ("declared", mode, "full vocabulary")
    assert row["nats_per_token"] == (pytest.approx(expected, rel=1e-3) if expected else None)
    assert bool(row["note"]) == (expected is None)


def test_a_token_sum_is_converted_with_the_number_of_tokens(tmp_path):
    rows = [{"actor/entropy": 1715.3, "n_tokens": 454, **VERL_LENGTH}]
    info = {"config": {"loss_agg_mode": "token-sum"}, "imported": {"format": "verl"}}
    assert audit(metrics_only(tmp_path / "run", rows, **info))["actor/entropy"]["nats_per_token"] == pytest.approx(
        3.778, rel=1e-3
    )


def test_a_step_that_was_logged_twice_counts_once(tmp_path):
    path = metrics_only(tmp_path / "run", [{"entropy": 0.5}, {"entropy": 0.4}], imported={"format": "trl"})
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1, "entropy": 0.3}\n{"entropy": 9.0}\n')
    row = audit(path)["entropy"]
    assert (row["n_steps"], row["nats_per_token"]) == (2, pytest.approx(0.4))


def test_names_that_say_nothing_are_undeclared(tmp_path):
    rows = [{"entropy": 0.5, "my/entropy": 0.5, "actor/entropy": 0.5}]
    found = audit(metrics_only(tmp_path / "run", rows, imported={"format": "csv"}))
    assert {row["verdict"] for row in found.values()} == {"undeclared"}
    assert {row["nats_per_token"] for row in found.values()} == {None}


def test_a_renamed_scalar_is_known_by_its_first_name(tmp_path):
    imported = {"format": "nemo_rl", "metric_names": {"entropy": "train/approx_entropy"}}
    row = audit(metrics_only(tmp_path / "run", [{"entropy": 0.5}], imported=imported))["entropy"]
    assert (row["verdict"], row["estimator"], row["nats_per_token"]) == ("declared", "Monte Carlo", 0.5)
    assert declared("entropy/all/mean", "prime_rl").how == "token-mean"


def test_data_that_contradict_the_settings_say_so(tmp_path, steps):
    config = {"loss_agg_mode": "seq-mean-token-sum"}
    logged = {"actor/entropy": [by_hand(h)["token-mean"] for h, _ in steps]}
    info = {"config": config, "imported": {"format": "verl"}}
    row = audit(write_run(tmp_path / "run", steps, logged, **info))["actor/entropy"]
    assert (row["verdict"], row["definition"]) == ("exact", "token-mean")
    assert "declares seq-mean-token-sum" in row["note"]


# The impossible


def test_negative_and_too_large_numbers_are_impossible(tmp_path):
    rows = [{"a/entropy": -0.5, "entropy": 3.5, "b/entropy": 3.5, "c/entropy": 900.0, "d/entropy": 0.0}]
    found = audit(metrics_only(tmp_path / "run", rows, config={"vocab_size": 32}, imported={"format": "trl"}))
    assert {name: row["verdict"] for name, row in found.items()} == {
        "a/entropy": "impossible",
        "entropy": "impossible",  # declared per token, and above ln 32
        "b/entropy": "undeclared",
        "c/entropy": "undeclared",
        "d/entropy": "not computed",
    }
    assert "above ln V = 3.466: no mean per token" in found["b/entropy"]["note"]


def test_entropies_of_rollouts_out_of_range_are_impossible(tmp_path, steps):
    tall = [([row + 9 for row in h], logp) for h, logp in steps]
    assert (
        audit(write_run(tmp_path / "run", tall, config={"vocab_size": V}))["rollouts.entropy"]["verdict"]
        == "impossible"
    )


def test_entropies_that_are_minus_the_log_probability_are_monte_carlo(tmp_path, steps):
    copied = [([-row for row in logp], logp) for _, logp in steps]
    row = audit(write_run(tmp_path / "run", copied))["rollouts.entropy"]
    assert (row["verdict"], row["estimator"]) == ("Monte Carlo", "Monte Carlo")
    row = audit(write_run(tmp_path / "own", steps))["rollouts.entropy"]
    assert (row["verdict"], row["estimator"]) == ("consistent", "full vocabulary")
    assert abs(row["error"]) < 0.1


def test_entropies_of_another_temperature_are_inconsistent(tmp_path):
    steps = [([0.8 * row for row in h], logp) for h, logp in responses(n=400)]
    row = audit(write_run(tmp_path / "run", steps))["rollouts.entropy"]
    assert row["verdict"] == "inconsistent"
    assert row["error"] == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize(("shift", "verdict"), [(0, "aligned"), (1, "misaligned"), (-1, "misaligned")])
def test_shifted_token_lists_are_found_out(tmp_path, steps, shift, verdict):
    rolled = [([np.roll(row, shift) for row in h], logp) for h, logp in steps]
    row = audit(write_run(tmp_path / "run", rolled, tokens=True))["rollouts.token_entropy"]
    assert row["verdict"] == verdict
    assert {0: "in place", 1: "one token late", -1: "one token early"}[shift] in row["note"]


def test_few_or_constant_tokens_decide_nothing():
    h = np.ones(3)
    assert alignment(lag_correlations(h, -h, np.arange(3))) == ("undecided", 0)
    rng = np.random.default_rng(0)
    found = lag_correlations(rng.random(2000), -rng.random(2000), np.repeat(np.arange(100), 20))
    assert alignment(found)[0] == "undecided"
