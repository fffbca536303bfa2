"""The clipped surrogate, its aggregations and its gradient, against numpy, closed forms and autograd."""

import numpy as np
import pytest
import torch

from entropy_lab.errors import ParameterError
from entropy_lab.rl.logprobs import token_scores
from entropy_lab.rl.loss import AGGREGATIONS, clipped_surrogate, token_weights
from entropy_lab.rl.model import ModelSizes, build_model
from entropy_lab.rl.sequences import Sequences
from entropy_lab.rl.update import MiniBatch, Objective, accumulate_gradients

torch.set_num_threads(1)
SIZES = ModelSizes(hidden=16, layers=2, heads=2, kv_heads=1, head_dim=8, feed_forward=16)
MASK = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]]).bool()
KEEP = torch.tensor([True, True, False, True])


def numpy_loss(logp, old, advantage, mask, keep, low, high, aggregation, limit):
    """The loss written out with loops, for one sequence after another."""
    sequence_sums, sequence_means, all_tokens = [], [], []
    for b in range(len(mask)):
        if not keep[b]:
            continue
        losses = []
        for t in range(mask.shape[1]):
            if mask[b, t]:
                ratio = np.exp(logp[b, t] - old[b, t])
                clipped = min(max(ratio, 1 - low), 1 + high)
                losses.append(-min(ratio * advantage[b, t], clipped * advantage[b, t]))
        all_tokens += losses
        sequence_sums.append(sum(losses) / limit)
        sequence_means.append(sum(losses) / len(losses))
    return np.mean(
        {
            "token-mean": all_tokens,
            "seq-mean-token-mean": sequence_means,
            "seq-mean-token-sum-norm": sequence_sums,
        }[aggregation]
    )


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_loss_is_the_one_computed_by_hand(aggregation):
    rng = np.random.default_rng(0)
    logp, old, advantage = rng.normal(-1, 0.5, (4, 4)), rng.normal(-1, 0.5, (4, 4)), rng.normal(size=(4, 4))
    out = clipped_surrogate(*map(torch.from_numpy, (logp, old, advantage)), 0.2, 0.28)
    assert (out.clipped_low_BT & MASK).any()
    assert (out.clipped_high_BT & MASK).any()
    loss = (token_weights(MASK, KEEP, aggregation, 7) * out.loss_BT).sum()
    expected = numpy_loss(logp, old, advantage, MASK.numpy(), KEEP.numpy(), 0.2, 0.28, aggregation, 7)
    assert float(loss) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope", "low", "high"),
    [
        (1.0, 2.0, -2.0, -2.0, False, False),  # on-policy
        (1.5, 2.0, -2.56, 0.0, False, True),  # a gain beyond 1 + 0.28 no longer pays
        (0.5, 2.0, -1.0, -2.0, False, False),  # a loss of probability is never forgiven
        (0.5, -2.0, 1.6, 0.0, True, False),  # below 1 - 0.2 there is nothing more to gain
        (1.5, -2.0, 3.0, 2.0, False, False),
        (1.5, 0.0, 0.0, 0.0, False, False),
    ],
)
def test_clip_takes_the_gradient_away_where_it_is_active(ratio, advantage, loss, slope, low, high):
    logp = torch.tensor([[ratio]]).log().requires_grad_()
    out = clipped_surrogate(logp, torch.zeros(1, 1), torch.tensor([[advantage]]), 0.2, 0.28)
    out.loss_BT.sum().backward()
    assert out.loss_BT.item() == pytest.approx(loss, rel=1e-6)
    assert logp.grad.item() == pytest.approx(slope * ratio, rel=1e-6)  # d ratio / d logp = ratio
    assert (out.clipped_low_BT.item(), out.clipped_high_BT.item()) == (low, high)


def test_weights_sum_to_one_and_leave_out_what_is_not_kept():
    for aggregation in ("token-mean", "seq-mean-token-mean"):
        weight_BT = token_weights(MASK, KEEP, aggregation)
        assert weight_BT.sum().item() == pytest.approx(1)
        assert torch.equal(weight_BT > 0, MASK & KEEP[:, None])
    assert token_weights(MASK, KEEP, "seq-mean-token-sum-norm", 10).sum().item() == pytest.approx(6 / (3 * 10))


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_no_kept_rollout_gives_weights_of_zero(aggregation):
    assert token_weights(MASK, torch.zeros(4).bool(), aggregation, 7).eq(0).all()


def test_unknown_aggregation_is_refused():
    with pytest.raises(ParameterError, match="token-mean"):
        token_weights(MASK, KEEP, "mean")
    with pytest.raises(ParameterError, match="max_new_tokens"):
        token_weights(MASK, KEEP, "seq-mean-token-sum-norm")


@pytest.mark.parametrize("clip", [{"clip_low": 1.5}, {"clip_low": -0.1}, {"clip_high": -0.1}])
def test_impossible_clip_ranges_are_refused(clip):
    with pytest.raises(ParameterError, match=next(iter(clip))):
        Objective("token-mean", 7, **clip)


@pytest.fixture
def model():
    return build_model(SIZES, vocabulary_size=11, seed=0)


@pytest.fixture
def batch(model):
    """Eight rollouts of different lengths, off-policy, one without advantage and one not kept."""
    rng = np.random.default_rng(0)
    lengths = [3, 1, 5, 2, 4, 4, 1, 6]
    prompts = [rng.integers(2, 11, 3 + b % 2).tolist() for b in range(8)]
    sequences = Sequences.join(prompts, [rng.integers(1, 11, n).tolist() for n in lengths])
    old_logp_BT = token_scores(model, sequences, 1.0).logp_BT.detach()
    noise_BT = 0.3 * torch.randn(old_logp_BT.shape, generator=torch.Generator().manual_seed(0))
    advantage_BT = torch.tensor(rng.normal(size=8)).float()[:, None] * sequences.mask_BT
    advantage_BT[2] = 0
    return MiniBatch(sequences, old_logp_BT + noise_BT, advantage_BT, torch.arange(8) != 5)


def gradients(model, batch, objective, micro_batch):
    model.zero_grad()
    statistics = accumulate_gradients(model, batch, objective, micro_batch)
    return statistics, {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("entropy_coef", [0.0, 0.05])
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_micro_batches_of_one_give_the_gradient_of_the_whole(model, batch, aggregation, entropy_coef):
    objective = Objective(aggregation, 7, entropy_coef=entropy_coef)
    whole, whole_gradient = gradients(model, batch, objective, 8)
    cut, cut_gradient = gradients(model, batch, objective, 1)
    assert cut.loss == pytest.approx(whole.loss, abs=1e-6)
    assert cut.clip_fraction_low == whole.clip_fraction_low > 0
    assert cut.clip_fraction_high == whole.clip_fraction_high > 0
    for name, gradient in whole_gradient.items():
        torch.testing.assert_close(cut_gradient[name], gradient, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("entropy_coef", [0.0, 0.05])
def test_skipped_rows_change_nothing_but_the_work(model, batch, entropy_coef):
    objective = Objective("token-mean", 7, entropy_coef=entropy_coef)
    statistics, gradient = gradients(model, batch, objective, 8)
    assert statistics.skipped == (2 if entropy_coef == 0 else 1) / 8
    model.zero_grad()
    scores = token_scores(model, batch.sequences, 1.0)
    token_loss_BT = clipped_surrogate(scores.logp_BT, batch.old_logp_BT, batch.advantage_BT, 0.2, 0.2).loss_BT
    kept_BT = batch.sequences.mask_BT & batch.keep_B[:, None]
    loss = (token_loss_BT - entropy_coef * scores.entropy_BT)[kept_BT].sum() / kept_BT.sum()
    loss.backward()
    assert statistics.loss == pytest.approx(loss.item(), abs=1e-6)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradient[name], parameter.grad, atol=1e-6, rtol=1e-5)


def test_clip_fractions_are_shares_of_the_kept_tokens(model, batch):
    statistics, _ = gradients(model, batch, Objective("token-mean", 7, clip_low=0.1, clip_high=0.3), 3)
    ratio_BT = (token_scores(model, batch.sequences, 1.0).logp_BT - batch.old_logp_BT).exp().detach().numpy()
    kept_BT = (batch.sequences.mask_BT & batch.keep_B[:, None]).numpy()
    ratio_N, advantage_N = ratio_BT[kept_BT], batch.advantage_BT.numpy()[kept_BT]
    assert statistics.clip_fraction_low == pytest.approx(np.mean((advantage_N < 0) & (ratio_N < 0.9)))
    assert statistics.clip_fraction_high == pytest.approx(np.mean((advantage_N > 0) & (ratio_N > 1.3)))
    assert statistics.ratio_max == pytest.approx(ratio_N[advantage_N != 0].max(), rel=1e-5)
    assert statistics.ratio_min == pytest.approx(ratio_N[advantage_N != 0].min(), rel=1e-5)


def test_on_policy_gradient_is_that_of_reinforce(model, batch):
    sequences = batch.sequences
    old_logp_BT = token_scores(model, sequences, 1.0).logp_BT.detach()
    on_policy = MiniBatch(sequences, old_logp_BT, batch.advantage_BT, torch.ones(8).bool())
    statistics, gradient = gradients(model, on_policy, Objective("token-mean", 7), 3)
    assert statistics.ratio_min == pytest.approx(1, abs=1e-5)
    assert statistics.ratio_max == pytest.approx(1, abs=1e-5)
    model.zero_grad()
    for b in range(8):  # the score function, one rollout at a time, without any of the package's code
        n_prompt, n_tokens = int(sequences.n_prompt_B[b]), int(sequences.n_tokens_B[b])
        ids = sequences.ids_BS[b, : n_prompt + n_tokens]
        logits_SV = model(input_ids=ids[None]).logits[0]
        for t in range(n_tokens):
            logp = torch.log_softmax(logits_SV[n_prompt + t - 1], -1)[ids[n_prompt + t]]
            (-batch.advantage_BT[b, 0] * logp / sequences.n_tokens_B.sum()).backward(retain_graph=True)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradient[name], parameter.grad, atol=1e-6, rtol=1e-4)


def test_entropy_bonus_points_towards_more_entropy(model, batch):
    without_advantage = MiniBatch(
        batch.sequences, batch.old_logp_BT, torch.zeros_like(batch.advantage_BT), batch.keep_B
    )
    entropy = []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(3):
        statistics, _ = gradients(model, without_advantage, Objective("token-mean", 7, entropy_coef=1.0), 8)
        entropy.append(-statistics.loss)  # all that is left of the loss is minus the kept tokens' mean entropy
        optimizer.step()
    assert entropy == sorted(entropy)
    assert 0 < entropy[0] < entropy[-1] < np.log(11)


def test_without_advantages_there_is_no_gradient(model, batch):
    nothing = MiniBatch(batch.sequences, batch.old_logp_BT, torch.zeros_like(batch.advantage_BT), batch.keep_B)
    statistics = accumulate_gradients(model, nothing, Objective("token-mean", 7))
    assert (statistics.loss, statistics.skipped) == (0, 1)
    assert all(parameter.grad is None for parameter in model.parameters())
