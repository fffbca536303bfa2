"""The mismatch lens: divergences in closed form and by enumeration, and runs whose two policies are known."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import entropy_lab as el
from entropy_lab import recipes
from entropy_lab.batches import GroupBatch
from entropy_lab.errors import MissingColumnError
from entropy_lab.figure import collected, draw_all, tables_of
from entropy_lab.policy_distance import (
    SUMS,
    beginnings,
    effective_share,
    growth_exponent,
    measures,
    position_bin,
    position_terms,
    response_terms,
    token_terms,
)
from entropy_lab.run import open_run
from entropy_lab.schema import ANALYSES
from entropy_lab.token_columns import flat_tokens
from tests.softmax_policies import softmax

policies = st.lists(st.floats(-2, 2), min_size=2, max_size=5).map(np.array)


def measured(difference, weight):
    """Measures over every outcome, weighted by the probability that the source gives it."""
    responses = weight @ response_terms(difference)
    tokens = weight @ token_terms(difference)
    return measures(np.concatenate([responses, [1.0, weight @ difference], tokens]))


@given(policies, st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_means_over_the_source_are_the_divergences(z, seed):
    p, q = softmax(z), softmax(z + np.random.default_rng(seed).normal(0, 0.5, len(z)))
    found = measured(np.log(q / p), p)
    kl, chi_square = p @ np.log(p / q), ((q - p) ** 2 / p).sum()
    for name, value in {
        "k1": kl,
        "k3": kl,
        "response_k3": kl,
        "chi_square": chi_square,
        "ess": 1 / (1 + chi_square),
    }.items():
        assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-12), name
    assert found["spread"] == pytest.approx(np.sqrt(p @ np.log(q / p) ** 2), abs=1e-9)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=20).map(np.array))
@settings(max_examples=30, deadline=None)
def test_the_effective_share_is_kishs_and_lies_between_one_response_and_all(d):
    w = np.exp(d)
    assert effective_share(d) == pytest.approx(w.sum() ** 2 / (w**2).sum() / len(w))
    assert 1 / len(d) - 1e-12 <= effective_share(d) <= 1 + 1e-12
    sums = np.concatenate([response_terms(d).sum(axis=0), np.zeros(5)])
    assert measures(sums)["ess"] == pytest.approx(effective_share(d))
    assert np.isnan(effective_share(np.array([np.nan])))


def test_near_equality_no_digit_is_lost():
    d = np.array([1e-9])
    assert token_terms(d)[0, 1:].tolist() == pytest.approx([5e-19, 1e-18], rel=1e-6)
    assert np.isfinite(response_terms(np.array([1e4, -1e4]))).all()


def test_beginnings_are_running_sums_of_each_response():
    rng = np.random.default_rng(0)
    lengths = [3, 1, 6]
    each, row = rng.normal(size=10), np.repeat([0, 2, 5], lengths)
    sums, position = beginnings(each, row)
    parts = np.split(each, np.cumsum(lengths)[:-1])
    np.testing.assert_allclose(sums, np.concatenate([np.cumsum(part) for part in parts]))
    assert position.tolist() == [1, 2, 3, 1, 1, 2, 3, 4, 5, 6]
    assert [len(one) for one in beginnings(np.zeros(0), np.zeros(0, np.int64))] == [0, 0]


def test_terms_by_position_by_brute_force():
    rng, row = np.random.default_rng(1), np.repeat(np.arange(4), [9, 2, 12, 5])
    each = rng.normal(0, 0.1, len(row))
    bins, terms = position_terms(each, row)
    for start, end in ((1, 1), (4, 5), (6, 7), (8, 10)):
        here = terms[bins == start].sum(axis=0)
        parts = [each[row == i] for i in range(4)]
        tokens = np.concatenate([part[start - 1 : end] for part in parts])
        prefixes = np.array([part[:start].sum() for part in parts if len(part) >= start])
        assert here[SUMS.index("counted")] == len(tokens)
        assert here[SUMS.index("length_difference")] == pytest.approx(tokens.sum())
        assert here[SUMS.index("responses")] == len(prefixes)
        assert here[SUMS.index("square")] == pytest.approx((prefixes**2).sum())


def test_bins_begin_at_their_name_and_are_at_most_half_as_wide_again():
    position = np.arange(1, 5000)
    bins = position_bin(position)
    assert (bins <= position).all()
    assert (position <= np.maximum(bins * 1.5, bins)).all()
    np.testing.assert_array_equal(position_bin(np.unique(bins)), np.unique(bins))


@pytest.mark.parametrize(("shared", "exponent"), [(0.0, 0.5), (1.0, 1.0)])
def test_growth_tells_independent_from_systematic_errors(shared, exponent):
    rng, n, length = np.random.default_rng(0), 3000, 64
    errors = 0.01 * (rng.normal(size=(n, length)) * (1 - shared) + shared * rng.normal(size=(n, 1)))
    bins, terms = position_terms(errors.ravel(), np.repeat(np.arange(n), length))
    starts = np.unique(bins)
    spread = measures(np.stack([terms[bins == start].sum(axis=0) for start in starts]))["spread"]
    assert growth_exponent(starts.astype(float), spread) == pytest.approx(exponent, abs=0.02)
    assert np.isnan(growth_exponent(starts.astype(float), np.where(starts < 4, spread, np.nan)))


# Runs: bandits of several tokens, sampled at one temperature and trained at another

P, G, V, LENGTH = 16, 8, 6, 9


def run_of(path, temperature=1.2, n_steps=6, absent=(), tokens=True, drift=0.1):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(P, V))
    writer = el.RunWriter(path, method={"name": "grpo", "params": {}}, group_size=G)
    for step in range(n_steps):
        sampler, trainer, after = (np.log(softmax(logits)) for logits in (z / temperature, z, z * (1 + drift)))
        length = rng.integers(1, LENGTH + 1, P * G)
        prompt = np.repeat(np.arange(P), G)
        token = [rng.choice(V, n, p=np.exp(sampler[i])) for n, i in zip(length, prompt, strict=True)]
        lists = {
            f"token_{name}": [table[i][one].tolist() for i, one in zip(prompt, token, strict=True)]
            for name, table in (("logp", trainer), ("sampler_logp", sampler), ("logp_after", after))
        }
        columns = {name.removeprefix("token_"): [sum(one) for one in values] for name, values in lists.items()}
        columns |= {"token_ids": [one.tolist() for one in token], **lists} if tokens else {}
        columns |= {"prompt_id": [f"q{i}" for i in prompt], "group_id": prompt, "sample": np.tile(np.arange(G), P)}
        columns |= {"correct": [True] * (P * G), "reward": [1.0] * (P * G), "n_tokens": length}
        writer.write_rollouts(step, {name: column for name, column in columns.items() if name not in absent})
    return writer.path


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("two") / "run")


@pytest.fixture(scope="module")
def table(run):
    return el.analyze(run, "mismatch", n_boot=100)


def test_the_whole_run_finds_the_true_divergence_of_its_policies(table):
    z = np.random.default_rng(0).normal(size=(P, V))
    sampler, trainer = softmax(z / 1.2), softmax(z)
    whole = table.frame.filter(pl.col("step").is_null(), pl.col("position").is_null()).row(0, named=True)
    kl = (sampler * np.log(sampler / trainer)).sum(axis=1).mean()
    assert whole["k3"] == pytest.approx(kl, rel=0.15)
    assert whole["k3_low"] < kl < whole["k3_high"]
    assert whole["k1_low"] < kl < whole["k1_high"]
    assert (whole["n_rollouts"], table.frame["step"].drop_nulls().len()) == (6 * P * G, 6)
    assert tuple(table.columns) == tuple(ANALYSES["mismatch"])


def test_every_row_is_what_its_rollouts_say(run, table):
    rows = pl.concat(pl.read_parquet(file) for file in sorted((run / "rollouts").iterdir()))
    for step, row in ((2, table.frame.filter(pl.col("step") == 2)), (None, table.frame[-1:])):
        here = rows if step is None else rows.filter(pl.col("step") == step)
        for prefix, target, source in (("", "logp", "sampler_logp"), ("drift_", "logp_after", "logp")):
            d = (here[target].cast(pl.Float64) - here[source].cast(pl.Float64)).to_numpy()
            each = (here[f"token_{target}"].explode().cast(pl.Float64) - here[f"token_{source}"].explode()).to_numpy()
            expected = {
                "k1": -d.sum() / here["n_tokens"].sum(),
                "k3": np.mean(np.expm1(each) - each),
                "chi_square": np.mean(np.expm1(each) ** 2),
                "response_k3": np.mean(np.exp(d) - 1 - d),
                "ess": np.exp(d).sum() ** 2 / (np.exp(2 * d).sum() * len(d)),
                "spread": np.sqrt(np.mean(d**2)),
            }
            for name, value in expected.items():
                assert row[prefix + name].item() == pytest.approx(value, rel=1e-5), (step, prefix + name)


def test_positions_hold_the_tokens_there(run, table):
    rows = pl.concat(pl.read_parquet(file) for file in sorted((run / "rollouts").iterdir()))
    position = table.frame.filter(pl.col("position") == 6).row(0, named=True)  # tokens 6 and 7
    assert position["n_rollouts"] == (rows["n_tokens"] >= 6).sum()
    assert position["n_tokens"] == ((rows["n_tokens"] - 5).clip(0, 2)).sum()
    assert table.frame["position"].drop_nulls().to_list() == [1, 2, 3, 4, 6, 8]
    assert table.metadata["growth"]["low"] <= table.metadata["growth"]["exponent"] <= table.metadata["growth"]["high"]


def test_mismatch_is_told_from_drift(tmp_path, table):
    assert table.metadata["first"]["step"] == 0
    steady, drifting = (
        el.analyze(run_of(tmp_path / name, temperature, n_steps=2, drift=drift), "mismatch", n_boot=20).metadata
        for name, temperature, drift in (("steady", 1.3, 0.001), ("drifting", 1.001, 0.3))
    )
    assert steady["mismatch_share"] > 0.99
    assert drifting["mismatch_share"] < 0.01


def test_a_trainer_that_takes_the_samplers_word_is_not_compared(tmp_path):
    found = el.analyze(run_of(tmp_path / "run", temperature=1.0, n_steps=1), "mismatch", n_boot=20)
    assert found.metadata["identical"] is True
    assert found.frame["k1"].null_count() == found.frame["ess_low"].null_count() == len(found)
    assert found.frame["drift_k1"].null_count() == 0


def test_runs_without_tokens_or_increments_have_what_they_recorded(tmp_path):
    path = run_of(tmp_path / "run", n_steps=2, tokens=False, absent=("logp_after",))
    found = el.analyze(path, "mismatch", n_boot=20)
    assert found.frame["position"].null_count() == len(found) == 3
    assert found.frame["k3"].null_count() == found.frame["drift_ess"].null_count() == 3
    assert found.frame["k1"].null_count() == found.frame["response_k3"].null_count() == 0
    assert found.metadata["mismatch_share"] is None
    found.write(tmp_path / "mismatch.parquet")  # metadata without NaN
    with pytest.raises(MissingColumnError, match="sampler_logp"):
        el.analyze(run_of(tmp_path / "none", n_steps=1, absent=("sampler_logp",)), "mismatch")


def test_the_figure_draws_the_table(run, table, tmp_path):
    module = recipes.load("figures", "mismatch_lens")
    for panel in module.PANELS:
        assert {panel.y, *panel.x} <= set(ANALYSES["mismatch"])
    files, tables = draw_all([tables_of(open_run(run), {"mismatch": table})], ["mismatch_lens"], tmp_path)
    drawn = tables["mismatch_lens"].frame
    assert [file.suffix for file in files] == [".png", ".pdf"]
    spread = drawn.filter(pl.col("panel") == "c").sort("x")["y"].to_list()
    assert spread == pytest.approx(table.frame.filter(pl.col("position").is_not_null())["spread"].to_list())
    steps = drawn.filter(pl.col("panel") == "a")
    assert (steps.height, steps["low"].null_count()) == (6, 0)


@pytest.mark.parametrize("absent", [None, float("nan")])
def test_a_response_that_lacks_the_value_of_a_token_leaves_the_others_as_they_are(absent):
    lists = {
        "token_logp": [[-1.0, -2.0], [-1.0, absent], [-3.0]],
        "token_sampler_logp": [[-1.5, -2.0], [-1.0, -1.0], [-2.0]],
    }
    series = {name: pl.Series(values, dtype=pl.List(pl.Float64)) for name, values in lists.items()}
    batch = GroupBatch(0, {"correct": np.ones(3)}, series, np.array([0]))
    row, (trainer, sampler) = flat_tokens(batch, list(lists))
    assert row.tolist() == [0, 0, 2]
    assert (trainer - sampler).tolist() == [0.5, 0.0, -1.0]


def test_the_figure_says_that_no_token_was_recorded(tmp_path):
    writer = el.RunWriter(tmp_path / "run", method={"name": "grpo", "params": {}})
    columns = {"prompt_id": ["a", "b"], "group_id": [0, 1], "sample": [0, 0], "correct": [True, False]}
    columns |= {"reward": [1.0, 0.0], "n_tokens": [3, 4], "logp": [-1.0, -2.0], "sampler_logp": [-1.1, -2.2]}
    writer.write_rollouts(0, columns)
    shown = collected(open_run(writer.path), "mismatch_lens")
    assert {lack["panel"]: lack["reason"] for lack in shown.metadata["missing"]}[
        "c"
    ] == "no value of spread by position"
