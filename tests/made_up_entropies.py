"""Responses of made-up distributions, their entropies reduced by hand, and runs that log them."""

import json

import numpy as np

import entropy_lab as el
from entropy_lab.schema import ANALYSES

V, LONGEST, LIMIT, STEPS = 7, 12, 16, 6


def responses(seed=0, n=48, fixed_length=None):
    """Token lists drawn from random distributions over V tokens, by step: entropies and log-probabilities."""
    rng = np.random.default_rng(seed)
    steps = []
    for step in range(STEPS):
        lengths = np.full(n, fixed_length) if fixed_length else rng.integers(1, LONGEST + 1, n)
        p = rng.dirichlet(np.full(V, 0.3 + 0.15 * step), lengths.sum())
        token = (p.cumsum(axis=1) > rng.random(len(p))[:, None]).argmax(axis=1)
        logp = np.log(p[np.arange(len(p)), token])
        h = -(p * np.log(np.maximum(p, 1e-300))).sum(axis=1)
        cuts = lengths.cumsum()[:-1]
        steps.append((np.split(h, cuts), np.split(logp, cuts)))
    return steps


def by_hand(rows, limit=LIMIT):
    """The six reductions, each from a padded matrix, as trainers compute them."""
    n, longest = len(rows), max(map(len, rows))
    matrix, mask = np.zeros((n, longest)), np.zeros((n, longest))
    for i, row in enumerate(rows):
        matrix[i, : len(row)], mask[i, : len(row)] = row, 1
    return {
        "token-mean": (matrix * mask).sum() / mask.sum(),
        "seq-mean-token-mean": ((matrix * mask).sum(axis=1) / mask.sum(axis=1)).mean(),
        "seq-mean-token-sum": (matrix * mask).sum(axis=1).mean(),
        "seq-mean-token-sum-norm": ((matrix * mask).sum(axis=1) / limit).mean(),
        "padded-mean": matrix.mean(),
        "token-sum": (matrix * mask).sum(),
    }


def write_run(path, steps, logged=None, columns=("entropy", "logp"), tokens=False, **info):
    writer = el.RunWriter(path, method={"name": "mine", "params": {}})
    file = writer.path / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | info))
    for step, (h, logp) in enumerate(steps):
        n = len(h)
        known = {"entropy": [row.mean() for row in h], "logp": [row.sum() for row in logp]}
        known = {name: known[name] for name in columns}
        if tokens:
            known |= {"token_entropy": h, "token_logp": logp, "token_ids": [np.zeros(len(row), int) for row in h]}
            known = {name: [list(map(float, row)) for row in values] if name in ("token_entropy", "token_logp")
                     else [row.tolist() for row in values] if name == "token_ids" else values
                     for name, values in known.items()}  # fmt: skip
        key = {"prompt_id": [f"q{i // 4}" for i in range(n)], "group_id": np.arange(n) // 4, "sample": np.arange(n) % 4}
        writer.write_rollouts(
            step, {**key, "reward": np.zeros(n), "correct": [None] * n, "n_tokens": [len(row) for row in h], **known}
        )
        if logged:
            writer.write_metrics({"step": step, **{name: values[step] for name, values in logged.items()}})
    return writer.path


def audit(path):
    frame = el.analyze(path, "entropy_audit").frame
    assert tuple(frame.columns) == tuple(ANALYSES["entropy_audit"])
    return {row["name"]: row for row in frame.iter_rows(named=True)}
