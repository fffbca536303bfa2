"""How sampler and trainer disagree, against closed forms and an enumerated divergence."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, rel_entr, softmax

from entropy_lab.errors import ParameterError
from entropy_lab.rl.engine_agreement import sampler_agreement
from entropy_lab.schema import METRICS

NAMES = ["sampler_logp_difference_mean", "sampler_logp_difference_max", "sampler_k3", "sampler_ess"]
ALL_BT = torch.ones(4, 3).bool()


def logp(rows, columns, seed=0):
    return -torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) * 3


def test_names_are_those_of_the_run_format():
    assert list(sampler_agreement(logp(4, 3), logp(4, 3), ALL_BT)) == NAMES
    assert set(NAMES) <= METRICS.keys()


def test_equal_log_probabilities_agree_wholly():
    assert list(sampler_agreement(logp(4, 3), logp(4, 3), ALL_BT).values()) == [0, 0, 0, 1]


@given(shift=st.floats(-2, 2), rows=st.integers(1, 6), columns=st.integers(1, 5))
def test_a_constant_shift_has_a_closed_form(shift, rows, columns):
    sampler_BT = logp(rows, columns).double()
    found = sampler_agreement(sampler_BT, sampler_BT + shift, torch.ones(rows, columns).bool())
    expected = [abs(shift), abs(shift), np.exp(shift) - 1 - shift, 1]  # equal weights, whatever they are
    np.testing.assert_allclose(list(found.values()), expected, atol=1e-12)


@given(
    spread=st.floats(0, 50), n=st.integers(1, 20), seed=st.integers(0, 99)
)  # exp(50 * 3) overflows float32, exp(50 * 20) float64
def test_effective_sample_size_is_that_of_the_weights(spread, n, seed):
    total_B = torch.randn(n, generator=torch.Generator().manual_seed(seed)).double() * spread
    found = sampler_agreement(torch.zeros(n, 1), total_B[:, None], torch.ones(n, 1).bool())["sampler_ess"]
    weight_B = np.exp(total_B.numpy() - total_B.numpy().max())
    np.testing.assert_allclose(found, weight_B.sum() ** 2 / (n * np.square(weight_B).sum()), rtol=1e-9)
    assert 1 / n - 1e-12 <= found <= 1 + 1e-12


def test_one_response_with_all_the_weight_is_an_effective_sample_of_one():
    difference_BT = torch.zeros(8, 1000)
    difference_BT[3] = 2.0
    found = sampler_agreement(torch.zeros(8, 1000), difference_BT, torch.ones(8, 1000).bool())
    assert found["sampler_ess"] == pytest.approx(1 / 8)


def test_tokens_are_summed_within_a_response():
    difference_BT = torch.tensor([[1.0, -1.0], [2.0, -2.0], [-0.5, 0.5]])
    assert sampler_agreement(torch.zeros(3, 2), difference_BT, torch.ones(3, 2).bool())["sampler_ess"] == 1


def test_k3_is_the_divergence_on_average():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 7)) * [[1], [0.5]]
    sampler, trainer = log_softmax(logits, axis=1)
    token_N = rng.choice(7, size=200_000, p=softmax(logits[0]))
    pair = [torch.tensor(each[token_N])[None] for each in (sampler, trainer)]
    found = sampler_agreement(*pair, torch.ones(1, len(token_N)).bool())["sampler_k3"]
    assert found == pytest.approx(rel_entr(np.exp(sampler), np.exp(trainer)).sum(), rel=0.02)


def test_padding_does_not_count():
    sampler_BT, trainer_BT = logp(4, 3, seed=1), logp(4, 3, seed=2)
    mask_BT = torch.arange(3) < torch.tensor([3, 1, 2, 2])[:, None]
    expected = sampler_agreement(sampler_BT, trainer_BT, mask_BT)
    for padding in (5.0, float("nan"), -float("inf")):
        padded = [each.masked_fill(~mask_BT, padding) for each in (sampler_BT, trainer_BT)]
        assert sampler_agreement(*padded, mask_BT) == expected
    d = (trainer_BT - sampler_BT).double()[mask_BT].numpy()
    assert expected["sampler_logp_difference_mean"] == pytest.approx(np.abs(d).mean())
    assert expected["sampler_logp_difference_max"] == pytest.approx(np.abs(d).max())
    assert expected["sampler_k3"] == pytest.approx((np.exp(d) - 1 - d).mean())


@pytest.mark.parametrize(
    "wrong", [(logp(4, 3), logp(4, 2), ALL_BT), (logp(4, 3), logp(4, 3), ALL_BT[:2]), (logp(4, 3), logp(4, 3), ~ALL_BT)]
)
def test_shapes_that_differ_and_no_token_are_refused(wrong):
    with pytest.raises(ParameterError, match="sampler_agreement"):
        sampler_agreement(*wrong)
