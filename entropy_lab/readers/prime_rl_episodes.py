"""prime-rl's episodes: what the orchestrator keeps of every rollout, one line an episode, a trace or a rollout."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from entropy_lab.json_values import json_text
from entropy_lab.readers.columns import message_text
from entropy_lab.readers.prime_rl_rows import is_row, rollout_of_row
from entropy_lab.readers.records import BoolArray, FloatArray, IntArray, Record, line_records, parsed
from entropy_lab.readers.rollouts import Rollout, masked, prompt_of, token_text
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.tree import Tree

_STEP: Final = re.compile(r"step_(\d+)")
_NAME: Final = re.compile(r"(?:(train|eval)_rollouts|traces)\.jsonl(?:\.gz)?")
_KINDS: Final = ("train", "eval")
_SUBSETS: Final = ("effective", "all")
_LIMITS: Final = frozenset({"max_input_tokens", "max_output_tokens", "max_total_tokens", "length"})


@dataclass(frozen=True)
class Trace:
    """What one agent did in one episode.

    Parameters
    ----------
    rollout
        As far as the orchestrator knows it.
    ids, mask
        All tokens of the conversation and which were sampled; None when it branched into several.
    """

    rollout: Rollout
    ids: IntArray | None
    mask: BoolArray | None


def find_episodes(tree: Tree) -> dict[Path, dict[tuple[str, int], list[Path]]]:
    """Find the files of episodes: folder of the rollouts -> kind and step -> files.

    Where a step has the subset that was trained on (``effective``), that one is taken, and else ``all``.
    """
    found: dict[Path, dict[tuple[str, int], dict[str, list[Path]]]] = {}
    for file in tree.having(lambda file: bool(_NAME.fullmatch(file.name))):
        match = _NAME.fullmatch(file.name)
        if file.suffix == ".gz" and file.with_suffix("") in tree.files:
            continue
        whole = file.resolve()
        parts = whole.parts
        at = next((index for index in range(len(parts) - 1, 0, -1) if _STEP.fullmatch(parts[index])), None)
        first = tree.first_object(file)
        if at is None or match is None or (first is not None and not _is_known(first)):
            continue
        kind = match[1] or next((part for part in parts[at:] if part in _KINDS), "train")
        subset = next((part for part in parts[at:] if part in _SUBSETS), "all")
        root = whole.parents[len(parts) - 1 - at]
        key = kind, int(parts[at].removeprefix("step_"))
        found.setdefault(root, {}).setdefault(key, {}).setdefault(subset, []).append(file)
    return {
        root: {key: subsets.get("effective") or subsets["all"] for key, subsets in steps.items()}
        for root, steps in found.items()
    }


def _is_known(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("traces"), list) or isinstance(row.get("nodes"), list) or is_row(row)


def read_traces(tree: Tree, files: Sequence[Path], sink: Sink) -> list[Trace]:
    """Read the trainable traces of some files; those without a reward (which failed) are counted."""
    traces: list[Trace] = []
    for file in files:
        label = tree.label(file)
        rows = [trace for parts in parsed(line_records(file, label, sink), _traces, sink) for trace in parts]
        kept = [trace for trace in rows if trace.rollout.ours["reward"] is not None]
        if len(kept) < len(rows):
            sink.note(f"{label}: {len(rows) - len(kept):,} traces have no reward (they failed): they are left out")
        traces += kept
    for name in dict.fromkeys(name for trace in traces for name in trace.rollout.theirs):
        sink.meet([name])
    return traces


def _traces(record: Record) -> list[Trace]:
    episode = record.values
    if "traces" not in episode and is_row(episode):
        return [Trace(rollout_of_row(record), None, None)]
    traces = [episode] if "nodes" in episode else episode.get("traces") or []
    if not isinstance(traces, list) or not all(isinstance(trace, Mapping) for trace in traces):
        raise record.fault("has no list of traces")
    kept = [trace for trace in traces if _at(trace, "agent", "trainable") is not False]
    return [_trace(Record(record.label, record.place, trace), episode) for trace in kept]


def _trace(record: Record, episode: Mapping[str, Any]) -> Trace:
    trace = record.values
    nodes = [_Node(record, node) for node in trace.get("nodes") or ()]
    stamp = {**_mapping(trace.get("info")), **_mapping(_at(trace, "info", "prime_rl"))}
    group = _at(episode, "group", "id") or stamp.get("group_id", trace.get("group_id"))
    agent = _at(trace, "agent", "name")
    messages = [node.message for node in nodes]
    first = next((index for index, node in enumerate(nodes) if node.sampled), len(nodes))
    path = _only_path(nodes)
    prompt = json_text(messages[:first]) if any(messages[:first]) else token_text(_prompt_ids(nodes))
    said = [message for node, message in zip(nodes, messages, strict=True) if node.sampled and message]
    ours = {
        "reward": _reward(record),
        "advantage": _number(stamp.get("advantage", trace.get("advantage"))),
        "truncated": _truncated(trace, nodes),
        "source": _at(episode, "env", "name") or _at(episode, "env", "id") or json_text(stamp.get("env_name")),
        "prompt": _plain(messages[:first]) if any(messages[:first]) else None,
        "completion": message_text(said) if said else None,
        "answer": json_text(_at(trace, "task", "data", "answer") or _at(episode, "task", "data", "answer")),
    }
    if ours["advantage"] is None:
        del ours["advantage"]
    theirs = {
        **{f"rewards/{name}": _number(_at(part, "score")) for name, part in (trace.get("rewards") or {}).items()},
        **{f"metrics/{name}": _number(value) for name, value in (trace.get("metrics") or {}).items()},
        "episode_id": json_text(episode.get("id")),
        "stop_condition": json_text(trace.get("stop_condition")),
    }
    label = None if group is None else (str(group), str(agent))
    if path is None:
        tokens = _sampled(nodes)
        return Trace(Rollout(prompt or "", label, tokens, ours, {**theirs, "interrupted": bool(tokens)}), None, None)
    ids, mask = np.concatenate([node.ids for node in path]), np.concatenate([node.mask for node in path])
    asked, interrupted = prompt_of(ids, mask)
    tokens = {**_sampled(nodes), "prompt_token_ids": asked}
    return Trace(Rollout(prompt or "", label, tokens, ours, {**theirs, "interrupted": interrupted}), ids, mask)


class _Node:
    """One message of a trace: the tokens that it adds, and which of them the policy sampled."""

    def __init__(self, trace: Record, values: object) -> None:
        if not isinstance(values, Mapping):
            raise trace.fault("has a node that is no object")
        record = Record(trace.label, trace.place, values)
        ids = record.whole_numbers("token_ids")
        self.ids: IntArray = np.zeros(0, dtype=np.int64) if ids is None else ids
        mask = record.mask("mask", len(self.ids))
        self.mask: BoolArray = np.zeros(len(self.ids), dtype=np.bool_) if mask is None else mask
        n_sampled = int(self.mask.sum())
        self.sampled = bool(values.get("sampled")) or n_sampled > 0
        self.logp = self._of_sampled(record, "logprobs", n_sampled)
        self.advantages = self._of_sampled(record, "advantages", n_sampled)
        message = values.get("message")
        self.message = dict(message) if isinstance(message, Mapping) else {}
        self.finish = values.get("finish_reason")
        parent = values.get("parent")
        self.parent = parent if isinstance(parent, int) else None

    def _of_sampled(self, record: Record, name: str, n_sampled: int) -> FloatArray | None:
        """Take one value a sampled token, or one a token."""
        values = record.floats(name) if record.values.get(name) else None
        if values is not None and len(values) == len(self.ids):
            return masked(values, self.mask)
        if values is not None and len(values) != n_sampled:
            raise record.fault(f"has {len(values):,} values in {name}, not {n_sampled:,}", "one a sampled token")
        return values


def _only_path(nodes: Sequence[_Node]) -> list[_Node] | None:
    """Give the nodes in the order of the conversation; None when it branched, so that it makes several sequences."""
    if not nodes or not any(len(node.ids) for node in nodes):
        return None
    if all(node.parent is None for node in nodes):
        return list(nodes)
    parents = [node.parent for node in nodes]
    chained = parents == [None, *range(len(nodes) - 1)]
    return list(nodes) if chained else None


def _sampled(nodes: Sequence[_Node]) -> dict[str, Any]:
    """Join the sampled tokens of all messages, each once."""
    kept = [node for node in nodes if node.mask.any()]
    if not kept:
        return {}
    tokens: dict[str, Any] = {"token_ids": np.concatenate([node.ids[node.mask] for node in kept])}
    for name, parts in (
        ("token_sampler_logp", [node.logp for node in kept]),
        ("token_advantage", [node.advantages for node in kept]),
    ):
        there = [part for part in parts if part is not None]
        if len(there) == len(parts):
            tokens[name] = np.concatenate(there)
    return tokens


def _prompt_ids(nodes: Sequence[_Node]) -> IntArray:
    ids = np.concatenate([node.ids for node in nodes] or [np.zeros(0, dtype=np.int64)])
    mask = np.concatenate([node.mask for node in nodes] or [np.zeros(0, dtype=np.bool_)])
    prompt: IntArray = ids[: int(mask.argmax()) if mask.any() else len(ids)]
    return prompt


def _reward(record: Record) -> float | None:
    """Sum the weighted rewards; None when none was given, or one was not scored."""
    rewards = record.values.get("rewards")
    if not isinstance(rewards, Mapping):
        return None
    parts = [
        Record(record.label, f"{record.place}: reward {name}", part)
        for name, part in rewards.items()
        if isinstance(part, Mapping)
    ]
    if any("score" in part.values and part.values["score"] is None for part in parts):
        return None
    weighted = ((part.number("score"), part.number_or_none("weight")) for part in parts)
    return sum(score * (1.0 if weight is None else weight) for score, weight in weighted) if parts else None


def _truncated(trace: Mapping[str, Any], nodes: Sequence[_Node]) -> bool | None:
    """Tell whether a limit of tokens stopped the trace; None when nothing says what did."""
    calls = [call for call in trace.get("calls") or () if isinstance(call, Mapping) and not call.get("error")]
    finish = calls[-1].get("finish_reason") if calls else next((n.finish for n in reversed(nodes) if n.finish), None)
    said = [value for value in (finish, trace.get("stop_condition")) if isinstance(value, str)]
    return bool(_LIMITS & set(said)) if said else None


def _plain(messages: Sequence[Mapping[str, Any]]) -> str | None:
    """Give the text of a prompt: of one message its content, of several their JSON."""
    if len(messages) == 1 and messages[0].keys() <= {"role", "content"}:
        return json_text(messages[0].get("content"))
    return json_text(list(messages))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _at(values: object, *path: str) -> Any:  # noqa: ANN401 - JSON
    """Find a value by its path; None when it is absent."""
    for key in path:
        if not isinstance(values, Mapping):
            return None
        values = values.get(key)
    return values
