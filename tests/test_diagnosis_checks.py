"""Every check on made-up series: true, false, and undecidable."""

import numpy as np
import pytest

import entropy_lab as el
from entropy_lab.diagnosis.exchange import fit_exchange
from entropy_lab.diagnosis.finding import Undecided
from entropy_lab.diagnosis.observed import Observed
from entropy_lab.diagnosis.series import Series
from entropy_lab.run import open_run
from tests.made_up_series import FALLING, HEALTHY, NOISE, RISING, STILL, T, ask, shares, wobbling


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of which only the method is looked at: what checks read is given as series."""
    writer = el.RunWriter(tmp_path_factory.mktemp("diagnosis") / "run", method={"name": "grpo", "params": {}})
    return open_run(writer.path)


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
