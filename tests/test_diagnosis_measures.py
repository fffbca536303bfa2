"""What is computed from a step, against plain loops; and the tables that checks are declared by."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

import entropy_lab.diagnosis as package
from entropy_lab.batches import GroupBatch
from entropy_lab.diagnosis.frameworks import _SPOKEN, metric_names, spoken
from entropy_lab.diagnosis.gather import COLUMNS, sketch
from entropy_lab.diagnosis.measures import MEASURES, Step
from entropy_lab.diagnosis.registry import CHECKS
from entropy_lab.diagnosis.signals import SIGNALS
from entropy_lab.schema import ROLLOUTS

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def batch():
    """Groups of 2 to 5 rollouts, with values that are absent here and there."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(2, 6, 40)
    n = sizes.sum()
    values = {
        "reward": rng.integers(0, 3, n) / 2,
        "correct": rng.integers(0, 2, n).astype(float),
        "advantage": rng.normal(size=n).round(1),
        "n_tokens": rng.integers(0, 30, n).astype(float),
        "truncated": (rng.random(n) < 0.3).astype(float),
        "entropy": rng.random(n),
        "logp": -20 * rng.random(n),
        "logp_after": -20 * rng.random(n),
        "sampler_logp": -20 * rng.random(n),
    }
    for name in ("correct", "advantage", "truncated", "entropy", "logp_after"):
        values[name][rng.random(n) < 0.1] = np.nan
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    for start in starts[:8]:
        values["reward"][start : start + 2] = values["reward"][start]
    return GroupBatch(3, values, {}, starts)


def groups(batch):
    ends = np.append(batch.starts[1:], batch.n_rollouts)
    for start, end in zip(batch.starts, ends, strict=True):
        yield [{name: values[i] for name, values in batch.values.items()} for i in range(start, end)]


def rows(batch):
    return [row for group in groups(batch) for row in group]


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else float("nan")


def known(*values):
    return not any(np.isnan(value) for value in values)


def mixed(group):
    return len({row["reward"] for row in group}) > 1


def token_mean(batch, value):
    counted = [row for row in rows(batch) if row["n_tokens"] > 0 and known(value(row))]
    return sum(value(row) for row in counted) / sum(row["n_tokens"] for row in counted)


def increments(batch, verdict):
    return mean(
        (row["logp_after"] - row["logp"]) / row["n_tokens"]
        for group in groups(batch)
        for row in group
        if mixed(group) and row["correct"] == verdict and row["n_tokens"] > 0 and known(row["logp_after"])
    )


def lost(batch):
    total, judged = 0.0, 0
    for group in groups(batch):
        cut, done = (
            [row["correct"] for row in group if row["truncated"] == value and known(row["correct"])] for value in (1, 0)
        )
        judged += len(cut) + len(done)
        total += sum(mean(done) - value for value in cut) if done else 0
    return total / judged


def channel_ratio(batch):
    weighed = [row["advantage"] * row["n_tokens"] for row in rows(batch) if known(row["advantage"])]
    return np.log(sum(w for w in weighed if w > 0) / -sum(w for w in weighed if w < 0))


def inverted(batch):
    found = []
    for group in groups(batch):
        low, high = (pick(row["reward"] for row in group) for pick in (min, max))
        best, worst = (
            [row["advantage"] for row in group if row["reward"] == r and known(row["advantage"])] for r in (high, low)
        )
        if mixed(group) and best and worst:
            found.append(min(best) < max(worst) - 1e-3 * abs(max(worst)))
    return mean(found)


def phantom(batch, high):
    average = mean(row["reward"] for row in rows(batch))
    size = mean(row["advantage"] ** 2 for row in rows(batch) if known(row["advantage"])) ** 0.5
    return mean(
        any(abs(row["advantage"]) > 1e-3 * size for row in group if known(row["advantage"]))
        for group in groups(batch)
        if not mixed(group) and (group[0]["reward"] > average) == high
    )


def uncentred(batch):
    return mean(
        abs(sum(row["advantage"] for row in group)) > 1e-3 * sum(abs(row["advantage"]) for row in group)
        for group in groups(batch)
        if mixed(group) and all(known(row["advantage"]) for row in group)
    )


def effective(batch):
    weights = [np.exp(row["logp"] - row["sampler_logp"]) for row in rows(batch)]
    return sum(weights) ** 2 / sum(w * w for w in weights) / len(weights)


def length_reward(batch):
    x, y = [], []
    for group in groups(batch):
        for verdict in (0, 1):
            alike = [row for row in group if row["correct"] == verdict and row["n_tokens"] > 0]
            x += [row["n_tokens"] - mean(r["n_tokens"] for r in alike) for row in alike]
            y += [row["reward"] - mean(r["reward"] for r in alike) for row in alike]
    return np.dot(x, y) / (np.dot(x, x) * np.dot(y, y)) ** 0.5


def coherence(batch):
    kept = [row for row in rows(batch) if row["n_tokens"] > 0 and known(row["entropy"])]
    return np.corrcoef([row["n_tokens"] * row["entropy"] for row in kept], [-row["logp"] for row in kept])[0, 1]


BY_HAND = {
    "entropy": lambda b: token_mean(b, lambda row: row["entropy"] * row["n_tokens"]),
    "surprisal": lambda b: token_mean(b, lambda row: -row["logp"]),
    "mismatch": lambda b: token_mean(b, lambda row: row["sampler_logp"] - row["logp"]),
    "reward": lambda b: mean(row["reward"] for row in rows(b)),
    "accuracy": lambda b: mean(row["correct"] for row in rows(b) if known(row["correct"])),
    "length": lambda b: mean(row["n_tokens"] for row in rows(b)),
    "truncated": lambda b: mean(row["truncated"] for row in rows(b) if known(row["truncated"])),
    "distinct_logp": lambda b: mean(len({row["logp"] for row in group}) > 1 for group in groups(b)),
    "distinct_entropy": lambda b: mean(
        len({row["entropy"] for row in group if known(row["entropy"])}) > 1
        for group in groups(b)
        if any(known(row["entropy"]) for row in group)
    ),
    "zero_signal": lambda b: mean(not mixed(group) for group in groups(b)),
    "all_solved": lambda b: mean(
        all(row["correct"] for row in group if known(row["correct"]))
        for group in groups(b)
        if any(known(row["correct"]) for row in group)
    ),
    "none_solved": lambda b: mean(
        not any(row["correct"] for row in group if known(row["correct"]))
        for group in groups(b)
        if any(known(row["correct"]) for row in group)
    ),
    "cut_and_wrong": lambda b: mean(
        row["truncated"] == 1 and row["correct"] == 0 for row in rows(b) if known(row["truncated"], row["correct"])
    ),
    "cut_failures": lambda b: mean(
        row["truncated"] == 1 for row in rows(b) if row["correct"] == 0 and known(row["truncated"])
    ),
    "lost_to_limit": lost,
    "channel_ratio": channel_ratio,
    "mean_advantage": lambda b: (
        mean(row["advantage"] for row in rows(b) if known(row["advantage"]))
        / mean(row["advantage"] ** 2 for row in rows(b) if known(row["advantage"])) ** 0.5
    ),
    "uncentred": uncentred,
    "phantom_low": lambda b: phantom(b, False),
    "phantom_high": lambda b: phantom(b, True),
    "inverted": inverted,
    "effective_sample": effective,
    "increment": lambda b: increments(b, 1),
    "increment_wrong": lambda b: increments(b, 0),
    "length_reward": length_reward,
    "coherence": coherence,
}


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_is_what_loops_give(batch, name):
    assert MEASURES[name](Step(batch)) == pytest.approx(BY_HAND[name](batch), nan_ok=True)


@pytest.mark.parametrize("name", sorted(set(MEASURES) - {"reward", "zero_signal"}))
def test_a_measure_of_nothing_is_none(name):
    nothing = {column: np.full(4, np.nan) for column in COLUMNS} | {"reward": np.array([0.0, 1.0, 0.0, 0.0])}
    assert np.isnan(MEASURES[name](Step(GroupBatch(0, nothing, {}, np.array([0, 2])))))


def test_a_sketch_does_not_depend_on_order_and_tells_groups_apart():
    rng = np.random.default_rng(1)
    logp = rng.normal(size=800)
    whole = sketch(GroupBatch(0, {"logp": logp}, {}, np.arange(0, 800, 8)))
    turned = logp.reshape(100, 8)[::-1, ::-1].ravel()
    assert whole.tolist() == sketch(GroupBatch(1, {"logp": turned}, {}, np.arange(0, 800, 8))).tolist()
    assert len(set(whole.tolist())) == 64
    other = sketch(GroupBatch(1, {"logp": logp + 1e-9}, {}, np.arange(0, 800, 8)))
    assert not set(whole.tolist()) & set(other.tolist())


def test_the_tables_name_only_what_there_is():
    for name, signal in SIGNALS.items():
        assert set(signal.columns) <= set(ROLLOUTS), name
        assert (name in MEASURES) == bool(signal.columns), name
    assert set(BY_HAND) == set(MEASURES)
    for check in CHECKS.values():
        assert {name for names in check.needs for name in names} <= set(SIGNALS)
        assert re.fullmatch(r"(arXiv \d{4}\.\d{5}(, )?)+|docs/diagnosis\.md", check.reference)
        assert {setting for text in check.advice for setting in re.findall(r"\{(\w+)\}", text)} <= set(_SPOKEN)


def test_the_table_of_frameworks_names_only_what_there_is():
    table = tomllib.loads((Path(package.__file__).parent / "frameworks.toml").read_text())
    for framework, parts in table.items():
        assert set(parts) <= {"settings", "metrics"}
        assert set(parts.get("settings", {})) <= set(_SPOKEN), framework
        assert set(parts.get("metrics", {})) <= set(SIGNALS), framework
    assert spoken("clip_high", "verl") == "the upper clip range (actor_rollout_ref.actor.clip_ratio_high)"
    assert metric_names("entropy", "trl") == ()  # the reader gives it our name


def test_the_page_tells_every_check():
    page = (ROOT / "docs" / "diagnosis.md").read_text(encoding="utf-8")
    for check in CHECKS.values():
        assert f"`{check.name}`" in page
        for reference in re.findall(r"\d{4}\.\d{5}", check.reference):
            assert reference in page
