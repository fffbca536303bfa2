"""The counterfactual map: sums over cells against every rollout's own advantage, and bandits whose truth is known."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg

import entropy_lab as el
from entropy_lab import advantages, recipes
from entropy_lab.advantages.outcomes import advantages_by_outcome, beta_advantages, estimator_of, exponents
from entropy_lab.batches import GroupBatch
from entropy_lab.covariance import group_covariance
from entropy_lab.entropy_change import token_contributions
from entropy_lab.entropy_pressure import CellSums, Pressure, angles, extremes, steepest
from entropy_lab.errors import MissingColumnError, ParameterError
from entropy_lab.figure import tables_of
from entropy_lab.plots import style
from entropy_lab.plots.collect import collect
from entropy_lab.prompt_sums import COMPACT_AT, PromptSums, bounded
from entropy_lab.rollout_parts import rollout_parts
from entropy_lab.run import open_run
from entropy_lab.schema import ANALYSES
from entropy_lab.token_columns import flat_tokens
from tests.made_up_study import axes_of, texts

ON_PLANE = {
    "reinforce": (0, 0),
    "grpo": (0.5, 0.5),
    "pos_only": (0.5, 0),
    "neg_only": (0, 0.5),
    "asym_grpo": (0.9, 0.4),
}

# Advantages by outcome


@pytest.mark.parametrize("name", [name for name in advantages.names() if not advantages.get(name).token_advantage])
def test_advantages_by_outcome_are_the_estimators_own(name):
    rng, estimator = np.random.default_rng(0), advantages.get(name)
    sizes = rng.integers(4, 9, 30)
    group = np.repeat(np.arange(30), sizes)
    reward = (rng.random(len(group)) < rng.random(30)[group]).astype(float)
    correct = np.bincount(group, reward)
    positive, negative = advantages_by_outcome(estimator, correct, sizes.astype(float), reward.mean())
    expected = estimator(reward, group)
    np.testing.assert_allclose(np.where(reward == 1, positive[group], negative[group]), expected, atol=1e-12)


@pytest.mark.parametrize("name", ON_PLANE)
def test_members_of_the_beta_family_are_found_on_the_plane(name):
    estimator = advantages.get(name)
    assert exponents(estimator) == ON_PLANE[name]
    beta_pos, beta_neg = (np.array([beta], float) for beta in ON_PLANE[name])
    counts = np.array([0.0, 1, 4, 7, 8]), np.full(5, 8.0)
    positive, negative = advantages_by_outcome(estimator, *counts, 0.5)
    np.testing.assert_allclose(beta_advantages(beta_pos, *counts)[0][:, 0], positive, atol=1e-12)
    np.testing.assert_allclose(beta_advantages(beta_neg, *counts)[1][:, 0], negative, atol=1e-12)


def test_what_is_no_estimator_has_none():
    assert estimator_of({"name": "mine", "params": {"x": 1}}) is None
    assert estimator_of({"name": "asym_grpo", "params": {"beta_pos": -1.0}}) is None
    assert exponents(advantages.get("dr_grpo")) is None


# Parts


def batch_of(rng, sizes=(4, 1, 3, 5), tokens=False):
    n = sum(sizes)
    length = rng.integers(1, 6, n)
    values = {"logp": -length * rng.random(n), "n_tokens": length.astype(float), "correct": (rng.random(n) < 0.5) * 1.0}
    values["advantage"] = rng.normal(size=n)
    lists = {"prompt_id": pl.Series([f"q{i}" for i in np.repeat(np.arange(len(sizes)), sizes)])}
    if tokens:
        lists["token_logp"] = pl.Series([(-rng.random(k)).tolist() for k in length])
        lists["token_entropy"] = pl.Series([rng.random(k).tolist() for k in length])
    return GroupBatch(0, values, lists, np.cumsum((0, *sizes[:-1])))


@pytest.mark.parametrize("predictor", ["covariance", "vanilla"])
def test_parts_of_a_group_add_up_to_nothing_and_times_the_advantage_to_the_ledgers(predictor):
    batch = batch_of(np.random.default_rng(0), tokens=True)
    part, _, weight = rollout_parts(batch, predictor, np.ones(13, bool))
    np.testing.assert_allclose(batch.sum(part), 0, atol=1e-15)
    if predictor == "covariance":
        covariance, _ = group_covariance(batch["logp"] / batch["n_tokens"], batch["advantage"], batch.starts)
        np.testing.assert_allclose(batch.sum(part * batch["advantage"]), -np.nan_to_num(covariance), atol=1e-15)
        assert weight.tolist() == [1, 0, 1, 1]
    else:
        row, (logp, entropy) = flat_tokens(batch, ["token_logp", "token_entropy"])
        each = token_contributions(logp, entropy, batch["advantage"][row], batch.group[row])
        assert (part * batch["advantage"]).sum() == pytest.approx(each.sum())
        np.testing.assert_allclose(weight, batch.sum(batch["n_tokens"]))


def test_what_does_not_count_has_no_part():
    batch = batch_of(np.random.default_rng(1))
    batch.values["logp"][0] = np.nan
    batch.values["n_tokens"][1] = 0
    part, tokens, weight = rollout_parts(batch, "covariance", np.arange(13) != 2)
    assert np.isnan(part[:5]).all()  # of the first group one is left, and the second has one
    assert np.isnan(tokens[:5]).all()
    assert weight.tolist() == [0, 0, 1, 1]
    assert np.isnan(rollout_parts(batch, "vanilla", np.ones(13, bool))[0]).all()  # no such columns
    with pytest.raises(ParameterError, match="covariance, vanilla"):
        rollout_parts(batch, "magic", np.ones(13, bool))


def test_lists_of_unequal_length_have_no_tokens():
    lists = {"a": pl.Series([[1.0, 2.0], [3.0], []]), "b": pl.Series([[1.0], [4.0], []])}
    row, values = flat_tokens(GroupBatch(0, {"correct": np.ones(3)}, lists, np.array([0])), ["a", "b"])
    assert (row.tolist(), [column.tolist() for column in values]) == ([1], [[3.0], [4.0]])


# Sums


def test_resamples_are_of_whole_prompts():
    sums = PromptSums(("cell",), ("x",))
    sums.add(pl.Series(["a", "a", "b", "c"]), {"cell": [0.0, 1.0, 0.0, 0.0], "x": [1.0, 10.0, 100.0, np.nan]})
    first, *others = sums.resampled(200, np.random.default_rng(0))
    assert first.tolist() == [[101.0, 10.0]]
    for zero, one in (row[0] for row in others):
        assert zero % 100 == one / 10  # prompt a brings 1 to the first cell and 10 to the second
    again = sums.resampled(200, np.random.default_rng(0), pl.Series(["a", "b", "c"]))
    np.testing.assert_array_equal(again[1:], others)


def test_compacting_changes_no_sum():
    rng, sums = np.random.default_rng(0), PromptSums(("cell",), ("x",))
    n, total = COMPACT_AT // 2 + 1, 0.0
    for _ in range(3):
        x = rng.random(n)
        total += x.sum()
        sums.add(pl.Series(rng.choice(["a", "b"], n)), {"cell": rng.integers(0, 3, n).astype(float), "x": x})
    assert sum(part.height for part in sums._parts) < 2 * n
    assert sums.resampled(1, np.random.default_rng(0))[0].sum() == pytest.approx(total)


def test_bounds_of_equal_resamples_are_none():
    found = bounded("y", "ci", np.array([[1.0, 2.0], [1.0, 1.0], [1.0, 3.0]]))
    assert np.isnan(found["ci_low"]).tolist() == [True, False]


# Pressure


@given(st.integers(0, 10**6), st.floats(0, 2), st.floats(0, 2))
@settings(max_examples=25, deadline=None)
def test_cells_give_what_every_rollout_gives(seed, beta_pos, beta_neg):
    rng = np.random.default_rng(seed)
    n, size = 12, 6
    correct, u = rng.random((n, size)) < 0.5, rng.normal(size=(n, size))
    u, tokens = u - u.mean(axis=1, keepdims=True), rng.integers(1, 9, (n, size)).astype(float)
    advantage = advantages.get("asym_grpo", beta_pos=beta_pos, beta_neg=beta_neg)(correct.astype(float))
    cells = PromptSums(("c", "n"), ("effect", "right", "wrong", "weight"))
    columns = {"c": correct.sum(1) * 1.0, "n": np.full(n, 1.0 * size), "effect": (u * correct).sum(1)}
    columns |= {"right": (tokens * correct).sum(1), "wrong": (tokens * ~correct).sum(1), "weight": np.ones(n)}
    cells.add(pl.Series([str(i) for i in range(n)]), columns)
    effect, right, wrong, weight = np.moveaxis(cells.resampled(1, rng)[:1], 1, 0)
    c, size_of = cells.cells.to_numpy().T
    found = CellSums(c, size_of, effect, right, wrong, weight.sum(1)).at(np.array([beta_pos]), np.array([beta_neg]))
    assert found.change.item() == pytest.approx((u * advantage).sum() / n, abs=1e-12)
    assert found.rms.item() == pytest.approx(np.sqrt((tokens * advantage**2).sum() / tokens.sum()))


def test_nothing_presses_without_an_advantage():
    assert np.isnan(Pressure(np.zeros(1), np.zeros(1)).per_rms).all()


def plane(rng, resamples=5):
    counts = np.arange(9.0), np.full(9, 8.0)
    right, wrong = counts[0] * 20, (8 - counts[0]) * 25
    effect = -rng.random((resamples, 9)) * counts[0] * (8 - counts[0])
    return CellSums(
        *counts, effect, *(np.tile(tokens, (resamples, 1)) for tokens in (right, wrong)), np.full(resamples, 9.0)
    )


@pytest.mark.parametrize("at", [(0.5, 0.5), (0.0, 0.0), (0.9, 0.4)])
def test_the_slope_is_that_of_a_finer_difference(at):
    sums = plane(np.random.default_rng(0))
    for axis in (0, 1):
        ends = []
        for width in (-2e-6, 2e-6) if min(at) else (1e-6, 5e-6):
            moved = np.array(at)
            moved[axis] += width
            ends.append(sums.at(moved[:1], moved[1:]).per_rms[:, 0, 0])
        np.testing.assert_allclose(sums.slope(*at)[:, axis], (ends[1] - ends[0]) / 4e-6, rtol=2e-3, atol=5e-3)


def test_steepest_beats_every_other_direction():
    sums = plane(np.random.default_rng(1))
    found = steepest(sums, (0.5, 0.5))["direction"]
    around = np.radians(np.arange(360))
    values = [
        sums.at(np.array([0.5 + 0.01 * np.cos(a)]), np.array([0.5 + 0.01 * np.sin(a)])).per_rms[0].item()
        for a in around
    ]
    assert np.argmax(values) == pytest.approx(found["degrees"] % 360, abs=1.5)


def test_a_flat_map_has_no_direction():
    one = np.ones((3, 1))
    assert (
        steepest(CellSums(np.array([2.0]), np.array([4.0]), -one, one, one, one[:, 0]), (0.5, 0.5))["direction"] is None
    )


def test_angles_do_not_jump_at_half_a_turn():
    turned = angles(np.array([[-1.0, 1e-3], [-1.0, -1e-3]]))
    assert turned[1] - turned[0] == pytest.approx(np.degrees(2e-3), rel=1e-3)


def test_extremes_by_enumeration():
    rng = np.random.default_rng(0)
    betas, per_rms, at = np.linspace(0, 1, 5), rng.normal(-0.5, 1, 25), (0.5, 0.25)
    found = extremes(betas, per_rms, at)
    pairs = [(a, b) for a in betas for b in betas]
    held = [pair for pair, value in zip(pairs, per_rms, strict=True) if value >= 0]
    nearest = min(held, key=lambda pair: np.hypot(pair[0] - at[0], pair[1] - at[1]))
    assert (found["holding"]["beta_pos"], found["holding"]["beta_neg"]) == nearest
    assert found["highest"]["per_rms"] == per_rms.max()
    assert extremes(betas, -np.ones(25), at)["holding"] is None


# Runs: prompts are bandits, whose exact change is known

P, K, G, N_STEPS = 24, 8, 8, 16


def softmax(z):
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


def entropy(p):
    return -(p * np.log(p)).sum(axis=-1)


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


def test_first_steps_are_the_first(mapped_run, run):
    part = mapped(run, first_steps=3).metadata
    assert (mapped_run.metadata["n_steps"], part["n_steps"], part["n_groups"]) == (N_STEPS, 3, 3 * P)


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
