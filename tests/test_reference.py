"""Runs that others write from run-format.md with pyarrow and pandas, against a plain double-precision reference."""

import json
import math
from collections import defaultdict

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import entropy_lab as el
import entropy_lab.analysis

RUN_JSON = {"format": "entropy-lab/run", "version": 1, "name": "r", "method": {"name": "grpo", "params": {}}, "seed": 0}
TYPES = {
    "step": pa.int32(),
    "epoch": pa.int32(),
    "prompt_id": pa.string(),
    "group_id": pa.int64(),
    "sample": pa.int32(),
    "reward": pa.float32(),
    "correct": pa.bool_(),
    "advantage": pa.float32(),
    "n_tokens": pa.int32(),
    "logp": pa.float32(),
    "logp_after": pa.float32(),
    "entropy": pa.float32(),
    "truncated": pa.bool_(),
}


def rollouts(kind, n_steps=6, seed=0):
    """Rows (dicts) of a run of a kind; values are float32 so that every writer stores the same numbers."""
    rng = np.random.default_rng([seed, len(kind)])
    rows = []
    for step in range(n_steps):
        for group in range(12):
            size = int(kind[1:]) if kind[0] == "G" else int(rng.integers(1, 9))
            p = rng.beta(1, 1)
            for sample in range(size):
                n_tokens = int(rng.integers(0 if kind == "empty" else 1, 30))
                logp = np.float32(-rng.gamma(2, 0.3) * n_tokens)
                correct = bool(rng.random() < p)
                if kind == "unverified" and (rng.random() < 0.3 or group == 3):
                    correct = None
                row = {
                    "step": step,
                    "epoch": step // 2,
                    "prompt_id": f"q{(step * 12 + group) % 30}",
                    "group_id": 100 + group,
                    "sample": sample,
                    "reward": np.float32(bool(correct)),
                    "correct": correct,
                    "advantage": np.float32(rng.normal()),
                    "n_tokens": n_tokens,
                    "logp": logp,
                    "logp_after": np.float32(min(logp + rng.normal() * 0.1 * n_tokens, 0)),
                    "entropy": np.float32(rng.gamma(2, 0.2)) if n_tokens else (None if rng.random() < 0.5 else np.nan),
                    "truncated": n_tokens == 29,
                }
                if kind == "holes":
                    for name in ("advantage", "logp", "logp_after", "entropy", "n_tokens"):
                        if rng.random() < 0.15:
                            row[name] = None
                rows.append(row)
    rng.shuffle(rows)
    return rows


def write_pyarrow(folder, rows, drop=()):
    for step in sorted({row["step"] for row in rows}):
        own = [row for row in rows if row["step"] == step]
        columns = {name: pa.array([row[name] for row in own], kind) for name, kind in TYPES.items() if name not in drop}
        pq.write_table(pa.table(columns), _file(folder, step), compression="zstd")


def write_pandas(folder, rows, drop=()):
    kinds = {"step": "int32", "epoch": "Int32", "group_id": "int64", "sample": "int32", "n_tokens": "Int32"}
    kinds |= {"correct": "boolean", "truncated": "boolean", "reward": "float32"}
    for step, own in pd.DataFrame(rows).groupby("step"):
        floats = {name: "float32" for name in ("advantage", "logp", "logp_after", "entropy")}
        own.drop(columns=list(drop)).astype(
            {name: kind for name, kind in (kinds | floats).items() if name not in drop}
        ).to_parquet(_file(folder, step))


def _file(folder, step):
    (folder / "rollouts").mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(RUN_JSON))
    return folder / "rollouts" / f"step-{step:06d}.parquet"


def absent(value):
    return value is None or (isinstance(value, float | np.floating) and math.isnan(value))


def by_group(rows):
    groups = defaultdict(list)
    for row in rows:
        groups[row["step"], row["group_id"]].append(row)
    return groups


def accuracy(group):
    verdicts = [row["correct"] for row in group if row["correct"] is not None]
    return sum(verdicts) / len(verdicts) if verdicts else None


def reference_covariance(rows, first_steps=40):
    values = defaultdict(list)
    for (step, _), group in by_group(rows).items():
        pairs = [
            (float(row["logp"]) / row["n_tokens"], float(row["advantage"]))
            for row in group
            if row["n_tokens"] and not absent(row["logp"]) and not absent(row["advantage"])
        ]
        if step < first_steps and len(pairs) >= 2 and accuracy(group) is not None:
            values[accuracy(group)].append(float(np.cov(np.array(pairs).T)[0, 1]))
    return {p: (len(v), math.fsum(v) / len(v)) for p, v in values.items()}


def reference_entropy(rows, verdict=None):
    result = {}
    for step in {row["step"] for row in rows}:
        own = [r for r in rows if r["step"] == step and r["n_tokens"] and not absent(r["entropy"])]
        own = [r for r in own if verdict is None or r["correct"] is verdict]
        tokens = sum(r["n_tokens"] for r in own)
        result[step] = math.fsum(float(r["entropy"]) * r["n_tokens"] for r in own) / tokens if tokens else None
    return result


def reference_increments(rows, verdict, per_token=False):
    result = {}
    for step in {row["step"] for row in rows}:
        own = [r for r in rows if r["step"] == step and r["correct"] is verdict]
        own = [r for r in own if not absent(r["logp"]) and not absent(r["logp_after"])]
        own = [r for r in own if not per_token or r["n_tokens"]]
        steps = [(float(r["logp_after"]) - float(r["logp"])) / (r["n_tokens"] if per_token else 1) for r in own]
        result[step] = math.fsum(steps) / len(steps) if steps else None
    return result


def reference_solved(rows):
    result = {}
    for epoch in {row["epoch"] for row in rows}:
        found = [accuracy(g) for g in by_group([r for r in rows if r["epoch"] == epoch]).values()]
        found = [p for p in found if p is not None]
        result[epoch] = (len(found), found.count(1.0) / len(found), found.count(0.0) / len(found))
    return result


def assert_close(table, key, column, expected):
    found = dict(zip(table.frame[key].to_list(), table.frame[column].to_list(), strict=True))
    assert set(found) == set(expected)
    for k, value in expected.items():
        assert (found[k] is None) == (value is None), (column, k)
        if value is not None:
            assert found[k] == pytest.approx(value, rel=1e-6, abs=1e-12), (column, k)


@pytest.fixture(params=["pyarrow", "pandas"])
def write(request):
    return {"pyarrow": write_pyarrow, "pandas": write_pandas}[request.param]


@pytest.mark.parametrize("kind", ["G2", "G8", "G16", "ragged", "unverified", "empty", "holes"])
def test_every_number_equals_the_reference(tmp_path, write, kind):
    rows = rollouts(kind)
    write(tmp_path, rows)
    table = el.analyze(tmp_path, "covariance", n_boot=50)
    expected = reference_covariance(rows)
    assert_close(table, "accuracy", "covariance", {p: c for p, (_, c) in expected.items()})
    assert_close(table, "accuracy", "n_groups", {p: n for p, (n, _) in expected.items()})
    entropy = el.analyze(tmp_path, "entropy", n_boot=50)
    for column, verdict in (("entropy", None), ("entropy_correct", True), ("entropy_wrong", False)):
        assert_close(entropy, "step", column, reference_entropy(rows, verdict))
    likelihood = el.analyze(tmp_path, "likelihood")
    for verdict, name in ((True, "correct"), (False, "wrong")):
        assert_close(likelihood, "step", f"increment_{name}", reference_increments(rows, verdict))
        assert_close(likelihood, "step", f"increment_{name}_per_token", reference_increments(rows, verdict, True))
    rates = el.analyze(tmp_path, "solve_rates")
    expected = reference_solved(rows)
    for i, column in enumerate(("n_groups", "all_solved", "none_solved")):
        assert_close(rates, "epoch", column, {epoch: values[i] for epoch, values in expected.items()})


def test_only_the_first_steps_enter_the_covariance(tmp_path):
    rows = rollouts("G8")
    write_pyarrow(tmp_path, rows)
    expected = reference_covariance(rows, first_steps=2)
    table = el.analyze(tmp_path, "covariance", first_steps=2)
    assert_close(table, "accuracy", "covariance", {p: c for p, (_, c) in expected.items()})
    assert table.metadata["first_steps"] == 2


def test_population_covariance_is_the_sample_covariance_scaled(tmp_path):
    write_pyarrow(tmp_path, rollouts("G8"))
    sample = el.analyze(tmp_path, "covariance").frame["covariance"].to_numpy()
    population = el.analyze(tmp_path, "covariance", ddof=0).frame["covariance"].to_numpy()
    np.testing.assert_allclose(population, sample * 7 / 8, rtol=1e-12)


def test_bins_coarsen_and_keep_every_group(tmp_path):
    write_pyarrow(tmp_path, rollouts("ragged"))
    exact, binned = (el.analyze(tmp_path, "covariance", bins=bins).frame for bins in (None, 4))
    assert set(binned["accuracy"]) <= {0.125, 0.375, 0.625, 0.875}
    assert binned["n_groups"].sum() == exact["n_groups"].sum()
    total = (binned["n_groups"] * binned["covariance"]).sum()
    assert total == pytest.approx((exact["n_groups"] * exact["covariance"]).sum(), rel=1e-9)


def test_a_recomputed_advantage_equals_the_recorded_one(tmp_path):
    rows = rollouts("G8")
    for group in by_group(rows).values():
        p = accuracy(group)
        for row in group:
            spread = math.sqrt(p * (1 - p))
            row["advantage"] = (row["correct"] - p) / spread if spread else 0.0
    write_pyarrow(tmp_path, rows)
    recorded = el.analyze(tmp_path, "covariance").frame["covariance"].to_numpy()
    computed = el.analyze(tmp_path, "covariance", advantage="grpo").frame["covariance"].to_numpy()
    np.testing.assert_allclose(computed, recorded, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("drop", "skipped"),
    [
        (["logp_after"], {"likelihood": ["logp_after"]}),
        (
            ["logp"],
            {
                **{name: ["logp"] for name in ("counterfactual", "covariance", "ledger", "likelihood")},
                "mismatch": ["logp", "sampler_logp"],
            },
        ),
        (["entropy"], {"entropy": ["entropy"], "entropy_audit": ["entropy"], "ledger": ["entropy"]}),
        (
            ["n_tokens"],
            {
                **{name: ["n_tokens"] for name in ("counterfactual", "covariance", "entropy", "ledger")},
                "mismatch": ["sampler_logp", "n_tokens"],
            },
        ),
        (["epoch"], {"solve_rates": ["epoch"]}),
        (
            ["advantage", "truncated"],
            {name: ["advantage"] for name in ("advantages", "covariance", "ledger")},
        ),
    ],
)
def test_what_lacks_a_column_is_skipped_and_the_rest_is_unchanged(tmp_path, write, drop, skipped):
    rows = rollouts("G8")
    write(tmp_path / "whole", rows)
    write(tmp_path / "partial", rows, drop)
    whole = el.analysis.analyze_all(el.open_run(tmp_path / "whole"))
    partial = el.analysis.analyze_all(el.open_run(tmp_path / "partial"))
    no_evals = {"validation": ("evals.benchmark", "evals.problem_id", "evals.correct")}
    never = no_evals | {"mismatch": ("sampler_logp",)}
    assert partial.missing == never | {name: tuple(columns) for name, columns in skipped.items()}
    for name, table in partial.tables.items():
        if name == "entropy_audit":  # it holds columns against each other: with one less it says less
            continue
        if name == "counterfactual" and "advantage" in drop:  # then the run's own point is not on the map
            continue
        absent_columns = [c for c in table.columns if table.frame[c].null_count() == len(table)]
        kept = [c for c in table.columns if c not in absent_columns]
        assert table.frame.select(kept).equals(whole.tables[name].frame.select(kept))


def test_training_and_advantages_equal_plain_means(tmp_path):
    rows = rollouts("unverified")
    write_pyarrow(tmp_path, rows)
    training = el.analyze(tmp_path, "training").frame.row(0, named=True)
    own = [row for row in rows if row["step"] == 0]
    verdicts = [row["correct"] for row in own if row["correct"] is not None]
    assert training["reward"] == pytest.approx(np.mean([float(row["reward"]) for row in own]), rel=1e-12)
    assert training["accuracy"] == pytest.approx(np.mean(verdicts), rel=1e-12)
    assert training["mean_length"] == pytest.approx(np.mean([row["n_tokens"] for row in own]), rel=1e-12)
    masses = defaultdict(list)
    for group in by_group(rows).values():
        judged = [row for row in group if row["correct"] is not None]
        if judged:
            masses[accuracy(group)].append(sum(float(r["advantage"]) * r["correct"] for r in judged) / len(judged))
    table = el.analyze(tmp_path, "advantages")
    assert_close(table, "accuracy", "mass_positive", {p: float(np.mean(v)) for p, v in masses.items()})
