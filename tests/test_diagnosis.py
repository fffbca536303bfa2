"""Diagnoses of whole runs: of any series, of rollouts in files, beside a baseline; what is missing is named."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import entropy_lab as el
from entropy_lab.diagnosis.diagnose import judged
from entropy_lab.diagnosis.finding import NOTE
from entropy_lab.diagnosis.observed import Observed, observe
from entropy_lab.diagnosis.registry import CHECKS
from entropy_lab.diagnosis.series import Series
from entropy_lab.diagnosis.signals import SIGNALS
from entropy_lab.diagnosis.wording import markdown
from entropy_lab.errors import RunFormatError
from entropy_lab.run import Run, open_run
from tests.made_up_series import FALLING, HEALTHY, RISING, STILL, T


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of which only the method is looked at: what checks read is given as series."""
    writer = el.RunWriter(tmp_path_factory.mktemp("diagnosis") / "run", method={"name": "grpo", "params": {}})
    return open_run(writer.path)


NOTHING = Run(Path("nowhere"))
NOTHING.info = {"format": "entropy-lab/run", "version": 1, "method": {"name": "grpo", "params": {}}}
KINDS = ("absent", "constant", "zero", "noise", "positive", "spiky", "wandering")


def some_series(kind, n, scale, rng):
    noise = rng.normal(size=n)
    made = {
        "constant": np.ones(n),
        "zero": np.zeros(n),
        "noise": noise,
        "positive": np.abs(noise) + 1e-3,
        "spiky": np.where(rng.random(n) < 0.1, 1e4, 1.0),
        "wandering": np.cumsum(noise),
    }
    return scale * made[kind]


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_no_series_breaks_a_diagnosis(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    series = {}
    for name in SIGNALS:
        kind = data.draw(st.sampled_from(KINDS))
        n = data.draw(st.sampled_from([1, 3, 7, 8, 12, 30, 60, 300]))
        scale = data.draw(st.sampled_from([1e-9, 0.3, 1.0, 1e3]))
        if kind != "absent":
            series[name] = Series.of(np.arange(float(n)), some_series(kind, n, scale, rng), f"test: {name}")
    observed = Observed(NOTHING, series)
    found = judged(observed)
    json.dumps(found.as_dict(), allow_nan=False)
    markdown(found)
    assert len(found.findings) + len(found.fine) + len(found.skipped) == len(CHECKS)


def rollouts(n_groups=6, size=4, seed=0, **changes):
    """Healthy rollouts of one step, as columns."""
    rng = np.random.default_rng(seed)
    correct = rng.random((n_groups, size)) < 0.5
    n_tokens = rng.integers(2, 6, (n_groups, size))
    token_logp = [(-rng.random(n)).tolist() for n in n_tokens.ravel()]
    columns = {
        "prompt_id": np.repeat([f"q{i}" for i in range(n_groups)], size),
        "group_id": np.repeat(np.arange(n_groups), size),
        "sample": np.tile(np.arange(size), n_groups),
        "reward": correct.ravel().astype(float),
        "correct": correct.ravel(),
        "advantage": el.advantages.get("grpo")(correct.astype(float)).ravel(),
        "n_tokens": n_tokens.ravel(),
        "token_ids": [rng.integers(0, 1000, n).tolist() for n in n_tokens.ravel()],
        "token_logp": token_logp,
        "logp": [sum(values) for values in token_logp],
    }
    return columns | changes


def write(path, steps, **info):
    writer = el.RunWriter(path, method={"name": "grpo", "params": {}}, **info)
    for step, columns in enumerate(steps):
        writer.write_rollouts(step, columns)
    return path


def test_steps_recorded_twice_are_named(tmp_path):
    steps = [rollouts(seed=seed) for seed in (0, 1, 2, 1, 3, 0)]
    found = el.diagnose(write(tmp_path / "run", steps))
    assert found.alarms() == ("duplicated_rows",)
    assert found.findings[0].what.endswith("3 repeats 1, 5 repeats 0")
    assert "duplicated_rows" in el.diagnose(write(tmp_path / "clean", [rollouts(seed=s) for s in range(4)])).fine


def test_a_policy_without_entropy_repeats_itself_rightly(tmp_path):
    sure = rollouts(logp=[-0.001] * 24, token_logp=None)
    del sure["token_logp"], sure["token_ids"]
    found = el.diagnose(write(tmp_path / "run", [sure, sure]))
    assert "duplicated_rows" not in found
    assert "duplicated_rows" in [skip.name for skip in found.skipped]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"logp": [-0.5] * 24}, "logp is not the sum of token_logp"),
        ({"n_tokens": np.full(24, 7)}, "token_ids has another length than n_tokens"),
        ({"token_ids": [[1, 2]] * 24}, "equal responses of a group have unequal log-probabilities"),
    ],
)
def test_tokens_are_held_against_their_totals(tmp_path, changes, said):
    found = el.diagnose(write(tmp_path / "run", [rollouts(seed=seed, **changes) for seed in range(3)]))
    case = next(finding for finding in found.findings if finding.name == "misaligned_rows")
    assert said in [measure.label for measure in case.evidence]


def test_advantages_of_other_rows_are_misaligned_not_phantom(tmp_path):
    steps = [
        rollouts(seed=s, advantage=np.random.default_rng(s).permutation(rollouts(seed=s)["advantage"]))
        for s in range(6)
    ]
    assert el.diagnose(write(tmp_path / "run", steps)).alarms() == ("misaligned_rows",)


def test_what_is_missing_is_named_with_how_to_record_it(tmp_path):
    writer = el.RunWriter(tmp_path / "run", method={"name": "unknown", "params": {}})
    for step in range(20):
        writer.write_metrics({"step": step, "entropy": 0.5, "reward": 0.3})
    file = writer.path / "run.json"
    how = {"rollouts": "switch them on", "advantage": "a hook"}
    text = file.read_text().rstrip()[:-1]
    file.write_text(text + ', "imported": {"format": "trl", "how_to_record": ' + str(how).replace("'", '"') + "}}")
    found = el.diagnose(writer.path)
    skip = next(one for one in found.skipped if one.name == "sign_imbalance")
    assert (skip.why, skip.missing) == ("needs rollouts with advantage", ("rollouts", "advantage"))
    assert dict(skip.record) == how
    assert found.framework == "trl"
    assert set(found.fine) | {one.name for one in found.skipped} == set(CHECKS)


def test_advice_speaks_the_frameworks_language(tmp_path, run):
    series = {"entropy": FALLING, "reward": STILL}
    observed = Observed(run, {name: Series.of(T, values, "") for name, values in series.items()})
    assert "--clip-high" in judged(observed).findings[0].change[0]
    run.info["imported"] = {"format": "verl"}
    try:
        assert "actor_rollout_ref.actor.clip_ratio_high" in judged(observed).findings[0].change[0]
    finally:
        del run.info["imported"]


def test_what_a_healthy_baseline_shows_too_is_a_note(run):
    observed = Observed(run, {"entropy": Series.of(T, FALLING, ""), "reward": Series.of(T, STILL, "")})
    beside = judged(observed, observed)
    assert [(one.name, one.severity) for one in beside.findings] == [("collapse", NOTE)]
    assert beside.alarms() == ()
    other = Observed(run, {"entropy": Series.of(T, HEALTHY, ""), "reward": Series.of(T, RISING, "")})
    assert judged(observed, other).findings[0].baseline == "the baseline does not show it"
    unknown = Observed(run, {"reward": Series.of(T, RISING, "")})
    assert judged(observed, unknown).findings[0].baseline == "the baseline cannot be judged"


def test_the_longer_of_two_sources_counts(tmp_path):
    path = write(tmp_path / "run", [rollouts(seed=seed) for seed in range(3)])
    writer = el.RunWriter.resume(path, after=2)
    for step in range(10):
        writer.write_metrics({"step": step, "reward": 0.1 * step, "frac_reward_zero_std": 0.5})
    series = observe(open_run(path)).series
    assert series["reward"].source == "metrics: reward"
    assert series["zero_signal"].source == "metrics: frac_reward_zero_std"
    assert series["accuracy"].source == "rollouts: correct"


def test_a_run_with_nothing_to_look_at_is_refused(tmp_path):
    writer = el.RunWriter(tmp_path / "run", method={"name": "grpo", "params": {}})
    with pytest.raises(RunFormatError, match="holds nothing to diagnose"):
        el.diagnose(writer.path)


def test_invalid_rows_are_left_out_and_told(tmp_path):
    path = write(tmp_path / "run", [rollouts(seed=seed) for seed in range(3)])
    file = path / "rollouts" / "step-000001.parquet"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(RunFormatError):
        el.diagnose(path)
    found = el.diagnose(open_run(path, skip_invalid=True))
    assert found.n_rollouts == 48
    assert "step-000001" in found.left_out[0]
