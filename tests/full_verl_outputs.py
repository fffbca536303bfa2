"""What a small training of verl leaves, our record and verl's dump, and the advantages that it should have had."""

import json
from collections import defaultdict

import numpy as np

import entropy_lab as el


def record_of(out):
    return el.open_run(out / "out" / "entropy-lab")


def rows_of(out):
    return record_of(out).scan().collect()


def dumped(out):
    """verl's own dump of rollouts: the rows of each of its steps."""
    files = sorted((out / "dump").glob("*.jsonl"), key=lambda file: int(file.stem))
    return {int(file.stem): [json.loads(line) for line in file.read_text().splitlines()] for file in files}


def closed_form(reward_G, beta_pos, beta_neg):
    p = np.mean(reward_G)
    if p in (0.0, 1.0):
        return np.zeros(len(reward_G))
    return np.where(np.array(reward_G) == 1, ((1 - p) / p) ** beta_pos, -((p / (1 - p)) ** beta_neg))


def wanted(rows, beta_pos=0.9, beta_neg=0.4):
    """Closed form of the advantage of every key in a step of verl's dump: of the last outputs of its sessions."""
    last = {}
    for row in rows:
        uid, session, output = row["uid"].rsplit("_", 2)
        last[uid, session] = max(last.get((uid, session), (-1, 0.0)), (int(output), row["score"]))
    groups = defaultdict(dict)
    for (uid, session), (_, score) in last.items():
        groups[uid][session] = score
    found = {}
    for uid, scores in groups.items():
        for session, advantage in zip(scores, closed_form(list(scores.values()), beta_pos, beta_neg), strict=True):
            found[uid, session] = advantage
    return found
