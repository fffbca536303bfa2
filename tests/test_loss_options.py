"""Options of the loss: closed forms, what they do to the gradient of a mini-batch, and that cutting changes nothing."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from entropy_lab.errors import ParameterError
from entropy_lab.rl.covariance_clip import ClipCov, KlCov
from entropy_lab.rl.entropy_bonus import AdaptiveEntropyCoef
from entropy_lab.rl.kl import KL_ESTIMATORS, kl_estimate
from entropy_lab.rl.logprobs import score, token_scores
from entropy_lab.rl.loss import AGGREGATIONS, clipped_surrogate, token_weights
from entropy_lab.rl.micro_batches import micro_batches
from entropy_lab.rl.token_masks import forking_tokens
from entropy_lab.rl.update import Objective, accumulate_gradients
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


# Each by itself


@given(sizes=BATCHES, share=st.sampled_from([0.07, 0.2, 0.5, 1.0]))
@settings(deadline=None, max_examples=60)
def test_forking_tokens_are_the_share_with_the_highest_entropy(sizes, share):
    entropy_BT, _, mask_BT = draw(*sizes)
    chosen_BT = forking_tokens(entropy_BT, mask_BT, share)
    hundredths = round(100 * share)
    assert int(chosen_BT.sum()) == -(-int(mask_BT.sum()) * hundredths // 100)
    assert not (chosen_BT & ~mask_BT).any()
    others_BT = mask_BT & ~chosen_BT
    if others_BT.any():
        assert entropy_BT[chosen_BT].min() >= entropy_BT[others_BT].max()
    if share == 1:
        assert torch.equal(chosen_BT, mask_BT)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope", "dual"),
    [
        (2.0, -2.0, 4.0, 2.0, False),  # below the dual clip PPO's
        (4.0, -2.0, 6.0, 0.0, True),  # 3 times the advantage, and no more
        (0.5, -2.0, 1.6, 0.0, False),
        (4.0, 2.0, -2.4, 0.0, False),  # positive advantages do not know it
    ],
)
def test_dual_clip_ends_the_loss_of_negative_advantages(ratio, advantage, loss, slope, dual):
    logp = torch.tensor([[ratio]]).log().requires_grad_()
    out = clipped_surrogate(logp, torch.zeros(1, 1), torch.tensor([[advantage]]), 0.2, 0.2, dual_clip=3.0)
    out.loss_BT.sum().backward()
    assert out.loss_BT.item() == pytest.approx(loss, rel=1e-6)
    assert logp.grad.item() == pytest.approx(slope * ratio, abs=1e-6)
    assert out.clipped_dual_BT.item() == dual


def divergences(logits_V, other_V):
    """KL in both directions, written out."""
    p_V, q_V = torch.softmax(logits_V, -1), torch.softmax(other_V, -1)
    return (p_V * (p_V / q_V).log()).sum(), (q_V * (q_V / p_V).log()).sum()


def test_kl_estimates_average_to_the_divergence_and_have_the_gradients_said():
    generator = torch.Generator().manual_seed(0)
    logits_V = torch.randn(9, generator=generator, dtype=torch.float64).requires_grad_()
    other_V = logits_V.detach() + 0.3 * torch.randn(9, generator=generator, dtype=torch.float64)
    logp_V, reference_V = torch.log_softmax(logits_V, -1), torch.log_softmax(other_V, -1)
    probability_V = logp_V.detach().exp()  # as a sample of tokens has it: without gradient
    forward, backward = divergences(logits_V, other_V)
    gradient_of = {
        "k1": torch.zeros(9, dtype=torch.float64),
        "k2": torch.autograd.grad(forward, logits_V, retain_graph=True)[0],
        "k3": torch.autograd.grad(backward, logits_V)[0],
    }
    for estimator in KL_ESTIMATORS:
        estimate_V = kl_estimate(logp_V, reference_V, estimator)
        mean = (probability_V * estimate_V).sum()
        assert mean.item() == pytest.approx(forward.item(), rel=0.1 if estimator == "k2" else 1e-9)
        gradient = torch.autograd.grad(mean, logits_V, retain_graph=True)[0]
        torch.testing.assert_close(gradient, gradient_of[estimator], atol=1e-12, rtol=1e-9)
        if estimator != "k1":
            assert (estimate_V >= 0).all()
        assert kl_estimate(reference_V, reference_V, estimator).eq(0).all()


def test_adaptive_bonus_rises_below_the_target_and_rests_above_it():
    bonus = AdaptiveEntropyCoef(target=0.3, change=0.25, maximum=0.6, start=0.1)
    entropies = [0.2, 0.2, 0.2, 0.2, 0.4, 0.3, 0.4, 0.4, 0.2]
    #       next   0.1   0.35 0.6  0.6  0.6 0.35 0.1 0 0
    expected = [0.1, 0.35, 0.6, 0.6, 0, 0, 0, 0, 0]
    assert [bonus.at(entropy) for entropy in entropies] == pytest.approx(expected)
    assert bonus.at(0.2) == pytest.approx(0.25)


def test_adaptive_bonus_continues_from_its_state():
    entropies = np.random.default_rng(0).uniform(0, 0.5, 40)
    whole, first, second = (AdaptiveEntropyCoef(0.25) for _ in range(3))
    expected = [whole.at(entropy) for entropy in entropies]
    found = [first.at(entropy) for entropy in entropies[:17]]
    second.restore(first.state())
    assert second.values() == first.values() == {"entropy_coef": found[-1]}
    assert found + [second.at(entropy) for entropy in entropies[17:]] == expected
    assert 0 < max(expected) <= 0.005


# Gradients of whole mini-batches


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def batch(model):
    return off_policy_batch(model)


CLIP_COV = ClipCov(share=0.1, low=0.05, high=50)
OPTIONS = {
    "default": {},
    "clip-higher": {"clip_high": 0.8},
    "dual clip": {"dual_clip": 1.1},
    "entropy bonus": {"entropy_coef": 0.05},
    "Clip-Cov": {"clip_cov": CLIP_COV},
    "KL-Cov": {"kl_cov": KlCov(share=0.2, coef=0.7)},
    "forking": {"forking_share": 0.3},
    **{f"KL {name}": {"kl_coef": 0.1, "kl_estimator": name} for name in KL_ESTIMATORS},
    "Clip-Cov by old": {"clip_cov": CLIP_COV, "choose_by": "old"},
    "KL-Cov by old": {"kl_cov": KlCov(share=0.2), "choose_by": "old"},
    "forking by old": {"forking_share": 0.3, "choose_by": "old"},
    "many": {"forking_share": 0.6, "clip_cov": CLIP_COV, "kl_coef": 0.1, "entropy_coef": 0.01, "dual_clip": 1.2},
}


def differ(one, other):
    return any(not torch.allclose(one[name], other[name], rtol=1e-2, atol=1e-5) for name in one)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("option", OPTIONS)
def test_micro_batches_of_one_give_the_gradient_of_the_whole(model, batch, option, aggregation):
    objective = Objective(aggregation, 7, **OPTIONS[option])
    whole, expected = gradients(model, batch, objective, 8)
    for micro_batch in (1, 3):
        cut, found = gradients(model, batch, objective, micro_batch)
        assert_close(found, expected)
        assert vars(cut) == pytest.approx(vars(whole), abs=1e-6)


@pytest.mark.parametrize("option", [name for name in OPTIONS if name != "default"])
def test_every_option_changes_the_gradient(model, batch, option):
    _, without = gradients(model, batch, Objective("token-mean", 7), 8)
    _, found = gradients(model, batch, Objective("token-mean", 7, **OPTIONS[option]), 8)
    assert differ(found, without)


@pytest.mark.parametrize("entropy_coef", [0.0, 0.05])
def test_the_loss_without_options_keeps_its_bits(model, batch, entropy_coef):
    """The gradient as it was before there were options, the entropy term always in it."""
    _, found = gradients(model, batch, Objective("token-mean", 7, entropy_coef=entropy_coef), 3)
    model.zero_grad()
    weight_BT = token_weights(batch.sequences.mask_BT, batch.keep_B, "token-mean")
    active_BT = (weight_BT > 0) & ((batch.advantage_BT != 0) | (entropy_coef != 0))
    for index_B in micro_batches(batch.sequences, active_BT.any(1).nonzero()[:, 0], 3, shared=True):
        logp_BT, entropy_BT = token_scores(model, batch.sequences.rows(index_B), 1.0)
        part = (index_B[:, None], torch.arange(logp_BT.shape[1])[None, :])
        ratio_BT = (logp_BT - batch.old_logp_BT[part]).exp()
        gain_BT = torch.minimum(
            ratio_BT * batch.advantage_BT[part], ratio_BT.clamp(0.8, 1.2) * batch.advantage_BT[part]
        )
        (weight_BT[part] * (-gain_BT - entropy_coef * entropy_BT)).sum().backward()
    for name, parameter in model.named_parameters():
        assert torch.equal(found[name], parameter.grad), name


@pytest.mark.parametrize("choose_by", ["current", "old"])
def test_forking_tokens_alone_count_above_and_below_the_line(model, batch, choose_by):
    statistics, found = gradients(model, batch, Objective("token-mean", 7, forking_share=0.3, choose_by=choose_by), 8)
    entropy_BT = score(model, batch.sequences, 1.0).entropy_BT if choose_by == "current" else batch.old_entropy_BT
    n_chosen = math.ceil(0.3 * int(kept(batch).sum()))
    threshold = entropy_BT[kept(batch)].sort(descending=True).values[n_chosen - 1]
    forking_BT = kept(batch) & (entropy_BT >= threshold)
    assert int(forking_BT.sum()) == n_chosen
    loss, expected = by_hand(model, batch, policy_loss(batch), forking_BT / n_chosen)
    assert statistics.loss == pytest.approx(loss, abs=1e-6)
    assert_close(found, expected)
    # Rows without a forking token get no pass, and neither does the one without advantage.
    assert statistics.skipped == float((~(forking_BT & (batch.advantage_BT != 0)).any(1)).double().mean())


def test_a_forking_share_of_1_and_a_loose_dual_clip_change_no_bit(model, batch):
    _, expected = gradients(model, batch, Objective("token-mean", 7), 3)
    _, found = gradients(model, batch, Objective("token-mean", 7, forking_share=1.0, dual_clip=1e6), 3)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("estimator", KL_ESTIMATORS)
def test_divergence_reaches_every_kept_row(model, batch, estimator):
    objective = Objective("token-mean", 7, kl_coef=0.3, kl_estimator=estimator)
    statistics, found = gradients(model, batch, objective, 8)

    def token_loss(logp_BT, entropy_BT):
        d_BT = logp_BT - batch.reference_logp_BT
        estimate_BT = {"k1": d_BT, "k2": d_BT**2 / 2, "k3": (-d_BT).exp() - 1 + d_BT}[estimator]
        return policy_loss(batch)(logp_BT, entropy_BT) + 0.3 * estimate_BT

    loss, expected = by_hand(model, batch, token_loss, kept(batch) / kept(batch).sum())
    assert statistics.loss == pytest.approx(loss, abs=1e-6)
    assert statistics.skipped == 1 / 8
    d_N = (score(model, batch.sequences, 1.0).logp_BT - batch.reference_logp_BT)[kept(batch)]
    mean = {"k1": d_N, "k2": d_N**2 / 2, "k3": (-d_N).exp() - 1 + d_N}[estimator].mean().item()
    assert statistics.reference_kl == pytest.approx(mean, rel=1e-4)
    assert_close(found, expected)


def test_dual_clip_is_counted(model, batch):
    statistics, _ = gradients(model, batch, Objective("token-mean", 7, dual_clip=1.1), 3)
    ratio_BT = (score(model, batch.sequences, 1.0).logp_BT - batch.old_logp_BT).exp()
    expected = (ratio_BT > 1.1)[kept(batch) & (batch.advantage_BT < 0)].sum() / kept(batch).sum()
    assert statistics.clip_fraction_dual == pytest.approx(expected.item())
    assert statistics.clip_fraction_dual > 0


# Refusals


@pytest.mark.parametrize(
    ("options", "missing", "complaint"),
    [
        ({"kl_coef": 0.1}, "reference_logp_BT", "no reference_logp_BT"),
        ({"forking_share": 0.2, "choose_by": "old"}, "old_entropy_BT", "no old_entropy_BT"),
        ({"clip_cov": ClipCov()}, "old_entropy_BT", "no rng"),
    ],
)
def test_what_an_option_needs_is_asked_for_before_any_gradient(model, batch, options, missing, complaint):
    model.zero_grad()
    with pytest.raises(ParameterError, match=complaint):
        accumulate_gradients(model, replace(batch, **{missing: None}), Objective("token-mean", 7, **options))
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Objective("token-mean", 7, dual_clip=1.0), "dual_clip: is 1.0; above 1"),
        (lambda: Objective("token-mean", 7, kl_cov=KlCov(), clip_cov=ClipCov()), "with clip_cov"),
        (lambda: Objective("token-mean", 7, kl_cov=KlCov(), dual_clip=3.0), "with dual_clip"),
        (lambda: Objective("token-mean", 7, forking_share=0.0), "forking_share"),
        (lambda: Objective("token-mean", 7, forking_share=1.1), "forking_share"),
        (lambda: Objective("token-mean", 7, kl_coef=-1.0), "kl_coef"),
        (lambda: Objective("token-mean", 7, kl_estimator="k4"), "k1, k2, k3"),
        (lambda: Objective("token-mean", 7, choose_by="new"), "current, old"),
        (lambda: ClipCov(share=0), "clip_cov.share"),
        (lambda: ClipCov(low=5, high=5), "clip_cov.low"),
        (lambda: KlCov(share=2), "kl_cov.share"),
        (lambda: KlCov(coef=-1), "kl_cov.coef"),
        (lambda: kl_estimate(torch.zeros(1), torch.zeros(1), "k0"), "kl_estimator"),
        (lambda: forking_tokens(torch.zeros(1, 1), torch.ones(1, 1).bool(), 0.0), "forking_share"),
        (lambda: AdaptiveEntropyCoef(target=0), "target"),
        (lambda: AdaptiveEntropyCoef(0.2, change=math.inf), "change"),
        (lambda: AdaptiveEntropyCoef(0.2, start=0.1), "maximum = 0.005"),
        (lambda: AdaptiveEntropyCoef(0.2).at(math.nan), "entropy"),
        (lambda: AdaptiveEntropyCoef(0.2).restore({"beta_pos": 0.5}), "holds beta_pos"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, complaint):
    with pytest.raises(ParameterError, match=complaint):
        make()
