"""The entropy audit: definitions are recovered from made-up runs; what cannot be told or cannot be is refused."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import entropy_lab as el
from entropy_lab.cli import main
from entropy_lab.entropy_definitions import REDUCTIONS, Lengths, declared, is_entropy, per_token, reduced
from entropy_lab.entropy_inference import Candidate, alignment, infer, judge, lag_correlations, multiple
from entropy_lab.errors import MissingColumnError, ParameterError
from entropy_lab.schema import ANALYSES

FOREIGN = Path(__file__).parent.parent.parent / "shared" / "data" / "foreign"
V, LONGEST, LIMIT, STEPS = 7, 12, 16, 6


def responses(seed=0, n=48, fixed_length=None):
    """Token lists drawn from random distributions over V tokens, by step: entropies and log-probabilities."""
    rng = np.random.default_rng(seed)
    steps = []
    for step in range(STEPS):
        lengths = np.full(n, fixed_length) if fixed_length else rng.integers(1, LONGEST + 1, n)
        p = rng.dirichlet(np.full(V, 0.3 + 0.15 * step), lengths.sum())
        token = (p.cumsum(axis=1) > rng.random(len(p))[:, None]).argmax(axis=1)
        logp = np.log(p[np.arange(len(p)), token])
        h = -(p * np.log(np.maximum(p, 1e-300))).sum(axis=1)
        cuts = lengths.cumsum()[:-1]
        steps.append((np.split(h, cuts), np.split(logp, cuts)))
    return steps


def by_hand(rows, limit=LIMIT):
    """The six reductions, each from a padded matrix, as trainers compute them."""
    n, longest = len(rows), max(map(len, rows))
    matrix, mask = np.zeros((n, longest)), np.zeros((n, longest))
    for i, row in enumerate(rows):
        matrix[i, : len(row)], mask[i, : len(row)] = row, 1
    return {
        "token-mean": (matrix * mask).sum() / mask.sum(),
        "seq-mean-token-mean": ((matrix * mask).sum(axis=1) / mask.sum(axis=1)).mean(),
        "seq-mean-token-sum": (matrix * mask).sum(axis=1).mean(),
        "seq-mean-token-sum-norm": ((matrix * mask).sum(axis=1) / limit).mean(),
        "padded-mean": matrix.mean(),
        "token-sum": (matrix * mask).sum(),
    }


def write_run(path, steps, logged=None, columns=("entropy", "logp"), tokens=False, **info):
    writer = el.RunWriter(path, method={"name": "mine", "params": {}})
    file = writer.path / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | info))
    for step, (h, logp) in enumerate(steps):
        n = len(h)
        known = {"entropy": [row.mean() for row in h], "logp": [row.sum() for row in logp]}
        known = {name: known[name] for name in columns}
        if tokens:
            known |= {"token_entropy": h, "token_logp": logp, "token_ids": [np.zeros(len(row), int) for row in h]}
            known = {name: [list(map(float, row)) for row in values] if name in ("token_entropy", "token_logp")
                     else [row.tolist() for row in values] if name == "token_ids" else values
                     for name, values in known.items()}  # fmt: skip
        key = {"prompt_id": [f"q{i // 4}" for i in range(n)], "group_id": np.arange(n) // 4, "sample": np.arange(n) % 4}
        writer.write_rollouts(
            step, {**key, "reward": np.zeros(n), "correct": [None] * n, "n_tokens": [len(row) for row in h], **known}
        )
        if logged:
            writer.write_metrics({"step": step, **{name: values[step] for name, values in logged.items()}})
    return writer.path


def audit(path):
    frame = el.analyze(path, "entropy_audit").frame
    assert tuple(frame.columns) == tuple(ANALYSES["entropy_audit"])
    return {row["name"]: row for row in frame.iter_rows(named=True)}


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
