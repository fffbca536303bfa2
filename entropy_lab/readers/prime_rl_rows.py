"""prime-rl's ``train_rollouts.jsonl`` before it kept traces: a row of verifiers a rollout, mostly without tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from entropy_lab.json_values import json_text
from entropy_lab.readers.columns import message_text
from entropy_lab.readers.records import Record
from entropy_lab.readers.rollouts import Rollout, masked

_KEYS: Final = frozenset({"prompt", "completion", "reward"})
_KEPT: Final = ("example_id", "is_completed", "is_filtered", "stop_condition", "error")


def is_row(values: Mapping[str, object]) -> bool:
    """Tell such a row.

    Examples
    --------
    >>> is_row({"example_id": 3, "prompt": "3+4=", "completion": "7", "reward": 1.0}), is_row({"nodes": []})
    (True, False)
    """
    return values.keys() >= _KEYS


def rollout_of_row(record: Record) -> Rollout:
    """Take a row: groups are the rollouts of one example of one environment, as the orchestrator counts them.

    Raises
    ------
    RunFormatError
        The reward or the advantage is no number, or a turn's values are not one a token.
    """
    row = record.values
    environment = json_text(row.get("env_name") or row.get("task"))
    example = row.get("group_id", row.get("example_id"))
    prompt = _plain(row.get("prompt"))
    ours = {
        "reward": record.number_or_none("reward"),
        "truncated": row["is_truncated"] if isinstance(row.get("is_truncated"), bool) else None,
        "source": environment,
        "prompt": prompt,
        "completion": message_text(row.get("completion")),
        "answer": json_text(row.get("answer")) or None,
    }
    if row.get("advantage") is not None:
        ours["advantage"] = record.number("advantage")
    metrics = row.get("metrics")
    theirs = {key: row[key] for key in _KEPT if row.get(key) is not None}
    if isinstance(metrics, Mapping):
        theirs |= {f"metrics/{name}": value for name, value in metrics.items()}
    label = None if example is None else (environment, str(example))
    tokens, n_turns = _tokens(record)
    return Rollout(prompt or "", label, tokens, ours, {**theirs, "interrupted": n_turns > 1} if tokens else theirs)


def _tokens(record: Record) -> tuple[dict[str, Any], int]:
    """Join what was sampled in all turns; nothing when the trajectory, or the tokens of a turn, are not kept."""
    turns = record.values.get("trajectory")
    parts = [turn.get("tokens") for turn in turns or () if isinstance(turn, Mapping)]
    kept_parts = [part for part in parts if isinstance(part, Mapping)]
    if not kept_parts or len(kept_parts) < len(parts):
        return {}, 0
    sampled: dict[str, list[Any]] = {"token_ids": [], "token_sampler_logp": []}
    records = [Record(record.label, f"{record.place}, turn {n}", part) for n, part in enumerate(kept_parts)]
    for turn in records:
        ids = turn.whole_numbers("completion_ids")
        if ids is None:
            return {}, 0
        mask = turn.mask("completion_mask", len(ids))
        kept = np.ones(len(ids), dtype=np.bool_) if mask is None else mask
        sampled["token_ids"].append(ids[kept])
        sampled["token_sampler_logp"].append(masked(turn.floats("completion_logprobs", len(ids)), kept))
    whole = {name: np.concatenate(part) for name, part in sampled.items() if all(one is not None for one in part)}
    return {**whole, "prompt_token_ids": records[0].whole_numbers("prompt_ids")}, len(records)


def _plain(value: object) -> str | None:
    """Give the text of a prompt: of one message its content, of several their JSON."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], Mapping):
        message = {key: part for key, part in value[0].items() if part is not None}
        if message.keys() <= {"role", "content"}:
            return json_text(message.get("content"))
    return json_text(value)
