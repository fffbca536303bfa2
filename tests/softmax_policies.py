"""Softmax policies over a few actions, whose every number can be enumerated."""

import numpy as np


def softmax(z):
    """Probabilities of logits, shape (…, actions)."""
    p = np.exp(z - z.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


def entropy(p):
    """Nats of each policy, shape (…)."""
    return -(p * np.log(p)).sum(axis=-1)
