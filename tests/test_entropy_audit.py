"""The entropy audit: definitions are recovered from rollouts and converted; what cannot be told is refused."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import entropy_lab as el
from entropy_lab.cli import main
from entropy_lab.entropy_definitions import REDUCTIONS
from entropy_lab.entropy_inference import Candidate, infer, judge, multiple
from entropy_lab.errors import MissingColumnError
from tests.made_up_entropies import LIMIT, STEPS, audit, by_hand, responses, write_run

FOREIGN = Path(__file__).parent.parent.parent / "shared" / "data" / "foreign"


@pytest.fixture(scope="module")
def steps():
    return responses()


# Inference


@pytest.mark.parametrize("how", REDUCTIONS)
@pytest.mark.parametrize("source", ["full vocabulary", "Monte Carlo"])
def test_every_definition_is_recovered_and_converted(tmp_path, steps, how, source):
    lists = [h if source == "full vocabulary" else [-row for row in logp] for h, logp in steps]
    logged = [by_hand(rows)[how] for rows in lists]
    path = write_run(
        tmp_path / "run", steps, {"actor/entropy": logged}, config={"data": {"max_response_length": LIMIT}}
    )
    row = audit(path)["actor/entropy"]
    assert (row["verdict"], row["definition"], row["estimator"]) == ("exact", how, source)
    truth = np.mean([by_hand(rows)["token-mean"] for rows in lists])
    assert row["nats_per_token"] == pytest.approx(truth, rel=1e-5)
    assert row["low"] <= row["nats_per_token"] <= row["high"]
    assert row["next_error"] > 10 * row["error"]
    full = np.mean([by_hand(h)["token-mean"] for h, _ in steps])
    assert row["low"] - 1e-6 <= full <= row["high"] + 1e-6  # Monte Carlo's interval holds the entropy


@pytest.mark.parametrize(
    ("change", "definition"),
    [
        (lambda x: -x, "minus token-mean"),
        (lambda x: x / np.log(2), "token-mean in bits"),
        (lambda x: 0.001 * x, "0.001 × token-mean"),
    ],
)
def test_signs_bits_and_coefficients_are_seen_through(tmp_path, steps, change, definition):
    path = write_run(tmp_path / "run", steps, {"entropy_loss": [change(by_hand(h)["token-mean"]) for h, _ in steps]})
    row = audit(path)["entropy_loss"]
    assert (row["verdict"], row["definition"]) == ("exact", definition)
    assert row["nats_per_token"] == pytest.approx(np.mean([by_hand(h)["token-mean"] for h, _ in steps]), rel=1e-5)


def test_a_norm_by_a_limit_that_nobody_stated_is_a_multiple(tmp_path, steps):
    path = write_run(
        tmp_path / "run", steps, {"entropy": [by_hand(h, 4096)["seq-mean-token-sum-norm"] for h, _ in steps]}
    )
    row = audit(path)["entropy"]
    assert row["definition"] == f"{1 / 4096:.6g} × seq-mean-token-sum"
    assert row["nats_per_token"] == pytest.approx(np.mean([by_hand(h)["token-mean"] for h, _ in steps]), rel=1e-4)


def test_a_mean_over_mini_batches_is_close(tmp_path, steps):
    halves = [np.mean([by_hand(h[:20])["token-mean"], by_hand(h[20:])["token-mean"]]) for h, _ in steps]
    row = audit(write_run(tmp_path / "run", steps, {"entropy": halves}))["entropy"]
    assert (row["verdict"], row["definition"]) == ("close", "token-mean")
    assert 1e-5 < row["error"] < 0.02


def test_responses_of_one_length_leave_open_which_mean_it_is_and_it_does_not_matter(tmp_path):
    steps = responses(fixed_length=5)
    row = audit(write_run(tmp_path / "run", steps, {"entropy": [by_hand(h)["token-mean"] for h, _ in steps]}))[
        "entropy"
    ]
    assert (row["verdict"], row["definition"]) == ("equivalent", "token-mean")
    assert "seq-mean-token-mean" in row["note"]
    assert "padded-mean" in row["note"]
    assert row["factor"] == pytest.approx(1)


def test_what_fits_two_definitions_that_differ_is_refused():
    ones, twos = np.ones(4), np.full(4, 2.0)
    two = [Candidate("token-mean", "x", ones, ones), Candidate("token-sum", "x", ones * (1 + 1e-7), twos)]
    found = judge(ones, two)
    assert found.verdict == "ambiguous"
    assert np.isnan(found.nats_per_token)


def test_what_fits_nothing_is_refused(tmp_path, steps):
    path = write_run(tmp_path / "run", steps, {"entropy": [1.3 + 0.1 * np.sin(i) for i in range(STEPS)]})
    row = audit(path)["entropy"]
    assert (row["verdict"], row["definition"], row["nats_per_token"]) == ("none fits", None, None)
    assert "is nearest, off by" in row["note"]


@pytest.mark.parametrize("late", [1, -1])
def test_a_log_that_is_a_step_off_is_found_out(tmp_path, steps, late):
    logged = np.roll([by_hand(h)["token-mean"] for h, _ in steps], late)
    row = audit(write_run(tmp_path / "run", steps, {"entropy": logged}))["entropy"]
    assert row["definition"] == "token-mean"
    assert f"a step {'after' if late > 0 else 'before'} its rollouts" in row["note"]


def test_without_entropies_log_probabilities_decide_within_their_noise(tmp_path):
    steps = responses(n=400)
    for how, verdicts in (("token-sum", {"close"}), ("token-mean", {"close", "equivalent"})):
        logged = {"entropy": [by_hand(h)[how] for h, _ in steps]}
        row = audit(write_run(tmp_path / how, steps, logged, columns=("logp",)))["entropy"]
        assert row["definition"] in (how, "seq-mean-token-mean" if how == "token-mean" else how)
        assert row["verdict"] in verdicts
        truth = np.mean([by_hand(h)["token-mean"] for h, _ in steps])
        assert row["low"] < truth < row["high"]
        assert "on average only" in row["note"]


def test_one_wrong_step_does_not_hide_the_definition():
    values = np.array([2.0, 1.8, 1.6, 1.4, 1.2])
    found = infer(np.array([2.0, 1.8, 9.9, 1.4, 1.2]), {"a": values, "b": 3 * values})
    assert found.fitting == ("a",)
    assert found.worst > 5
    assert infer(np.full(5, np.nan), {"a": values}).fitting == ()


def test_a_constant_series_is_a_multiple_of_nothing():
    assert multiple(np.ones(5), np.full(5, 2.0)) is None
    assert multiple(np.ones(2), np.array([1.0, 2.0])) is None
    assert multiple(np.zeros(5), np.arange(1.0, 6)) is None


# Runs


def test_a_run_that_says_nothing_of_entropy_is_not_audited(tmp_path, steps):
    path = write_run(tmp_path / "run", steps, {"loss": [0.1] * STEPS}, columns=())
    with pytest.raises(MissingColumnError, match="needs entropy"):
        el.analyze(path, "entropy_audit")


def test_the_summary_names_what_each_number_is(tmp_path, steps, capsys):
    logged = {"actor/entropy": [by_hand(h)["token-sum"] for h, _ in steps], "x/entropy": [-1.0] * STEPS}
    main(["analyze", str(write_run(tmp_path / "run", steps, logged)), "--no-figures"])
    text = " ".join(capsys.readouterr().out.split())
    assert "audit actor/entropy: token-sum, full vocabulary (exact) = " in text
    assert "audit x/entropy: impossible; negative" in text
    assert "rollouts.entropy" not in text


@pytest.mark.skipif(not FOREIGN.exists(), reason="needs ../shared/data/foreign")
def test_the_number_that_verl_logs_is_the_token_mean(tmp_path):
    frames = [pl.read_parquet(FOREIGN / f"verl/hook/rollout_v1_tokens/{step}.parquet") for step in (1, 2)]
    steps = [tuple([np.array(row) for row in frame[name]] for name in ("entropy", "old_log_probs")) for frame in frames]
    lines = (FOREIGN / "verl/hook/file_logger/tiny_verl/grpo_char_add.jsonl").read_text().splitlines()
    logged = {"actor/entropy": [json.loads(line)["data"]["actor/entropy"] for line in lines]}
    info = {"config": {"loss_agg_mode": "token-mean"}, "imported": {"format": "verl"}}
    found = audit(write_run(tmp_path / "run", steps, logged, tokens=True, **info))
    row = found["actor/entropy"]
    assert (row["verdict"], row["definition"], row["estimator"]) == ("exact", "token-mean", "full vocabulary")
    assert row["next_definition"] == "seq-mean-token-mean (full vocabulary)"
    assert found["rollouts.entropy"]["verdict"] == "consistent"
    spec = {"token-mean": 3.778, "seq-mean-token-mean": 3.778, "seq-mean-token-sum": 26.80}
    spec |= {"seq-mean-token-sum-norm": 3.350, "token-sum": 1715.3}
    hand = by_hand(steps[0][0], 8)
    assert {how: hand[how] for how in spec} == pytest.approx(spec, rel=2e-4)


@pytest.mark.skipif(not FOREIGN.exists(), reason="needs ../shared/data/foreign")
def test_the_number_that_trl_logs_is_a_mean_per_token_either_way(tmp_path):
    tokens = pl.read_parquet(FOREIGN / "trl/hook/tokens.parquet")
    steps = [
        tuple([np.array(row) for row in frame[name]] for name in ("entropy", "logprob"))
        for _, frame in tokens.group_by("step", maintain_order=True)
    ]
    state = json.loads((FOREIGN / "trl/hook/checkpoint-3/trainer_state.json").read_text())
    logged = {"entropy": [row["entropy"] for row in state["log_history"] if "entropy" in row]}
    row = audit(write_run(tmp_path / "run", steps, logged, imported={"format": "trl"}))["entropy"]
    assert (row["verdict"], row["definition"]) == ("equivalent", "token-mean")
    assert "seq-mean-token-mean" in row["note"]
    assert row["nats_per_token"] == pytest.approx(3.774, abs=1e-3)
    assert row["high"] - row["low"] < 1e-4
