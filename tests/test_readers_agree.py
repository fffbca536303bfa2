"""Formats that hold the same rollouts say the same, value by value: our samples, and files of the real frameworks."""

from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from entropy_lab.readers import open_any
from tests import foreign_token_samples as samples

FOREIGN = Path(__file__).parent.parent.parent / "shared" / "data" / "foreign"

HAVE = {
    "nemo_rl": {"reward", "advantage", "logp", "sampler_logp"},
    "prime_rl": {"advantage", "logp", "sampler_logp", "entropy"},
    "slime": {"reward", "advantage", "logp", "sampler_logp", "entropy", "truncated"},
    "open_instruct": {"reward", "advantage", "sampler_logp", "truncated"},
    "skyrl": {"advantage", "logp", "sampler_logp"},
}
"""What each format says of rollouts, beside their tokens and groups."""
PAIRS = list(combinations(HAVE, 2))

LISTS = {"logp": "token_logp", "entropy": "token_entropy", "sampler_logp": "token_sampler_logp"}
WRITE = {
    "nemo_rl": samples.nemo_rl,
    "prime_rl": samples.prime_rl_exports,
    "slime": samples.slime,
    "open_instruct": samples.open_instruct,
    "skyrl": samples.skyrl,
}


def ordered(run):
    frame = run.scan().collect()
    return frame.sort("step", "prompt_id", pl.col("token_ids").list.eval(pl.element().cast(pl.String)).list.join(" "))


def partition(frame):
    """Groups as sets of rollouts, whatever their numbers are."""
    groups = frame.group_by("step", "group_id").agg(pl.col("token_ids"), pl.col("prompt_id"))
    return sorted((step, sorted(prompts), sorted(map(tuple, ids))) for step, _, ids, prompts in groups.iter_rows())


def agree(first, second, common):
    assert first["token_ids"].to_list() == second["token_ids"].to_list()
    assert first["n_tokens"].to_list() == second["n_tokens"].to_list()
    assert partition(first) == partition(second)
    for name in common:
        np.testing.assert_allclose(first[name], second[name], rtol=1e-6, err_msg=name)
        if name in LISTS:
            one, two = (frame[LISTS[name]].explode() for frame in (first, second))
            np.testing.assert_allclose(one, two, rtol=1e-6, err_msg=LISTS[name])
    if "reward" in common:
        assert first["correct"].to_list() == second["correct"].to_list()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    return {name: ordered(open_any(write(root / name, (1, 2, 3)))) for name, write in WRITE.items()}


@pytest.mark.parametrize("name", HAVE)
def test_every_format_says_what_was_written(made, name):
    frame = made[name]
    want = [one for step in (1, 2, 3) for one in samples.rollouts(step)]
    assert frame.height == len(want)
    assert set(HAVE[name]) <= set(frame.columns)
    known = {(one["advantage"], tuple(one["response"]), tuple(one["sampler"])): one for one in want}
    for row in frame.iter_rows(named=True):
        key = next(k for k in known if k[1] == tuple(row["token_ids"]) and np.allclose(k[2], row["token_sampler_logp"]))
        one = known.pop(key)
        said = {
            "reward": one["reward"],
            "advantage": one["advantage"],
            "logp": sum(one["logp"]),
            "sampler_logp": sum(one["sampler"]),
            "entropy": np.mean(one["entropy"]),
        }
        for column in HAVE[name] & said.keys():
            assert row[column] == pytest.approx(said[column], rel=1e-6, abs=1e-7), column
    assert not known


@pytest.mark.parametrize(("one", "two"), PAIRS)
def test_formats_agree(made, one, two):
    agree(made[one], made[two], HAVE[one] & HAVE[two])


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    if not FOREIGN.exists():
        pytest.skip("needs ../shared/data/foreign")
    root = tmp_path_factory.mktemp("real")
    return {name: ordered(open_any(FOREIGN / name, out=root / name)) for name in HAVE}


@pytest.mark.parametrize(("one", "two"), PAIRS)
def test_files_of_the_real_frameworks_agree(real, one, two):
    assert real[one].height == 128
    agree(real[one], real[two], HAVE[one] & HAVE[two])


@pytest.mark.parametrize("name", HAVE)
def test_they_agree_with_the_run_of_verl_that_they_were_made_from(real, tmp_path, name):
    verl = open_any(FOREIGN / "verl" / "hook", out=tmp_path / "verl").scan().collect()
    keys = [
        frame.select("step", "n_tokens", pl.col("advantage").round(5), pl.col("token_ids").list.eval(pl.element() + 0))
        for frame in (verl, real[name])
    ]
    one, two = (sorted((step, n, a, tuple(ids)) for step, n, a, ids in frame.iter_rows()) for frame in keys)
    assert [row[:2] + row[3:] for row in one] == [row[:2] + row[3:] for row in two]
    np.testing.assert_allclose([row[2] for row in one], [row[2] for row in two], atol=2e-5)
    for column in HAVE[name] & {"logp", "entropy", "reward"}:
        np.testing.assert_allclose(verl[column].sort(), real[name][column].sort(), rtol=1e-5, err_msg=column)
