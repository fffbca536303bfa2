"""A small policy, mini-batches of rollouts that another policy drew, and the gradients of their losses."""

import numpy as np
import torch
from hypothesis import strategies as st

from entropy_lab.rl.logprobs import score, token_scores
from entropy_lab.rl.loss import clipped_surrogate
from entropy_lab.rl.model import ModelSizes, build_model
from entropy_lab.rl.sequences import Sequences
from entropy_lab.rl.update import MiniBatch, accumulate_gradients

SIZES = ModelSizes(hidden=16, layers=2, heads=2, kv_heads=1, head_dim=8, feed_forward=16)
BATCHES = st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(0, 99))


def draw(rows, columns, seed):
    """Log-probabilities, advantages and a mask with at least one token, of a mini-batch."""
    rng = np.random.default_rng(seed)
    mask_BT = np.arange(columns) < rng.integers(1, columns + 1, rows)[:, None]
    logp_BT, advantage_BT = -rng.exponential(2, (rows, columns)), rng.normal(size=(rows, columns)).round(1)
    return torch.from_numpy(logp_BT), torch.from_numpy(advantage_BT), torch.from_numpy(mask_BT)


def small_model():
    """A policy of 11 tokens whose log-probabilities differ."""
    model = build_model(SIZES, vocabulary_size=11, seed=0)
    with torch.no_grad():  # random weights are near the uniform policy: log-probabilities all alike
        model.model.embed_tokens.weight.mul_(20)
    return model


def off_policy_batch(model):
    """Eight rollouts of different lengths, off-policy, one without advantage and one not kept."""
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    lengths = [3, 1, 5, 2, 4, 4, 1, 6]
    prompts = [rng.integers(2, 11, 3 + b % 2).tolist() for b in range(8)]
    sequences = Sequences.join(prompts, [rng.integers(1, 11, n).tolist() for n in lengths])
    scores = score(model, sequences, 1.0)
    noise_BT, other_BT = (torch.randn(scores.logp_BT.shape, generator=generator) for _ in range(2))
    advantage_BT = torch.tensor(rng.normal(size=8)).float()[:, None] * sequences.mask_BT
    advantage_BT[2] = 0
    return MiniBatch(
        sequences,
        scores.logp_BT + 0.3 * noise_BT,
        advantage_BT,
        torch.arange(8) != 5,
        scores.entropy_BT + 0.3 * other_BT.abs(),
        scores.logp_BT + 0.5 * other_BT,
    )


def gradients(model, batch, objective, micro_batch):
    """Statistics and gradients of one update cut into micro-batches of so many rows."""
    model.zero_grad()
    statistics = accumulate_gradients(model, batch, objective, micro_batch, np.random.default_rng(0))
    return statistics, {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def by_hand(model, batch, token_loss, weight_BT):
    """Gradient of a weighted sum of token losses over the whole batch in one pass."""
    model.zero_grad()
    loss = (weight_BT * token_loss(*token_scores(model, batch.sequences, 1.0))).sum()
    loss.backward()
    return loss.item(), {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def assert_close(found, expected, atol=1e-5):
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=atol, rtol=1e-5)


def policy_loss(batch, clip=(0.2, 0.2)):
    return lambda logp_BT, _: clipped_surrogate(logp_BT, batch.old_logp_BT, batch.advantage_BT, *clip).loss_BT


def kept(batch):
    return batch.sequences.mask_BT & batch.keep_B[:, None]
