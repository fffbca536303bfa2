"""The counterfactual map of runs whose prompts are bandits: their exact change of entropy, the ledger, the picture."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

import entropy_lab as el
from entropy_lab import advantages, recipes
from entropy_lab.advantages.outcomes import estimator_of
from entropy_lab.covariance import group_covariance
from entropy_lab.errors import MissingColumnError, ParameterError
from entropy_lab.figure import tables_of
from entropy_lab.plots import style
from entropy_lab.plots.collect import collect
from entropy_lab.run import open_run
from entropy_lab.schema import ANALYSES
from tests.made_up_study import axes_of, texts
from tests.softmax_policies import entropy, softmax

P, K, G, N_STEPS = 24, 8, 8, 16


def bandits(seed=0):
    rng = np.random.default_rng(seed)
    z, right = 1.5 * rng.normal(size=(P, K)), rng.random((P, K)) < np.linspace(0.1, 0.9, P)[:, None]
    return rng, z, right


def bandit_run(path, n_steps=N_STEPS, method=("grpo", {}), absent=()):
    rng, z, right = bandits()
    writer = el.RunWriter(path, method={"name": method[0], "params": method[1]}, group_size=G)
    p = softmax(z)
    estimator = estimator_of({"name": method[0], "params": method[1]}) or advantages.get("grpo")
    for step in range(n_steps):
        token = np.array([rng.choice(K, G, p=row) for row in p])
        reward = np.take_along_axis(right, token, 1)
        prompt, logp = np.repeat(np.arange(P), G), np.log(np.take_along_axis(p, token, 1)).ravel()
        columns = {
            "prompt_id": [f"q{i}" for i in prompt],
            "group_id": prompt,
            "sample": np.tile(np.arange(G), P),
            "correct": reward.ravel(),
            "reward": reward.ravel() * 1.0,
            "advantage": estimator(reward * 1.0).ravel(),
            "n_tokens": np.ones(P * G, int),
            "logp": logp,
            "entropy": np.repeat(entropy(p), G),
            "token_ids": token.ravel()[:, None].tolist(),
            "token_logp": logp[:, None].tolist(),
            "token_entropy": np.repeat(entropy(p), G)[:, None].tolist(),
        }
        writer.write_rollouts(step, {name: column for name, column in columns.items() if name not in absent})
    return writer.path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return bandit_run(tmp_path_factory.mktemp("bandit") / "run")


def mapped(path, **parameters):
    return el.analyze(path, "counterfactual", **{"n_boot": 50, "n_betas": 3, "most_beta": 1.0} | parameters)


@pytest.fixture(scope="module")
def mapped_run(run):
    return mapped(run)


def named(table, name):
    return table.frame.filter(pl.col("name") == name, pl.col("kind") == "estimator").row(0, named=True)


# The table


def test_it_predicts_what_one_exact_step_of_each_estimator_does(mapped_run):
    """Expected advantages of each action, over groups that it is in; a small natural-gradient step; exact entropies."""
    _, z, right = bandits()
    p, step = softmax(z), 1e-3
    rng = np.random.default_rng(5)
    predicted, exact = [], []
    for name in ("reinforce", "grpo", "asym_grpo", "pos_only", "neg_only", "ent_increase", "w_reinforce"):
        estimator, accuracy = advantages.get(name), (p * right).sum(1)
        others = rng.random((P, 400, G - 1)) < accuracy[:, None, None]
        a = np.zeros((P, K))
        for outcome in (True, False):
            full = np.concatenate([np.full((P, 400, 1), outcome), others], axis=2).reshape(-1, G).astype(float)
            mean = estimator(full)[:, 0].reshape(P, -1).mean(axis=1)
            a = np.where(right == outcome, mean[:, None], a)
        exact.append((entropy(softmax(z + step * a)) - entropy(p)).mean() / step)
        predicted.append(named(mapped_run, name)["pressure"])
    np.testing.assert_allclose(predicted, exact, rtol=0.25, atol=0.01)
    assert np.corrcoef(predicted, exact)[0, 1] > 0.99


@pytest.mark.parametrize("name", ["grpo", "a_grae", "pass_at_k"])
def test_an_estimators_pressure_is_minus_its_covariance(mapped_run, run, name):
    mean = np.mean(list(_covariances(run, name)))
    assert named(mapped_run, name)["pressure"] == pytest.approx(-mean, rel=1e-6)


def _covariances(run, name):
    for file in sorted((run / "rollouts").iterdir()):
        rows = pl.read_parquet(file)
        advantage = advantages.get(name)(rows["correct"].cast(pl.Float64).to_numpy().reshape(P, G)).ravel()
        starts = np.arange(0, P * G, G)
        yield group_covariance(rows["logp"].to_numpy().astype(float), advantage, starts)[0]


@pytest.mark.parametrize("predictor", ["covariance", "vanilla"])
def test_the_runs_own_point_is_the_ledgers_and_its_estimators_and_the_maps(run, predictor):
    table = mapped(run, predictor=predictor)
    own = table.frame.filter(pl.col("kind") == "recorded").row(0, named=True)
    whole = el.analyze(run, "ledger", predictor=predictor).frame.filter(pl.col("channel") == "all")
    assert own["pressure"] == pytest.approx(whole[predictor].mean(), rel=1e-6)
    assert own["against_own"] == 0
    assert (own["name"], own["beta_pos"], own["beta_neg"]) == ("grpo", 0.5, 0.5)
    middle = table.frame.filter(pl.col("kind") == "map", pl.col("beta_pos") == 0.5, pl.col("beta_neg") == 0.5)
    for row in (named(table, "grpo"), middle.row(0, named=True)):
        assert [row[name] for name in ("pressure", "ci_low", "rms_advantage", "per_rms_high")] == pytest.approx(
            [own[name] for name in ("pressure", "ci_low", "rms_advantage", "per_rms_high")], rel=1e-6
        )
    assert tuple(table.columns) == tuple(ANALYSES["counterfactual"])
    assert table.frame.filter(pl.col("kind") == "map").height == 9


def test_a_constant_factor_changes_the_pressure_and_not_that_per_rms(mapped_run):
    rloo, centred = named(mapped_run, "rloo"), named(mapped_run, "dr_grpo")
    assert rloo["pressure"] == pytest.approx(centred["pressure"] * G / (G - 1))
    assert rloo["per_rms"] == pytest.approx(centred["per_rms"])


def test_intervals_are_as_wide_as_the_prompts_differ(run):
    row = named(mapped(run, n_boot=400), "grpo")
    prompts = pl.concat(
        pl.DataFrame({"prompt": np.arange(P), "covariance": covariance}) for covariance in _covariances(run, "grpo")
    )
    means = prompts.group_by("prompt").agg(pl.col("covariance").mean())["covariance"]
    assert row["pressure"] == pytest.approx(-means.mean(), rel=1e-6)
    assert row["ci_high"] - row["ci_low"] == pytest.approx(2 * 1.96 * means.std() / P**0.5, rel=0.15)


def test_what_acts_on_tokens_or_refuses_the_groups_is_named(tmp_path):
    path = tmp_path / "run"
    writer = el.RunWriter(path, method={"name": "mine", "params": {}})
    row = {
        "prompt_id": ["a", "a", "b", "b"],
        "group_id": [0, 0, 1, 1],
        "sample": [0, 1, 0, 1],
        "reward": [1.0, 0.0] * 2,
    }
    row |= {"correct": [True, False] * 2, "n_tokens": [3] * 4, "logp": [-1.0, -2.0, -1.5, -1.6]}
    writer.write_rollouts(0, row)
    table = mapped(path)
    assert set(table.metadata["left_out"]) == {"token_asym_grpo", "entropy_advantage", "pass_at_k"}
    assert table.frame.filter(pl.col("kind") == "recorded").is_empty()  # no advantage was recorded
    assert table.frame["against_own"].null_count() == len(table)
    assert table.metadata["own"] == {"name": "mine", "label": "mine", "beta_pos": None, "beta_neg": None}
    assert table.metadata["direction"] is None  # in mixed pairs all exponents give the same advantages
    assert table.frame.filter(pl.col("kind") == "map")["ci_low"].null_count() == 0


def test_a_single_prompt_has_no_interval_and_no_verdict_no_row(tmp_path):
    row = {"prompt_id": ["a"] * 4, "group_id": [0] * 4, "sample": range(4), "reward": [1.0, 0, 0, 0]}
    row |= {"n_tokens": [3] * 4, "logp": [-1.0, -2.0, -1.5, -1.6]}
    tables = []
    for name, correct in (("one", [True, False, False, False]), ("none", [None] * 4)):
        writer = el.RunWriter(tmp_path / name, method={"name": "grpo", "params": {}})
        writer.write_rollouts(0, row | {"correct": pl.Series(correct, dtype=pl.Boolean)})
        tables.append(mapped(writer.path))
        tables[-1].write(tmp_path / f"{name}.parquet")  # metadata without NaN
    assert tables[0].frame["ci_low"].null_count() == len(tables[0]) > 0
    assert len(tables[1]) == 0


def test_first_steps_are_the_first(mapped_run, run, tmp_path):
    part, short = mapped(run, first_steps=3), mapped(bandit_run(tmp_path / "short", n_steps=3))
    assert part.frame.equals(short.frame)
    assert (mapped_run.metadata["n_steps"], part.metadata["n_steps"], part.metadata["n_groups"]) == (N_STEPS, 3, 3 * P)


def test_bad_parameters(tmp_path):
    path = bandit_run(tmp_path / "run", n_steps=1, absent=("token_logp",))
    with pytest.raises(MissingColumnError, match="token_logp"):
        el.analyze(path, "counterfactual", predictor="vanilla")
    for wrong in ({"predictor": "magic"}, {"n_betas": 1}, {"most_beta": 0.0}):
        with pytest.raises(ParameterError):
            el.analyze(path, "counterfactual", **wrong)


# Figure


@pytest.fixture(scope="module")
def tables(run):
    table = el.analyze(run, "counterfactual", n_boot=50, n_betas=5)
    return table, tables_of(open_run(run), {"counterfactual": table})


MODULE = recipes.load("figures", "counterfactual_map")


def test_colours_and_points_are_the_tables(tables):
    source, run = tables
    table = collect("counterfactual_map", MODULE.PANELS, [run])
    figure = MODULE.draw(table)
    (_, plane, _), (_, ranking, rows) = axes_of(table, figure)
    wide = source.frame.filter(pl.col("kind") == "map").pivot("beta_pos", index="beta_neg", values="per_rms")
    (mesh,) = (part for part in plane.collections if part.get_gid() == "map")
    np.testing.assert_allclose(mesh.get_array(), wide.sort("beta_neg").drop("beta_neg").to_numpy())
    names = {text.get_text() for text in plane.texts}
    assert {"GRPO = this run", "AsymGRPO 0.9/0.4", "REINFORCE (2r − 1)"} <= names
    points = source.frame.filter(pl.col("kind") != "map").sort("per_rms", descending=True)
    (values,) = (line for line in ranking.lines if line.get_gid() == "values")
    np.testing.assert_allclose(values.get_xdata(), points["per_rms"].to_numpy())
    own = pl.when(pl.col("kind") == "recorded").then(pl.lit("this run")).otherwise("label")
    assert set(rows["name"]) == set(points.select(own.alias("name"))["name"])
    with style.context():
        FigureCanvasAgg(figure).draw()
        for text in texts(figure):
            box = text.get_window_extent()
            assert figure.bbox.x0 <= box.x0 <= box.x1 <= figure.bbox.x1, text.get_text()


def test_the_arrow_points_where_the_slope_does(tables):
    source, run = tables
    panel = collect("counterfactual_map", MODULE.PANELS, [run]).metadata["panels"][0]
    found = source.metadata["direction"]
    assert panel["arrow"] == [found[name] for name in ("beta_pos", "beta_neg", "d_beta_pos", "d_beta_neg")]


def test_several_methods_have_no_common_map_and_seeds_are_averaged(tables):
    _, run = tables
    other = collect("counterfactual_map", MODULE.PANELS, [run, replace(run, label="other", method="rloo")])
    assert {lack["reason"] for lack in other.metadata["missing"]} == {"drawn for one method only"}
    assert other.frame.is_empty()
    seeds = [replace(run, seed=seed) for seed in range(3)]
    one, three = (collect("counterfactual_map", MODULE.PANELS, runs).frame for runs in ([run], seeds))
    np.testing.assert_allclose(three["z"].drop_nulls().to_numpy(), one["z"].drop_nulls().to_numpy())
    assert three.filter(pl.col("panel") == "b")["n_seeds"].unique().to_list() == [3]
