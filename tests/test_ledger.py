"""The channel ledger: rates of exact softmax policies, identities by enumeration, and runs whose truth is known."""

import itertools
import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import entropy_lab as el
from entropy_lab.analysis import analyze_all
from entropy_lab.cli import main
from entropy_lab.covariance import group_covariance
from entropy_lab.entropy_change import (
    covariance_contributions,
    increment_contributions,
    natural_gradient_rate,
    sampled_token_rate,
    token_contributions,
    vanilla_gradient_rate,
)
from entropy_lab.errors import MissingColumnError, ParameterError
from entropy_lab.scale_fit import through_origin, window_sums
from entropy_lab.schema import ANALYSES
from entropy_lab.step_change import StepChanges
from entropy_lab.summary import summarise

logits = st.lists(st.floats(-3, 3), min_size=2, max_size=6).map(np.array)
RATES = {
    natural_gradient_rate: lambda p, a: a,
    vanilla_gradient_rate: lambda p, a: p * (a - p @ a),
}
PAIR = np.array([0.8, 0.2]), np.array([0.2, -0.8])


def softmax(z):
    p = np.exp(z - z.max())
    return p / p.sum()


def entropy(p):
    return float(-(p @ np.log(p)))


@st.composite
def policies(draw):
    z = draw(logits)
    return z, np.array(draw(st.lists(st.floats(-2, 2), min_size=len(z), max_size=len(z))))


# Exact rates


@pytest.mark.parametrize("rate", RATES)
@given(policies())
@settings(max_examples=30, deadline=None)
def test_rates_are_the_derivatives_of_entropy(rate, policy):
    z, a = policy
    p = softmax(z)
    dz, step = RATES[rate](p, a), 1e-5
    numeric = (entropy(softmax(z + step * dz)) - entropy(softmax(z - step * dz))) / (2 * step)
    assert rate(p, a) == pytest.approx(numeric, abs=1e-8)


@pytest.mark.parametrize("rate", RATES)
@given(policies(), st.floats(-3, 3))
@settings(max_examples=25, deadline=None)
def test_a_baseline_changes_no_rate(rate, policy, constant):
    z, a = policy
    assert rate(softmax(z), a + constant) == pytest.approx(rate(softmax(z), a), abs=1e-12)


def test_the_known_counterexample():
    p, a = PAIR
    assert vanilla_gradient_rate(p, a) == pytest.approx(-0.070978, abs=5e-7)
    proxy = -(p * a * (1 - p) ** 2) @ (np.log(p) + entropy(p))
    assert proxy == pytest.approx(-0.115340, abs=5e-7)


def test_the_covariance_with_pi_a_holds_for_centred_advantages_only():
    p, a = PAIR
    quoted = [natural_gradient_rate(p, p * (a + constant)) for constant in (0, 0.5, 1)]
    assert quoted[0] == pytest.approx(vanilla_gradient_rate(p, a))  # E A = 0
    assert quoted[1] - quoted[0] == pytest.approx(0.5 * natural_gradient_rate(p, p)) != 0


@given(policies())
@settings(max_examples=25, deadline=None)
def test_sampled_tokens_average_to_the_vanilla_rate(policy):
    z, a = policy
    p = softmax(z)
    rates = np.array([sampled_token_rate(p, k) for k in range(len(p))])
    assert p @ rates == pytest.approx(0, abs=1e-12)
    assert p @ (a * rates) == pytest.approx(vanilla_gradient_rate(p, a), abs=1e-12)


# Contributions


def groups(rng, sizes=(8, 1, 3, 2)):
    n = sum(sizes)
    return -rng.random(n), rng.normal(size=n), np.cumsum((0, *sizes[:-1]))


def test_covariance_parts_add_up_to_minus_the_covariance():
    x, a, starts = groups(np.random.default_rng(0))
    x[9] = np.nan
    parts = covariance_contributions(x, a, starts)
    covariance, _ = group_covariance(x, a, starts)
    assert np.isnan(parts[[8, 9]]).all()
    np.testing.assert_allclose(np.add.reduceat(np.nan_to_num(parts), starts), -np.nan_to_num(covariance), atol=1e-15)


@pytest.mark.parametrize("constant", [0.5, 1.0, -7.0])
def test_a_groups_baseline_changes_no_sum(constant):
    x, a, starts = groups(np.random.default_rng(1), (8, 4))
    shifted = a + constant * (np.arange(12) < 8)
    before, after = (covariance_contributions(x, one, starts).sum() for one in (a, shifted))
    assert after == pytest.approx(before, abs=1e-14)
    group, h = np.repeat([0, 1], [8, 4]), np.abs(x) + 0.1
    before, after = (token_contributions(x, h, one, group, n_bins=3).sum() for one in (a, shifted))
    assert after == pytest.approx(before, abs=1e-14)


def test_increments_of_fresh_rollouts_are_the_change_at_the_new_policys_states():
    """E_old[-(w - 1) Σ (log π + H)] = E_new Σ_t [H_new - H_old + KL_t], over every response of a tree of two tokens."""
    z, moved = np.random.default_rng(3).normal(size=(2, 3, 3))
    old, new = ([softmax(row) for row in rows] for rows in (z, z + 0.7 * moved))
    paths = [(0,), *((first, second) for first in (1, 2) for second in range(3))]  # the action 0 ends the response
    states = [(0, *path[:-1]) for path in paths]  # the root, then the state of the first action
    steps = [list(zip(at, path, strict=True)) for at, path in zip(states, paths, strict=True)]
    logp, after = (np.array([sum(np.log(pi[s][a]) for s, a in path) for path in steps]) for pi in (old, new))
    n = np.array([len(path) for path in paths], float)
    h = np.array([np.mean([entropy(old[s]) for s in at]) for at in states])
    change = [entropy(new[s]) - entropy(old[s]) + new[s] @ np.log(new[s] / old[s]) for s in range(3)]
    expected = np.exp(after) @ [sum(change[s] for s in at) for at in states]
    assert abs(expected) > 0.01
    assert np.exp(logp) @ increment_contributions(logp, after, n, h) == pytest.approx(expected, abs=1e-12)


def test_increments_of_the_rollouts_trained_on_are_too_large():
    """Every outcome of two sampled actions, the update they cause, and the estimate on them and on fresh ones."""
    rng, n, eta = np.random.default_rng(0), 20, 0.1
    z = rng.normal(size=n)
    p, right = softmax(z), z + rng.normal(size=n) > 0
    a = np.where(right, 1.0, -1.0) - p @ np.where(right, 1.0, -1.0)
    seen = fresh = truth = 0.0
    for pair in itertools.product(range(n), repeat=2):
        new = softmax(z + eta * sum(a[k] * (np.eye(n)[k] - p) for k in pair) / 2)
        parts = increment_contributions(np.log(p), np.log(new), np.ones(n), np.full(n, entropy(p)))
        weight = p[pair[0]] * p[pair[1]]
        seen += weight * parts[list(pair)].mean()
        fresh += weight * (p @ parts)
        truth += weight * (entropy(new) - entropy(p) + new @ np.log(new / p))
    assert fresh == pytest.approx(truth, abs=1e-14)
    assert seen / truth > 3


def test_ratios_are_cut_off():
    one = np.ones(1)
    for after in (1.0, 9.0):
        assert increment_contributions(-5 * one, after * one, one, one) == pytest.approx([(10 - 1) * 4])


def test_token_parts_estimate_the_vanilla_rate():
    rng = np.random.default_rng(0)
    p, a = softmax(rng.normal(size=5)), rng.normal(size=5)
    token = rng.choice(5, 40_000, p=p)
    parts = token_contributions(np.log(p)[token], np.full(len(token), entropy(p)), a[token], np.zeros(len(token), int))
    error = parts.std() / len(token) ** 0.5
    assert parts.mean() == pytest.approx(vanilla_gradient_rate(p, a), abs=4 * error)
    assert error < 0.05 * abs(vanilla_gradient_rate(p, a))


def test_no_tokens_no_parts():
    nothing = np.zeros(0)
    assert len(token_contributions(nothing, nothing, nothing, nothing.astype(int))) == 0
    assert len(covariance_contributions(nothing, nothing, nothing.astype(int))) == 0
    with pytest.raises(ParameterError, match="n_bins"):
        token_contributions(nothing, nothing, nothing, nothing.astype(int), n_bins=0)


# Scale


def noisy(rng, n=100, scale=0.4, noise=0.015):
    x = -0.02 * np.exp(-np.arange(n) / 40) * (1 + 0.4 * rng.normal(size=n))
    level = np.concatenate([[0.0], np.cumsum(scale * x + 0.003 * rng.normal(size=n))])
    return x, np.diff(level + noise * rng.normal(size=n + 1))


def test_intervals_of_the_scale_hold_it():
    found = [through_origin(*noisy(np.random.default_rng(seed)), np.random.default_rng(0)) for seed in range(40)]
    assert np.mean([fit.low < 0.4 < fit.high for fit in found]) >= 0.85
    assert np.mean([fit.identified for fit in found]) > 0.95
    assert np.mean([fit.scale for fit in found]) == pytest.approx(0.4, abs=0.03)


def test_of_nothing_that_goes_together_no_scale_is_identified():
    rng = np.random.default_rng(0)
    fits = [through_origin(rng.normal(size=60), rng.normal(size=60), np.random.default_rng(0)) for _ in range(30)]
    assert np.mean([fit.identified for fit in fits]) <= 0.1


def test_a_third_of_wild_steps_moves_the_scale_little():
    x = np.linspace(1, 2, 60)
    y = 0.5 * x
    y[::20] = 30.0
    assert through_origin(x, y, np.random.default_rng(0), span=1).scale == pytest.approx(0.5, abs=0.02)


def test_predictions_of_every_second_step_stand_for_the_others():
    x = np.linspace(1, 2, 80)
    sparse = np.where(np.arange(80) % 2, np.nan, x)
    assert through_origin(sparse, 0.5 * x, np.random.default_rng(0)).scale == pytest.approx(0.5, rel=0.02)
    assert through_origin(sparse, 0.5 * x, np.random.default_rng(0), span=1).n_windows == 40


def test_windows_across_a_gap_are_left_out():
    y = np.ones(40)
    y[20] = np.nan
    assert through_origin(np.ones(40), y, np.random.default_rng(0), span=3).n_windows == 38 - 3
    np.testing.assert_array_equal(window_sums(np.array([1.0, np.nan, np.nan, 2.0]), 2), [2.0, np.nan, 4.0])


@pytest.mark.parametrize(
    ("x", "y", "span"),
    [
        (np.ones(7), np.ones(7), None),
        (np.ones(20), np.ones(20), 10),
        (np.zeros(20), np.ones(20), None),
        (np.ones(20), np.zeros(20), None),
        (np.full(20, np.nan), np.ones(20), None),
        (np.zeros(0), np.zeros(0), None),
    ],
)
def test_what_cannot_be_fitted_is_not(x, y, span):
    assert through_origin(x, y, np.random.default_rng(0), span=span) is None


@pytest.mark.parametrize("wrong", [{"span": 0}, {"confidence": 1.0}, {"measured": np.ones(3)}])
def test_bad_arguments_of_the_fit(wrong):
    arguments = {"predicted": np.ones(20), "measured": np.ones(20), "rng": np.random.default_rng(0)} | wrong
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        through_origin(**arguments)


# Measured change


def test_a_change_that_all_prompts_share_is_certain_and_others_are_as_the_delta_method_says():
    rng = np.random.default_rng(0)
    names, nats, tokens = pl.Series([f"q{i}" for i in range(60)]), rng.random(60) * 9, rng.integers(5, 15, 60) + 0.0
    same = StepChanges()
    same.add(0, names, nats, tokens)
    same.add(1, names, nats + 0.1 * tokens, tokens)
    assert [same.changes[0].low, same.changes[0].high] == pytest.approx([0.1, 0.1])
    other = StepChanges(n_boot=4000)
    other.add(0, names, nats, tokens)
    other.add(1, names + "x", nats, tokens)
    residual = (nats - nats.sum() / tokens.sum() * tokens) / tokens.sum()
    assert other.changes[0].variance == pytest.approx(2 * (residual**2).sum(), rel=0.15)
    assert other.changes[0].value == 0
    assert other.noise is None


def test_steps_apart_and_single_prompts_have_no_interval():
    one, two = (pl.Series(names) for names in (["a"], ["a", "b"]))
    changes = StepChanges()
    for step, names in ((0, one), (1, two), (3, two)):
        changes.add(step, names, np.ones(len(names)), np.ones(len(names)))
    changes.add(4, two, np.zeros(2), np.zeros(2))
    assert changes.frame().rows() == [(0, 0.0, None, None)]


# Runs

P, K, G, ETA = 16, 6, 24, 0.15


def bandit_run(path, n_steps=24, seed=0, constant=0.0, tokens=False, skip=(), absent=()):
    """Prompts are bandits whose policies take exact natural-gradient steps; responses are single tokens."""
    rng = np.random.default_rng(seed)
    z, right = rng.normal(size=(P, K)), rng.random((P, K)) < 0.4
    writer = el.RunWriter(path, method={"name": "mine", "params": {}}, group_size=G)
    for step in range(n_steps):
        p = np.apply_along_axis(softmax, 1, z)
        z_new = z + ETA * right
        p_new = np.apply_along_axis(softmax, 1, z_new)
        token = np.array([rng.choice(K, G, p=row) for row in p])
        prompt = np.repeat(np.arange(P), G)
        logp, after = (np.log(np.take_along_axis(q, token, 1)).ravel() for q in (p, p_new))
        h = np.repeat([entropy(row) for row in p], G)
        columns = {
            "prompt_id": [f"q{i}" for i in prompt],
            "group_id": prompt,
            "sample": np.tile(np.arange(G), P),
            "correct": np.take_along_axis(right, token, 1).ravel(),
            "n_tokens": np.ones(P * G, int),
            "logp": logp,
            "logp_after": after,
            "entropy": h,
        }
        columns["reward"] = columns["correct"].astype(float)
        columns["advantage"] = columns["reward"] - 0.5 + constant
        if tokens:
            columns |= {"token_ids": [[int(k)] for k in token.ravel()], "token_logp": [[x] for x in logp]}
            columns["token_entropy"] = [[x] for x in h]
        if step not in skip:
            writer.write_rollouts(step, {name: column for name, column in columns.items() if name not in absent})
        z = z_new
    return writer.path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return bandit_run(tmp_path_factory.mktemp("bandit") / "run", tokens=True)


def test_the_scale_of_the_covariance_is_the_size_of_the_step_and_that_of_fresh_increments_one(run):
    table = el.analyze(run, "ledger")
    fits = table.metadata["fits"]
    assert table.metadata["predictor"] == "increment"
    for name, truth in (("increment", 1.0), ("covariance", ETA)):
        assert fits[name]["scale"] == pytest.approx(truth, rel=0.1)
        assert fits[name]["r2"] > 0.95
        assert fits[name]["identified"]
    totals = table.metadata["totals"]
    assert totals["measured"] == pytest.approx(totals["all"], rel=0.1)
    assert totals["positive"] + totals["negative"] + totals["zero"] == pytest.approx(totals["all"])


def test_rows_add_up_to_the_totals_of_their_step(run):
    frame = el.analyze(run, "ledger", predictor="vanilla").frame
    names = ["advantage", "covariance", "increment", "vanilla", "predicted", "n_rollouts"]
    cells = frame.filter(pl.col("channel") != "all").group_by("step").agg(pl.col(names).sum()).sort("step")
    whole = frame.filter(pl.col("channel") == "all").select("step", *names)
    assert whole.null_count().row(0) == (0,) * 7
    np.testing.assert_allclose(cells.select(names).to_numpy(), whole.select(names).to_numpy(), rtol=1e-12, atol=1e-15)
    assert whole["n_rollouts"].unique().to_list() == [P * G]
    assert tuple(frame.columns) == tuple(ANALYSES["ledger"])


def test_a_baseline_moves_rows_between_channels_and_no_total(tmp_path, run):
    shifted = bandit_run(tmp_path / "shifted", constant=1.5)
    plain, moved = (el.analyze(path, "ledger", predictor="covariance").frame for path in (run, shifted))
    whole = [frame.filter(pl.col("channel") == "all")["covariance"].to_numpy() for frame in (plain, moved)]
    np.testing.assert_allclose(*whole, rtol=1e-5)  # advantages are float32
    assert set(plain["channel"]) == {"positive", "negative", "all"}
    assert set(moved["channel"]) == {"positive", "all"}


def test_the_two_channels_of_a_two_valued_advantage_have_one_sign_by_the_covariance(run):
    cells = el.analyze(run, "ledger").frame.filter(
        pl.col("channel") != "all", pl.col("accuracy").is_between(0.01, 0.99)
    )
    wide = cells.pivot("channel", index=["step", "accuracy"], values="covariance")
    np.testing.assert_allclose(wide["positive"].to_numpy(), wide["negative"].to_numpy(), atol=1e-9)


def test_the_mean_advantage_is_reported_apart(tmp_path, run):
    metadata = el.analyze(bandit_run(tmp_path / "run", constant=0.3), "ledger").metadata
    assert metadata["mean_advantage"] > 0.3
    assert metadata["residual_on_advantage"]["n_windows"] > 8
    centred = tmp_path / "centred"
    writer = el.RunWriter(centred, method={"name": "mine", "params": {}})
    for file in sorted((run / "rollouts").iterdir())[:3]:
        frame = pl.read_parquet(file).drop("step")
        advantage = pl.col("reward") - pl.col("reward").mean().over("group_id")
        writer.write_rollouts(int(file.stem[-6:]), frame.with_columns(advantage=advantage))
    metadata = el.analyze(centred, "ledger").metadata
    assert metadata["mean_advantage"] == pytest.approx(0, abs=1e-7)
    assert metadata["residual_on_advantage"] is None


def test_the_measured_change_is_that_of_the_entropy_table(run):
    entropies = el.analyze(run, "entropy").frame["entropy"].to_numpy()
    whole = el.analyze(run, "ledger").frame.filter(pl.col("channel") == "all")
    np.testing.assert_allclose(whole["measured"].to_numpy()[:-1], np.diff(entropies), atol=1e-9)
    assert whole["measured"][-1] is None
    assert ((whole["ci_low"] <= whole["measured"]) & (whole["measured"] <= whole["ci_high"])).sum() == 23
    np.testing.assert_allclose((whole["measured"] - whole["predicted"]).to_numpy(), whole["residual"].to_numpy())


def test_a_gap_has_no_measured_change(tmp_path):
    whole = el.analyze(bandit_run(tmp_path / "run", skip=(5,)), "ledger").frame.filter(pl.col("channel") == "all")
    assert whole.filter(pl.col("measured").is_null())["step"].to_list() == [4, 23]


def test_without_increments_the_covariance_predicts(tmp_path):
    path = bandit_run(tmp_path / "run", absent=("logp_after",))
    table = el.analyze(path, "ledger")
    assert table.metadata["predictor"] == "covariance"
    assert table.frame["increment"].null_count() == len(table)
    with pytest.raises(MissingColumnError, match="logp_after"):
        el.analyze(path, "ledger", predictor="increment")
    with pytest.raises(MissingColumnError, match="token_logp, token_entropy"):
        el.analyze(path, "ledger", predictor="vanilla")
    with pytest.raises(ParameterError, match="auto, covariance, increment, vanilla"):
        el.analyze(path, "ledger", predictor="magic")


def test_few_steps_have_sums_and_no_prediction(tmp_path, capsys):
    path = bandit_run(tmp_path / "run", n_steps=4)
    table = el.analyze(path, "ledger")
    assert table.metadata["fits"] == {"covariance": None, "increment": None, "vanilla": None}
    assert table.frame["predicted"].null_count() == len(table)
    assert table.frame["covariance"].null_count() == 0
    main(["analyze", str(path), "ledger", "--no-figures"])
    assert "too few steps to fit the scale" in " ".join(capsys.readouterr().out.split())


def test_rollouts_without_verdict_or_advantage(tmp_path):
    path = tmp_path / "run"
    writer = el.RunWriter(path, method={"name": "mine", "params": {}})
    row = {"prompt_id": ["a"] * 6, "group_id": [0, 0, 0, 1, 1, 2], "sample": [0, 1, 2, 0, 1, 0], "reward": [0.0] * 6}
    row |= {"correct": [None, None, None, True, False, True], "advantage": [1.0, -1.0, None, 2.0, 0.0, 1.0]}
    row |= {"n_tokens": [4] * 6, "logp": [-1.0, -2.0, -3.0, -1.0, -2.0, -1.0], "entropy": [0.5] * 6}
    writer.write_rollouts(0, row)
    frame = el.analyze(path, "ledger").frame
    keys = frame.select("channel", "accuracy", "n_groups", "n_rollouts").rows()
    assert keys == [
        *(("negative", None, 1, 1), ("positive", None, 1, 1), ("positive", 0.5, 1, 1), ("positive", 1.0, 1, 1)),
        *(("zero", 0.5, 1, 1), ("all", None, 3, 5)),
    ]
    x, a = np.array([-1, -2, -1, -2]) / 4, np.array([1, -1, 2, 0])
    by_hand = -np.mean([np.cov(x[:2], a[:2])[0, 1], np.cov(x[2:], a[2:])[0, 1]])
    assert frame.filter(pl.col("channel") == "all")["covariance"].item() == pytest.approx(by_hand)
    assert frame.filter(pl.col("accuracy") == 1.0)["covariance"].item() is None  # a group of one


def test_the_summary_says_what_the_channels_did(run, capsys):
    summary = summarise(el.open_run(run), analyze_all(el.open_run(run)))
    assert summary["ledger"]["measured"] < -0.1
    json.dumps(summary, allow_nan=False)
    main(["analyze", str(run), "ledger", "--no-figures"])
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("ledger"))
    assert "positive channel" in line
    assert "nats/token measured (increment × " in line
