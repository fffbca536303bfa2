"""Clip-Cov and KL-Cov: which tokens they choose, and what they do to the gradient of a mini-batch."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from entropy_lab.rl.covariance_clip import (
    ClipCov,
    KlCov,
    clip_cov_tokens,
    kl_cov_penalty,
    kl_cov_tokens,
    token_covariance,
)
from entropy_lab.rl.logprobs import score
from entropy_lab.rl.loss import clipped_surrogate
from entropy_lab.rl.update import Objective
from tests.made_up_mini_batch import (
    BATCHES,
    assert_close,
    by_hand,
    draw,
    gradients,
    kept,
    off_policy_batch,
    policy_loss,
    small_model,
)

torch.set_num_threads(1)
CLIP_COV = ClipCov(share=0.1, low=0.05, high=50)


# What tokens they choose


@given(sizes=BATCHES)
@settings(deadline=None, max_examples=30)
def test_covariances_have_the_covariance_as_their_mean_and_padding_no_say(sizes):
    logp_BT, advantage_BT, mask_BT = draw(*sizes)
    covariance_BT = token_covariance(logp_BT, advantage_BT, mask_BT)
    pair = np.stack([logp_BT[mask_BT].numpy(), advantage_BT[mask_BT].numpy()])
    expected = np.cov(pair, ddof=0)[0, 1] if pair.shape[1] > 1 else 0
    assert covariance_BT[mask_BT].mean().item() == pytest.approx(expected, abs=1e-12)
    elsewhere = token_covariance(logp_BT.masked_fill(~mask_BT, math.nan), advantage_BT, mask_BT)
    assert torch.equal(elsewhere, covariance_BT)
    assert covariance_BT[~mask_BT].eq(0).all()


@given(sizes=BATCHES, share=st.sampled_from([2e-4, 0.1, 0.25, 0.5, 1.0]))
@settings(deadline=None, max_examples=60)
def test_clip_cov_takes_its_count_of_the_tokens_that_qualify(sizes, share):
    logp_BT, advantage_BT, mask_BT = draw(*sizes)
    covariance_BT = token_covariance(logp_BT, advantage_BT, mask_BT)
    clipped_BT = advantage_BT > 1
    chosen_BT = clip_cov_tokens(
        covariance_BT, mask_BT, clipped_BT, ClipCov(share, low=0.2, high=3), np.random.default_rng(sizes[2])
    )
    may_BT = mask_BT & ~clipped_BT & (covariance_BT > 0.2) & (covariance_BT < 3)
    assert not (chosen_BT & ~may_BT).any()
    n = int(mask_BT.sum())
    count = max(1, {2e-4: 0, 0.1: round(n / 10), 0.25: round(n / 4), 0.5: round(n / 2), 1.0: n}[share])
    assert int(chosen_BT.sum()) == min(count, int(may_BT.sum()))


def test_clip_cov_draws_each_candidate_as_often_and_repeats_with_the_seed():
    covariance_BT, every_BT = torch.tensor([[2.0, 0.5, 3.0, 4.0, 9.0]]), torch.ones(1, 5).bool()
    rng, times_BT = np.random.default_rng(0), torch.zeros(1, 5)
    for _ in range(900):
        times_BT += clip_cov_tokens(covariance_BT, every_BT, ~every_BT, ClipCov(), rng)
    assert times_BT[0, [1, 4]].eq(0).all()
    assert times_BT[0, [0, 2, 3]].sub(300).abs().max() < 60  # four standard deviations
    first, second = (
        clip_cov_tokens(covariance_BT, every_BT, ~every_BT, ClipCov(), np.random.default_rng(3)) for _ in range(2)
    )
    assert torch.equal(first, second)


@given(sizes=BATCHES, share=st.sampled_from([2e-3, 0.07, 0.3, 1.0]))
@settings(deadline=None, max_examples=60)
def test_kl_cov_takes_the_highest_covariances(sizes, share):
    logp_BT, advantage_BT, mask_BT = draw(*sizes)
    covariance_BT = token_covariance(logp_BT.round(), advantage_BT, mask_BT)
    chosen_BT = kl_cov_tokens(covariance_BT, mask_BT, KlCov(share))
    tokens = [(-covariance_BT[b, t].item(), b, t) for b, t in mask_BT.nonzero().tolist()]
    thousandths = {2e-3: 2, 0.07: 70, 0.3: 300, 1.0: 1000}[share]
    highest = sorted(tokens)[: max(1, len(tokens) * thousandths // 1000)]
    assert {(b, t) for b, t in chosen_BT.nonzero().tolist()} == {(b, t) for _, b, t in highest}


# Losses


def test_kl_cov_charges_changes_but_not_rounding():
    change_BT = torch.tensor([[0.0, 3e-6, -3e-6, 1e-3, -0.5, 0.5]], dtype=torch.float64).requires_grad_()
    penalised_BT = torch.tensor([[True, True, True, True, True, False]])
    price_BT = kl_cov_penalty(change_BT - 2, torch.full((1, 6), -2.0, dtype=torch.float64), penalised_BT, 3.0)
    price_BT.sum().backward()
    np.testing.assert_allclose(price_BT[0].detach(), [0, 0, 0, 3e-3, 1.5, 0], atol=1e-12)
    assert change_BT.grad.tolist() == [[0, 0, 0, 3, -3, 0]]


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def batch(model):
    return off_policy_batch(model)


@pytest.mark.parametrize("micro_batch", [1, 3, 8])
def test_kl_cov_is_a_no_op_strictly_on_policy(model, batch, micro_batch):
    # Log-probabilities of the old policy from another pass: equal but for rounding.
    rounding_BT = 1e-6 * torch.randn(batch.old_logp_BT.shape, generator=torch.Generator().manual_seed(0))
    on_policy = replace(batch, old_logp_BT=score(model, batch.sequences, 1.0).logp_BT + rounding_BT)
    statistics, found = gradients(model, on_policy, Objective("token-mean", 7, kl_cov=KlCov(share=0.5)), micro_batch)
    _, expected = gradients(model, on_policy, Objective("token-mean", 7), 8)
    assert statistics.chosen_fraction == 0.5
    assert_close(found, expected, atol=1e-5)


def test_kl_cov_penalises_its_tokens_and_clips_none(model, batch):
    statistics, found = gradients(model, batch, Objective("token-mean", 7, kl_cov=KlCov(share=0.2, coef=0.7)), 8)
    now = score(model, batch.sequences, 1.0)
    chosen_BT = kl_cov_tokens(token_covariance(now.logp_BT, batch.advantage_BT, kept(batch)), kept(batch), KlCov(0.2))

    def token_loss(logp_BT, _):
        change_BT = logp_BT - batch.old_logp_BT
        assert change_BT.abs()[chosen_BT].min() > 1e-3  # none so small that it would pass for rounding
        return -change_BT.exp() * batch.advantage_BT + 0.7 * chosen_BT * change_BT.abs()

    loss, expected = by_hand(model, batch, token_loss, kept(batch) / kept(batch).sum())
    assert statistics.loss == pytest.approx(loss, abs=1e-6)
    assert statistics.clip_fraction_low == statistics.clip_fraction_high == 0
    assert statistics.chosen_fraction == pytest.approx(int(0.2 * kept(batch).sum()) / int(kept(batch).sum()))
    assert_close(found, expected)


@pytest.mark.parametrize("choose_by", ["current", "old"])
def test_clip_cov_takes_the_loss_but_not_the_place_in_the_mean(model, batch, choose_by):
    objective = Objective("token-mean", 7, clip_cov=CLIP_COV, choose_by=choose_by)
    statistics, found = gradients(model, batch, objective, 8)
    logp_BT = score(model, batch.sequences, 1.0).logp_BT if choose_by == "current" else batch.old_logp_BT
    covariance_BT = token_covariance(logp_BT, batch.advantage_BT, kept(batch))
    now = clipped_surrogate(logp_BT, batch.old_logp_BT, batch.advantage_BT, 0.2, 0.2)
    clipped_BT = now.clipped_low_BT | now.clipped_high_BT
    assert clipped_BT.any() == (choose_by == "current")  # the old policy has no ratio but 1
    spared_BT = clip_cov_tokens(covariance_BT, kept(batch), clipped_BT, CLIP_COV, np.random.default_rng(0))
    assert int(spared_BT.sum()) == round(0.1 * int(kept(batch).sum()))

    def token_loss(logp_BT, entropy_BT):
        return policy_loss(batch)(logp_BT, entropy_BT) * ~spared_BT

    loss, expected = by_hand(model, batch, token_loss, kept(batch) / kept(batch).sum())
    assert statistics.loss == pytest.approx(loss, abs=1e-6)
    assert_close(found, expected)
