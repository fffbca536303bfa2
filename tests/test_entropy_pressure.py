"""What the counterfactual map is made of: advantages by outcome, parts, sums over prompts, pressure; by enumeration."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entropy_lab import advantages
from entropy_lab.advantages.outcomes import advantages_by_outcome, beta_advantages, estimator_of, exponents
from entropy_lab.batches import GroupBatch
from entropy_lab.covariance import group_covariance
from entropy_lab.entropy_change import token_contributions
from entropy_lab.entropy_pressure import CellSums, Pressure, angles, extremes, steepest
from entropy_lab.errors import ParameterError
from entropy_lab.prompt_sums import COMPACT_AT, PromptSums, bounded
from entropy_lab.rollout_parts import rollout_parts
from entropy_lab.token_columns import flat_tokens

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
