"""What estimators take, give back and refuse, and what they say of themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from entropy_lab.advantages import get, names
from entropy_lab.advantages.parameters import ranges
from entropy_lab.advantages.registry import ESTIMATORS
from entropy_lab.errors import ParameterError, UnknownNameError
from tests.solved_groups import all_groups, group

# --- what goes in and what comes out


@pytest.mark.parametrize("name", names())
def test_lists_float32_integers_and_booleans_are_the_same_rewards(name):
    estimator, rewards = get(name), all_groups()
    expected = estimator(rewards)
    assert expected.dtype == np.float64
    for same in (rewards.tolist(), rewards.astype(np.float32), rewards.astype(np.int8), rewards.astype(bool)):
        assert_array_equal(estimator(same), expected)


@pytest.mark.parametrize("name", names())
def test_empty_batches_give_empty_advantages(name):
    for empty in (np.zeros((0, 8)), np.zeros((3, 0))):
        assert get(name)(empty).shape == empty.shape
    assert get(name)([]).shape == (0,)
    assert get(name)([], groups=[]).shape == (0,)


@pytest.mark.parametrize(
    ("name", "correct", "wrong"),
    [
        ("reinforce", 1, -1),
        ("grpo", 0, 0),
        ("asym_grpo", 0, 0),
        ("pos_only", 0, -1),
        ("neg_only", 1, 0),
        ("ent_decrease", 0, 0),
        ("ent_increase", 0, 0),
        ("dr_grpo", 0, 0),
        ("rloo", 0, 0),
        ("psr", 1, 0),
        ("nsr", 0, -1),
        ("w_reinforce", 0.1, -1),
        ("qae", 0, 0),
        ("a_grae", 0, 0),
        ("token_asym_grpo", 0, 0),
        ("entropy_advantage", 0, 0),
    ],
)
def test_groups_of_one_get_what_is_documented(name, correct, wrong):
    assert_array_equal(get(name)([[1], [0]]), [[correct], [wrong]])


def test_inputs_are_not_written_to():
    rewards = all_groups()
    before = rewards.copy()
    for name in names():
        get(name)(rewards)
    assert_array_equal(rewards, before)


@pytest.mark.parametrize(
    ("name", "rewards", "groups", "message"),
    [
        ("grpo", [[1.0, math.nan]], None, "rewards contain nan"),
        ("grpo", [[1.0, -math.inf]], None, "rewards contain -inf"),
        ("grpo", [["1", "0"]], None, "rewards have dtype"),
        ("grpo", [[1, None]], None, "rewards have dtype object"),
        ("grpo", [[1, 0], [1]], None, "not a rectangular array"),
        ("grpo", [1, 0, 1], [[0], [0, 1]], "groups are not a rectangular array"),
        ("grpo", [1, 0], None, "came without groups"),
        ("grpo", 1.0, None, r"rewards have shape \(\)"),
        ("grpo", np.zeros((2, 2, 2)), None, r"rewards have shape \(2, 2, 2\)"),
        ("grpo", [1, 0, 1], [0, 0], "groups have shape"),
        ("grpo", [[1, 0]], [0], "groups go with 1-D rewards"),
        ("grpo", [[1, 0]], [[0, 0]], "groups go with 1-D rewards"),
        ("grpo", [1, 0], [0.0, 0.5], "groups have dtype float64"),
    ],
)
def test_rewards_that_make_no_sense_are_refused(name, rewards, groups, message):
    with pytest.raises(ParameterError, match=message) as caught:
        get(name)(rewards, groups)
    assert str(caught.value).startswith(f"{name}: ")


@pytest.mark.parametrize("name", names())
def test_binary_estimators_refuse_graded_rewards_and_the_others_take_them(name):
    estimator, graded = get(name), [[0.5, 0.0, 1.0, 0.25]]
    if estimator.binary:
        with pytest.raises(ParameterError, match=r"rewards contain 0\.5; rewards in \{0, 1\}"):
            estimator(graded)
        with pytest.raises(ParameterError, match=r"rewards contain 0\.5"):
            estimator.keep(graded)
    else:
        assert np.isfinite(estimator(graded)).all()


def test_an_advantage_that_overflows_is_an_error_and_not_an_infinity():
    with pytest.raises(ParameterError, match="overflows"):
        get("asym_grpo", beta_pos=1000)(group(1))


# --- names and parameters


def test_every_estimator_of_the_specification_is_registered():
    assert set(names()) == {
        *("reinforce", "grpo", "asym_grpo", "pos_only", "neg_only", "ent_decrease", "ent_increase", "dr_grpo", "rloo"),
        *("pass_at_k", "psr", "nsr", "w_reinforce", "qae", "a_grae", "token_asym_grpo", "entropy_advantage"),
    }


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("reinforce", {}),
        ("grpo", {"ddof": 0, "eps": 0.0}),
        ("asym_grpo", {"beta_pos": 0.9, "beta_neg": 0.4}),
        ("pos_only", {"beta_pos": 0.5}),
        ("neg_only", {"beta_neg": 0.5}),
        ("ent_decrease", {"beta": 0.5}),
        ("ent_increase", {"beta": 0.5}),
        ("dr_grpo", {}),
        ("rloo", {}),
        ("pass_at_k", {"k": 4, "eps": 1e-6}),
        ("psr", {}),
        ("nsr", {}),
        ("w_reinforce", {"lam": 0.1}),
        ("qae", {"K": 0.4, "variant": "paper"}),
        ("a_grae", {"alpha": 1.0, "variant": "paper"}),
        ("token_asym_grpo", {"beta_pos": 0.9, "beta_neg": 0.4, "share": 0.2}),
        ("entropy_advantage", {"alpha": 0.4, "kappa": 2.0, "base": "grpo"}),
    ],
)
def test_params_hold_every_parameter_with_its_default(name, params):
    estimator = get(name)
    assert dict(estimator.params) == params
    assert list(params) == list(ranges(ESTIMATORS[name]))
    assert get(name, **estimator.params) == estimator
    assert hash(get(name, **estimator.params)) == hash(estimator)


@pytest.mark.parametrize("name", names())
def test_every_estimator_says_what_it_is_in_one_line(name):
    estimator = get(name)
    assert estimator.name == name
    assert estimator.formula.startswith(("A = ", "A_t = "))
    assert estimator.reference.startswith("arXiv:")
    for text in (estimator.formula, estimator.reference, estimator.label):
        assert text
        assert text.isprintable()


def test_labels_and_formulas_carry_the_parameters():
    assert get("asym_grpo").label == "AsymGRPO 0.9/0.4"
    assert get("pos_only", beta_pos=0.75).label == "Pos-Only 0.75"
    assert get("grpo").label == "GRPO"
    assert get("reinforce").formula == "A = 2r − 1"
    assert "^0.7" in get("asym_grpo", beta_pos=0.7).formula
    assert "1e-06" in get("grpo", ddof=1, eps=1e-6).formula
    assert get("pass_at_k", k=2).label == "Pass@2"
    assert get("token_asym_grpo", share=0.1).label == "AsymGRPO 0.9/0.4, top 10 % of tokens"


def test_different_parameters_make_different_estimators():
    assert get("grpo") != get("grpo", ddof=1)
    assert get("grpo") != get("dr_grpo")
    assert len({get("pos_only", beta_pos=b).label for b in (0, 0.25, 0.5, 1)}) == 4


def test_estimators_cannot_be_changed():
    estimator = get("grpo")
    with pytest.raises(TypeError):
        estimator.params["ddof"] = 1  # type: ignore[index]
    with pytest.raises(AttributeError):
        estimator.name = "mine"  # type: ignore[misc]


def test_only_dr_grpo_prescribes_another_aggregation():
    found = {name: get(name).aggregation for name in names()}
    assert found.pop("dr_grpo") == "seq-mean-token-sum-norm"
    assert set(found.values()) == {"token-mean"}


def test_an_unknown_name_lists_the_known_ones_and_hints_at_the_closest():
    with pytest.raises(UnknownNameError, match=r"Hint: did you mean asym_grpo\?") as caught:
        get("Asym-GRPO")
    assert all(name in str(caught.value) for name in names())
    with pytest.raises(UnknownNameError) as caught:
        get("zzz")
    assert "Hint" not in str(caught.value)


@pytest.mark.parametrize("name", names())
def test_an_unknown_parameter_lists_those_that_exist(name):
    with pytest.raises(ParameterError, match="there is no parameter 'temperature'") as caught:
        get(name, temperature=1.0)
    for parameter, allowed in ranges(ESTIMATORS[name]).items():
        assert f"{parameter} in {allowed}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("grpo", {"ddof": 2}),
        ("grpo", {"ddof": True}),
        ("grpo", {"eps": -1e-6}),
        ("asym_grpo", {"beta_pos": -0.1}),
        ("asym_grpo", {"beta_neg": math.nan}),
        ("asym_grpo", {"beta_neg": math.inf}),
        ("pos_only", {"beta_pos": "0.5"}),
        ("neg_only", {"beta_neg": None}),
        ("ent_decrease", {"beta": -1}),
        ("pass_at_k", {"k": 0}),
        ("pass_at_k", {"k": 4.0}),
        ("w_reinforce", {"lam": -0.1}),
        ("qae", {"K": 0}),
        ("qae", {"K": 1}),
        ("qae", {"variant": "Paper"}),
        ("a_grae", {"alpha": 0}),
        ("a_grae", {"alpha": 1.5}),
        ("token_asym_grpo", {"beta_pos": 0}),
        ("token_asym_grpo", {"share": 1.1}),
        ("entropy_advantage", {"kappa": 1}),
        ("entropy_advantage", {"alpha": -1}),
        ("entropy_advantage", {"base": "entropy_advantage"}),
    ],
)
def test_a_parameter_out_of_range_is_refused_with_its_range(name, params):
    ((parameter, value),) = params.items()
    with pytest.raises(ParameterError) as caught:
        get(name, **params)
    assert f"{name}: {parameter} is {value!r}" in str(caught.value)
    assert f"{parameter} in {ranges(ESTIMATORS[name])[parameter]}" in str(caught.value)


def test_numpy_numbers_are_taken_as_parameters():
    assert get("pass_at_k", k=np.int64(2)).params["k"] == 2
    assert get("pos_only", beta_pos=np.float32(0.25)).params["beta_pos"] == 0.25
