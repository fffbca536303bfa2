"""Every check on small runs: true, false, and undecidable."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import entropy_lab as el
from entropy_lab.diagnosis.diagnose import judged
from entropy_lab.diagnosis.exchange import fit_exchange
from entropy_lab.diagnosis.finding import NOTE, Undecided
from entropy_lab.diagnosis.observed import Observed, observe
from entropy_lab.diagnosis.registry import CHECKS
from entropy_lab.diagnosis.series import Series
from entropy_lab.diagnosis.signals import SIGNALS
from entropy_lab.diagnosis.wording import markdown
from entropy_lab.errors import RunFormatError
from entropy_lab.run import Run, open_run

T = np.arange(60.0)
RNG = np.random.default_rng(0)
NOISE = RNG.normal(size=(8, 60))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of which only the method is looked at: what checks read is given as series."""
    writer = el.RunWriter(tmp_path_factory.mktemp("diagnosis") / "run", method={"name": "grpo", "params": {}})
    return open_run(writer.path)


def wobbling(values, size=0.02, row=0):
    return np.asarray(values) * (1 + size * NOISE[row])


def ask(name, run, baseline=None, **series):
    """What one check says of a run that has these series, and nothing else."""
    made = {key: Series.of(T[: len(values)], values, f"test: {key}") for key, values in series.items()}
    return CHECKS[name].judge(Observed(run, made, baseline=baseline))


RISING = wobbling(0.3 + 0.5 * (1 - np.exp(-T / 20)), row=1)
STILL = wobbling(np.full(60, 0.5), row=2)
HEALTHY = wobbling(0.5 + 0.5 * np.exp(-T / 25))
FALLING = wobbling(np.exp(-np.maximum(T - 20, 0) / 35))


def test_entropy_that_falls_while_the_reward_stands_still_collapses(run):
    found = ask("collapse", run, entropy=FALLING, reward=STILL)
    assert found.what.startswith("entropy goes on falling while the reward stands still")
    assert found.evidence[0].value == pytest.approx(np.exp(-37 / 35), rel=0.1)


def test_entropy_that_is_paid_for_does_not(run):
    assert ask("collapse", run, entropy=HEALTHY, reward=RISING) is None
    assert ask("collapse", run, entropy=STILL, reward=STILL) is None


def test_entropy_that_is_spent_collapses_whatever_the_reward_does(run):
    spent = wobbling(np.exp(-np.maximum(T - 30, 0) / 8))
    found = ask("collapse", run, entropy=spent, reward=RISING)
    assert found.what.startswith("entropy is spent")
    assert found.since.low <= 30 <= found.since.high
    assert ask("collapse", run, entropy=spent, reward=RISING, all_solved=np.full(60, 0.97)) is None


def test_collapse_beside_a_baseline_that_does_not(run):
    baseline = Observed(run, {"entropy": Series.of(T, wobbling(np.ones(60), row=3), "")})
    halved = wobbling(0.35 + 0.65 * np.exp(-T / 25))
    assert ask("collapse", run, entropy=halved, reward=RISING) is None
    assert "baseline" in ask("collapse", run, baseline, entropy=halved, reward=RISING).what


def test_collapse_is_judged_by_surprisal_without_an_entropy_and_not_at_all_by_zeros(run):
    assert ask("collapse", run, surprisal=FALLING, reward=STILL) is not None
    assert isinstance(ask("collapse", run, entropy=np.zeros(60), reward=STILL), Undecided)
    assert isinstance(ask("collapse", run, entropy=HEALTHY[:8], reward=RISING[:8]), Undecided)


def test_entropy_that_rises_while_the_reward_falls_explodes_and_its_onset_is_first(run):
    entropy = wobbling(0.5 * np.exp(np.maximum(T - 25, 0) / 15))
    reward = wobbling(0.8 / (1 + np.exp((T - 42) / 3)), row=1)
    found = ask("explosion", run, entropy=entropy, reward=reward)
    assert found.severity == "critical"
    assert found.since.low <= 25 <= found.since.high
    fall = next(measure for measure in found.evidence if "step of the fall" in measure.label)
    assert found.since.step < fall.value == pytest.approx(42, abs=3)


def test_an_explosion_of_a_few_steps_is_one(run):
    entropy = np.concatenate([[0.4, 0.41, 0.46, 0.55, 0.68, 0.66], 0.6 - 0.005 * T[:54]])
    reward = np.concatenate([[0.37, 0.25, 0.19, 0.08], np.full(56, 0.01)])
    assert ask("explosion", run, entropy=wobbling(entropy), reward=reward).severity == "critical"


def test_entropy_that_rises_with_the_reward_or_comes_back_does_not_explode(run):
    dip = 1 - 0.6 * np.exp(-((T - 20) ** 2) / 50)
    assert ask("explosion", run, entropy=wobbling(dip), reward=RISING) is None
    assert ask("explosion", run, entropy=HEALTHY[::-1], reward=RISING) is None
    doubled = wobbling(0.3 * np.exp(T / 40))
    assert ask("explosion", run, entropy=doubled, reward=STILL).severity == "warning"
    assert ask("explosion", run, entropy=doubled, reward=RISING) is None


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (-3.0, 5.0)])
def test_a_fall_of_the_reward_counts_by_its_own_scale(run, shift, scale):
    path = np.where(T < 30, 0.3 + 0.4 * T / 30, 0.3)
    found = ask("reward_fall", run, reward=shift + scale * (path + 0.01 * NOISE[4]))
    assert found.since.step == pytest.approx(30, abs=1)
    assert ask("reward_fall", run, reward=shift + scale * (RISING + 0.01 * NOISE[4])) is None


def test_validation_accuracy_falls_where_the_reward_does_not(run):
    falling = np.where(T < 40, 0.6, 0.3) + 0.01 * NOISE[5]
    assert "validation" in ask("reward_fall", run, reward=RISING, validation=falling).what


def test_the_exchange_is_exhausted_only_where_it_is_identified_and_spent(run):
    spent = np.exp(-T / 12)
    reward = 0.9 - 0.3 * np.exp(spent) + 0.004 * NOISE[2]
    found = ask("exchange_exhausted", run, entropy=spent, reward=reward)
    a = found.evidence[0]
    assert a.low < 0.3 < a.high
    left = 0.6 + 0.4 * np.exp(-T / 12)
    assert ask("exchange_exhausted", run, entropy=left, reward=0.9 - 0.3 * np.exp(left) + 0.002 * NOISE[2]) is None
    unrelated = ask("exchange_exhausted", run, entropy=wobbling(np.ones(60)), reward=STILL)
    assert unrelated.why.startswith("R = -a exp(H) + b is not identified")


def test_the_interval_of_the_exchange_covers():
    rng = np.random.default_rng(1)
    h = np.exp(-np.arange(80) / 40)
    fits = [fit_exchange(h, 0.8 - 0.2 * np.exp(h) + 0.05 * rng.normal(size=80)) for _ in range(200)]
    assert np.mean([fit.low <= 0.2 <= fit.high for fit in fits]) > 0.9
    assert np.isnan(fit_exchange(np.ones(9), np.arange(9.0)).a)


def shares(level, row=0):
    return np.clip(level + 0.03 * NOISE[row], 0, 1)


def test_prompts_are_too_easy_from_the_start_or_when_nothing_is_left(run):
    assert ask("all_solved", run, all_solved=shares(0.7), reward=shares(0.95, 1)) is not None
    plateau = shares(0.2 + 0.7 * (T > 30))
    assert ask("all_solved", run, all_solved=plateau, reward=STILL) is not None
    assert ask("all_solved", run, all_solved=plateau, reward=RISING + 0.01 * np.maximum(T - 40, 0)) is None
    assert ask("all_solved", run, all_solved=shares(0.5 - 0.3 * np.exp(-T / 20)), reward=RISING) is None


def test_prompts_are_too_hard_from_the_start_not_because_a_run_broke_down(run):
    assert ask("none_solved", run, none_solved=shares(0.8), reward=shares(0.05, 1)) is not None
    broken = shares(0.2 + 0.8 * (T > 5))
    assert ask("none_solved", run, none_solved=broken, reward=shares(0.6 - 0.6 * (T > 5), 1)) is None


def test_pairs_that_agree_by_chance_are_neither_too_hard_nor_too_easy(run):
    assert ask("none_solved", run, none_solved=shares(0.56), reward=shares(0.3, 1)) is None
    assert ask("all_solved", run, all_solved=shares(0.56), reward=shares(0.7, 1)) is None


def test_zero_signal_and_reward_bound_the_shares(run):
    silent = shares(0.9)
    assert ask("none_solved", run, zero_signal=silent, reward=shares(0.05, 1)) is not None
    assert ask("none_solved", run, zero_signal=silent, reward=shares(0.9, 1)) is None
    assert ask("all_solved", run, zero_signal=silent, reward=shares(0.95, 1)) is not None
    assert isinstance(ask("all_solved", run, zero_signal=silent, reward=shares(0.9, 1) - 2), Undecided)


@pytest.mark.parametrize(("level", "found"), [(0.002, False), (0.05, False), (0.2, True)])
def test_clipping_saturates(run, level, found):
    case = ask("clipping", run, clipped=np.where(T < 30, 0.001, level) + 0.0005 * np.abs(NOISE[0]))
    assert (case is not None) is found
    if found:
        assert case.since.low <= 30 <= case.since.high


def test_a_mismatch_counts_by_the_entropy(run):
    divergence = 0.02 + 0.002 * NOISE[0]
    assert ask("mismatch", run, mismatch=divergence, entropy=np.full(60, 0.5)).severity == "warning"
    assert ask("mismatch", run, mismatch=divergence, entropy=np.full(60, 0.1)).severity == "critical"
    assert ask("mismatch", run, mismatch=divergence, entropy=np.full(60, 10.0)) is None
    assert ask("mismatch", run, mismatch=0.02 * NOISE[0], entropy=np.full(60, 0.5)) is None
    assert isinstance(ask("mismatch", run, mismatch=divergence[:4], entropy=np.ones(60)), Undecided)


def test_correct_rollouts_are_displaced(run):
    wrong = np.full(60, -0.02)
    lost = ask("displacement", run, increment=-0.01 + 0.002 * NOISE[0], increment_wrong=wrong)
    assert lost.evidence[0].value == pytest.approx(-0.01, rel=0.3)
    assert ask("displacement", run, increment=0.01 + 0.002 * NOISE[0], increment_wrong=wrong) is None
    assert ask("displacement", run, increment=0.002 * NOISE[0], increment_wrong=wrong) is None


def test_the_limit_cuts_off_failures_or_costs_accuracy(run):
    cut = {"cut_and_wrong": shares(0.4), "cut_failures": shares(0.8, 1)}
    assert "cuts off 4" in ask("truncation", run, **cut).what
    assert "accuracy" in ask("truncation", run, cut_and_wrong=shares(0.05), lost_to_limit=shares(0.1, 1)).what
    assert ask("truncation", run, cut_and_wrong=shares(0.2), cut_failures=shares(0.3, 1)) is None


def test_by_scalars_truncation_counts_where_it_grew_and_the_reward_fell(run):
    grown = shares(0.1 + 0.7 * T / 60)
    assert ask("truncation", run, truncated=grown, reward=RISING[::-1]) is not None
    assert ask("truncation", run, truncated=grown, reward=RISING) is None
    assert ask("truncation", run, truncated=shares(0.9), reward=RISING[::-1]) is None
    assert isinstance(ask("truncation", run, truncated=grown), Undecided)


def test_lengths_drift_without_a_gain_or_for_pay(run):
    longer = wobbling(100 + 100 * T / 60)
    assert "longer" in ask("length_drift", run, length=longer, accuracy=STILL).what
    assert "shorter" in ask("length_drift", run, length=longer[::-1], accuracy=STILL).what
    assert ask("length_drift", run, length=longer, accuracy=RISING) is None
    assert "pays" in ask("length_drift", run, length=longer, accuracy=RISING, length_reward=shares(0.9, 3)).what
    assert ask("length_drift", run, length=wobbling(np.full(60, 100.0)), accuracy=STILL) is None


def method(tmp_path, name, **params):
    writer = el.RunWriter(tmp_path / name, method={"name": name, "params": params})
    return open_run(writer.path)


def test_channels_out_of_balance(run, tmp_path):
    ratio = np.log(5) + 0.1 * NOISE[0]
    assert "positive channel outweighs" in ask("sign_imbalance", run, channel_ratio=ratio).what
    assert "negative channel outweighs" in ask("sign_imbalance", run, channel_ratio=-ratio).what
    assert ask("sign_imbalance", run, channel_ratio=ratio / 5) is None
    assert ask("sign_imbalance", method(tmp_path, "reinforce"), channel_ratio=ratio) is None
    only = ask("sign_imbalance", method(tmp_path, "nsr"), channel_ratio=np.full(60, np.log(1e-3)))
    assert only.what == "only the negative channel trains"


def test_advantages_off_centre_count_by_what_the_estimator_promises(run, tmp_path):
    off = {"uncentred": np.full(60, 0.9), "mean_advantage": 0.4 + 0.01 * NOISE[0]}
    assert ask("non_centred", run, **off).severity == "critical"
    assert ask("non_centred", method(tmp_path, "unheard_of"), **off).severity == "warning"
    assert ask("non_centred", method(tmp_path, "asym_grpo"), **off) is None
    assert ask("non_centred", method(tmp_path, "entropy_target"), **off) is None
    assert ask("non_centred", run, uncentred=np.zeros(60), mean_advantage=0.01 * NOISE[0]) is None
    assert ask("non_centred", run, **off, inverted=np.full(60, 0.8)) is None  # another check's finding


def test_advantages_in_unanimous_groups_count_by_what_the_estimator_promises(run, tmp_path):
    bad = {"phantom_low": np.ones(60), "uncentred": np.zeros(60)}
    assert "every rollout failed" in ask("phantom_advantages", run, **bad).what
    assert ask("phantom_advantages", method(tmp_path, "unheard_of"), **bad).severity == "warning"
    assert ask("phantom_advantages", method(tmp_path, "reinforce"), **bad) is None
    assert ask("phantom_advantages", run, phantom_low=np.zeros(60), phantom_high=np.zeros(60)) is None
    meant = {"phantom_low": np.ones(60), "uncentred": np.full(60, 0.9)}
    assert isinstance(ask("phantom_advantages", method(tmp_path, "another"), **meant), Undecided)


def test_rows_are_misaligned(run):
    assert "more reward got less" in ask("misaligned_rows", run, inverted=np.full(60, 0.5)).what
    assert "correlation" in ask("misaligned_rows", run, coherence=0.03 * NOISE[0]).what
    assert ask("misaligned_rows", run, inverted=np.zeros(60), coherence=shares(0.8)) is None


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
