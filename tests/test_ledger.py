"""The channel ledger of runs whose truth is known: prompts are bandits that take exact natural-gradient steps."""

import json

import numpy as np
import polars as pl
import pytest

import entropy_lab as el
from entropy_lab.analysis import analyze_all
from entropy_lab.cli import main
from entropy_lab.errors import MissingColumnError, ParameterError
from entropy_lab.schema import ANALYSES
from entropy_lab.summary import summarise
from tests.softmax_policies import entropy, softmax

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


def test_the_two_channels_of_a_two_valued_advantage_are_equal_by_the_covariance(run):
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
