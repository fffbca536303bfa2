"""A small policy-gradient world: tabular softmax policies over short token sequences, trained as language models are.

A prompt needs ``n_needed`` tokens to be right, one after the other, and then an end-of-sequence token before the limit;
tokens between are filler without effect. Logits are a table of the prompt's own plus skills that prompts share, so
that training on one helps another. Rollouts are sampled in groups, advantages are those of the library, the update
is PPO's clipped surrogate with token-mean aggregation, in mini-batches. Nothing here knows what `diagnose` looks for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from entropy_lab import advantages
from entropy_lab.writer import RunWriter

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

N_VOCABULARY = 8
END, RIGHT, NEAR_MISS = 0, 1, 2
N_POSITIONS = 16
N_SHARED, N_OWN = 6, 6
"""Kinds of needed tokens: what is right is the same in all prompts of a shared kind, each prompt's own in others."""

Advantages = Callable[[FloatArray, FloatArray], FloatArray]
"""Advantages (groups, G) from rewards and the estimator's advantages."""
Columns = dict[str, Any]


def as_estimated(_rewards: FloatArray, advantage: FloatArray) -> FloatArray:
    """Leave the estimator's advantages as they are."""
    return advantage


@dataclass
class World:
    """Settings of a simulated run; the defaults make a healthy one."""

    seed: int
    estimator: str = "grpo"
    estimator_params: dict[str, float] = field(default_factory=dict)
    steps: int = 120
    n_prompts: int = 256
    prompts_per_step: int = 48
    group_size: int = 8
    ability: float = 4.0
    """Mean logit of a needed token over the others, before training."""
    spread: float = 1.8
    """Standard deviation of that logit between prompts and positions."""
    near_miss: float = 0.5
    """Mean logit of a wrong token that is near the right one."""
    most_needed: int = 5
    """Needed tokens of the hardest prompts."""
    limit: int = N_POSITIONS
    """Length limit in tokens."""
    certainty: float = 1.6
    """Standard deviation of the logits of all tokens: how sure the policy is before training."""
    ending: float = 1.5
    """Logit of the end-of-sequence token where a response may end."""
    lr: float = 1.2
    lr_shared: float = 0.6
    clip_low: float = 0.2
    clip_high: float = 0.2
    mini_batches: int = 2
    epochs: int = 1
    entropy_bonus: float = 0.0
    temperature: float = 1.0
    """Of the sampler; the trainer believes in 1."""
    lag: int = 0
    """Updates by which the sampler's weights are behind the trainer's."""
    noise: float = 0.01
    """Standard deviation of a token's log-probability between sampler and trainer: rounding."""
    similarity: float = 0.0
    """Correlation of the embeddings of the right token and the near miss: what raises one raises the other."""
    length_bonus: float = 0.0
    """Reward per token, on top of correctness: a faulty reward."""
    alter_advantages: Advantages = as_estimated
    alter_record: Callable[[int, Columns, Columns | None], Columns] | None = None
    """Changes a step's columns before they are written, given those of the step before: a faulty recorder."""
    since: int = 0
    """Update from which ``changes`` hold."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Settings that change during training."""


class _Policy:
    """Logits of every prompt and position, with the parameters that they are made of."""

    def __init__(self, world: World, rng: np.random.Generator, n_prompts: int) -> None:
        self.needed = rng.integers(1, world.most_needed + 1, n_prompts)
        shape = (n_prompts, N_POSITIONS, N_VOCABULARY)
        self.table = rng.normal(0.0, world.certainty, shape)
        positions = np.arange(N_POSITIONS)
        self.is_needed = positions < self.needed[:, None]
        kind = rng.integers(0, N_SHARED + N_OWN, shape[:2])
        self.kind = np.where(self.is_needed, kind, N_SHARED + N_OWN)
        self.right = np.where(kind < N_SHARED, RIGHT, rng.integers(RIGHT, N_VOCABULARY, shape[:2]))
        ability = world.ability + world.spread * (rng.normal(size=(n_prompts, 1)) + rng.normal(size=shape[:2])) / 2**0.5
        np.put_along_axis(
            self.table,
            self.right[..., None],
            np.take_along_axis(self.table, self.right[..., None], -1)
            + np.where(self.is_needed, ability, 0.0)[..., None],
            -1,
        )
        self.table[..., NEAR_MISS] += np.where(self.is_needed, world.near_miss, 0.0)
        self.table[..., END] += np.where(self.is_needed, -2.5, world.ending)
        self.skill = np.zeros((N_SHARED + N_OWN + 1, N_VOCABULARY))
        self.mixing = np.eye(N_VOCABULARY)
        self.mixing[RIGHT, NEAR_MISS] = self.mixing[NEAR_MISS, RIGHT] = world.similarity

    def log_probabilities(
        self, prompts: IntArray, skill: FloatArray | None = None, table: FloatArray | None = None
    ) -> FloatArray:
        """Log-probabilities, shape (prompts, positions, vocabulary)."""
        skill = self.skill if skill is None else skill
        table = self.table if table is None else table
        logits = (table[prompts] + skill[self.kind[prompts]]) @ self.mixing
        shifted = logits - logits.max(axis=-1, keepdims=True)
        normalised: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        return normalised

    def ascend(self, prompts: IntArray, gradient: FloatArray, lr: float, lr_shared: float) -> None:
        """Go along the gradient with respect to the logits, shape (prompts, positions, vocabulary)."""
        mixed = gradient @ self.mixing
        self.table[prompts] += lr * mixed
        shared = np.zeros_like(self.skill)
        np.add.at(shared, self.kind[prompts], mixed)
        self.skill += lr_shared * shared


@dataclass
class _Rollouts:
    """Rollouts of one step: tokens (B, G, T), their mask, lengths (B, G), outcomes."""

    tokens: IntArray
    mask: NDArray[np.bool_]
    length: FloatArray
    truncated: NDArray[np.bool_]
    correct: NDArray[np.bool_]


def _sample(
    world: World, policy: _Policy, prompts: IntArray, logp: FloatArray, n: int, rng: np.random.Generator
) -> _Rollouts:
    cumulative = np.cumsum(np.exp(logp[:, : world.limit]), axis=-1)
    uniform = rng.random((len(prompts), n, world.limit, 1))
    tokens = (uniform > cumulative[:, None, :, :-1]).sum(axis=-1)
    ended = tokens == END
    length = np.where(ended.any(axis=-1), ended.argmax(axis=-1) + 1, world.limit)
    truncated = ~ended.any(axis=-1)
    mask = np.arange(world.limit) < length[..., None]
    free = ~policy.is_needed[prompts][:, None, : world.limit]
    right = tokens == policy.right[prompts][:, None, : world.limit]
    reached = length > policy.needed[prompts][:, None]
    correct = (right | free).all(axis=-1) & reached & ~truncated
    return _Rollouts(tokens, mask, length.astype(float), truncated, correct)


def _picked(logp: FloatArray, tokens: IntArray) -> FloatArray:
    """Log-probability of each sampled token, shape (B, G, T)."""
    return np.take_along_axis(logp[:, None, : tokens.shape[-1]], tokens[..., None], axis=-1)[..., 0]


def _update(
    world: World,
    policy: _Policy,
    prompts: IntArray,
    rollouts: _Rollouts,
    advantage: FloatArray,
    rng: np.random.Generator,
) -> dict[str, float]:
    """Make the gradient steps of one update; give clip fractions and the gradient's norm."""
    old = _picked(policy.log_probabilities(prompts), rollouts.tokens)
    n_tokens, clipped, norms = 0, np.zeros(2), []
    for _ in range(world.epochs):
        for part in np.array_split(rng.permutation(len(prompts)), world.mini_batches):
            logp = policy.log_probabilities(prompts[part])[:, : world.limit]
            tokens, mask = rollouts.tokens[part], rollouts.mask[part]
            ratio = np.exp(_picked(logp, tokens) - old[part])
            weight = advantage[part][..., None] * mask
            low = (ratio < 1 - world.clip_low) & (weight < 0)
            high = (ratio > 1 + world.clip_high) & (weight > 0)
            clipped += low.sum(), high.sum()
            n_tokens += int(mask.sum())
            weight = np.where(low | high, 0.0, weight * ratio)
            gradient = _logit_gradient(logp, tokens, weight, mask, world.entropy_bonus)
            gradient *= len(part) / mask.sum()
            norms.append(float(np.linalg.norm(gradient)))
            padded = np.zeros((len(part), N_POSITIONS, N_VOCABULARY))
            padded[:, : world.limit] = gradient
            policy.ascend(prompts[part], padded, world.lr, world.lr_shared)
    low_share, high_share = (clipped / n_tokens).tolist()
    return {"clip_fraction_low": low_share, "clip_fraction_high": high_share, "grad_norm": float(np.mean(norms))}


def _logit_gradient(
    logp: FloatArray, tokens: IntArray, weight: FloatArray, mask: NDArray[np.bool_], bonus: float
) -> FloatArray:
    """Sum over rollouts of weight * d log pi / d logits, with the entropy bonus at every token visited."""
    probability = np.exp(logp)
    chosen = np.zeros_like(logp)
    rows, _, positions = np.indices(tokens.shape)
    np.add.at(chosen, (rows, positions, tokens), weight)
    gradient: FloatArray = chosen - weight.sum(axis=1)[..., None] * probability
    if bonus:
        entropy = -(probability * logp).sum(axis=-1, keepdims=True)
        gradient -= bonus * mask.sum(axis=1)[..., None] * probability * (logp + entropy)
    return gradient


def simulate(world: World, path: Path) -> Path:
    """Train in a world and write the run.

    Parameters
    ----------
    world
        Its settings.
    path
        Directory of the run; made.

    Returns
    -------
    Path
        The same.
    """
    rng = np.random.default_rng(world.seed)
    policy = _Policy(world, rng, world.n_prompts + 48)
    train, held_out = np.arange(world.n_prompts), np.arange(world.n_prompts, world.n_prompts + 48)
    estimator = advantages.get(world.estimator, **world.estimator_params)
    method = {"name": estimator.name, "params": dict(estimator.params), "label": estimator.label}
    writer = RunWriter(path, method=method, group_size=world.group_size, seed=world.seed)
    order, past, before = np.zeros(0, np.int64), [(policy.table.copy(), policy.skill.copy())], None
    for step in range(world.steps):
        if world.changes and step >= world.since:
            world = replace(world, **world.changes, changes={})
        while len(order) < world.prompts_per_step:
            order = np.concatenate([order, rng.permutation(train)])
        prompts, order = np.sort(order[: world.prompts_per_step]), order[world.prompts_per_step :]
        prompts = np.unique(prompts)
        table, skill = past[0]
        sampler = policy.log_probabilities(prompts, skill, table) / world.temperature
        sampler -= np.log(np.exp(sampler).sum(axis=-1, keepdims=True))
        rollouts = _sample(world, policy, prompts, sampler, world.group_size, rng)
        reward = rollouts.correct + world.length_bonus * rollouts.length
        weighed = estimator(rollouts.correct.astype(float)) if estimator.binary else estimator(reward)
        advantage = world.alter_advantages(reward, weighed)
        columns = _columns(world, policy, prompts, rollouts, sampler, rng) | {
            "epoch": np.full(rollouts.correct.size, step * world.prompts_per_step // world.n_prompts),
            "reward": reward.ravel(),
            "advantage": advantage.ravel(),
        }
        changes = _update(world, policy, prompts, rollouts, advantage, rng)
        columns["logp_after"] = _sequence_logp(policy.log_probabilities(prompts), rollouts).ravel()
        shown = world.alter_record(step, columns, before) if world.alter_record else columns
        writer.write_rollouts(step, shown)
        writer.write_metrics({"step": step, **changes, **_step_metrics(columns, rollouts)})
        before = columns
        past = [*past, (policy.table.copy(), policy.skill.copy())][-(world.lag + 1) :]
        if step % 10 == 9:
            _validate(world, policy, held_out, writer, step, rng)
    return path


def _sequence_logp(logp: FloatArray, rollouts: _Rollouts) -> FloatArray:
    sums: FloatArray = (_picked(logp, rollouts.tokens) * rollouts.mask).sum(axis=-1)
    return sums


def _columns(
    world: World, policy: _Policy, prompts: IntArray, rollouts: _Rollouts, sampler: FloatArray, rng: np.random.Generator
) -> Columns:
    logp = policy.log_probabilities(prompts)
    entropy = -(np.exp(logp) * logp).sum(axis=-1)[:, None, : world.limit]
    reported = _sequence_logp(sampler, rollouts)
    reported += rng.normal(0.0, world.noise, reported.shape) * np.sqrt(rollouts.length)
    size = rollouts.correct.shape
    return {
        "prompt_id": np.repeat([f"p{prompt}" for prompt in prompts], size[1]),
        "group_id": np.repeat(np.arange(size[0]), size[1]),
        "sample": np.tile(np.arange(size[1]), size[0]),
        "correct": rollouts.correct.ravel(),
        "n_tokens": rollouts.length.ravel().astype(int),
        "truncated": rollouts.truncated.ravel(),
        "logp": _sequence_logp(logp, rollouts).ravel(),
        "sampler_logp": np.minimum(reported, 0.0).ravel(),
        "entropy": ((entropy * rollouts.mask).sum(axis=-1) / rollouts.length).ravel(),
    }


def _step_metrics(columns: Columns, rollouts: _Rollouts) -> dict[str, float]:
    accuracy = rollouts.correct.mean(axis=1)
    reward = np.asarray(columns["reward"]).reshape(rollouts.correct.shape)
    return {
        "entropy": float(np.average(columns["entropy"], weights=columns["n_tokens"])),
        "reward": float(reward.mean()),
        "reward_std": float(reward.std(axis=1).mean()),
        "mean_length": float(rollouts.length.mean()),
        "truncated": float(rollouts.truncated.mean()),
        "all_solved": float((accuracy == 1).mean()),
        "none_solved": float((accuracy == 0).mean()),
        "zero_std": float((np.ptp(reward, axis=1) == 0).mean()),
    }


def _validate(
    world: World, policy: _Policy, problems: IntArray, writer: RunWriter, step: int, rng: np.random.Generator
) -> None:
    n = 4
    rollouts = _sample(world, policy, problems, policy.log_probabilities(problems), n, rng)
    columns = {
        "benchmark": ["held out"] * (n * len(problems)),
        "problem_id": np.repeat([f"v{problem}" for problem in problems], n),
        "sample": np.tile(np.arange(n), len(problems)),
        "greedy": [False] * (n * len(problems)),
        "temperature": [1.0] * (n * len(problems)),
        "correct": rollouts.correct.ravel(),
    }
    writer.write_evals(step, columns)
