"""Tinker cookbook: summaries of its rollouts, and ``metrics.jsonl``.

A summary has reward, group and lengths; no text, no token and no log-probability. ``optim/entropy`` is minus the mean
log-probability of the sampled tokens, an estimate: it keeps its own name. Iterations count from 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from entropy_lab.errors import RunFormatError
from entropy_lab.readers.answers import Answer, write_answers
from entropy_lab.readers.dialects import read_scalars, sighting, spoken_logs
from entropy_lab.readers.reader import Reader, Sighting
from entropy_lab.readers.records import Record, line_records, of_step, parsed
from entropy_lab.readers.rollouts import Rollout, write_rollouts
from entropy_lab.readers.scalars import Dialect, deliver
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.step_folders import home
from entropy_lab.readers.tree import Tree

DIALECT: Final = Dialect(
    signature=frozenset({"optim/entropy", "optim/kl_sample_train_v1", "env/all/by_group/frac_mixed"}),
    # by_group/frac_all_good are groups whose rewards are equal and 0.5 or more, which need not be solved; they keep
    # their names.
    names={
        "optim/lr": "lr",
        "env/all/reward/total": "reward",
        "env/all/total_ac_tokens": "n_tokens",
        "kl_policy_base": "reference_kl",
    },
)
_SINGLE_TURN: Final = {"env/all/ac_tokens_per_turn": "mean_length"}
_TURNS: Final = "env/all/turns_per_episode"

_FILE: Final = re.compile(r"(.+)_rollout_summaries\.jsonl")
_FOLDER: Final = re.compile(r"iteration_(\d+)")
_KEYS: Final = frozenset({"group_idx", "traj_idx", "total_reward", "steps"})


def recognise(tree: Tree) -> Sighting | None:
    """See summaries of rollouts, and scalars such as ``optim/kl_sample_train_v1``."""
    files, logs = _files(tree), spoken_logs(tree, DIALECT)
    evidence, versions = [], []
    if files:
        names = sorted({name for name, _ in files})
        evidence.append(
            f"{tree.label(next(iter(files.values())))}: {len(files):,} files of summaries: {', '.join(names)}"
        )
        versions.append("rollout summaries")
    return sighting(evidence, versions, logs, DIALECT)


def convert(tree: Tree, sink: Sink) -> None:
    """Join summaries and scalars into one run."""
    rows, settings = read_scalars(tree, sink, DIALECT)
    if settings:
        sink.facts["config"] = dict(settings)
    files = _files(tree)
    if any(name == "train" for name, _ in files):
        sink.note("summaries have no prompt: each group counts as a prompt of its own")
    for (name, step), file in files.items():
        label = tree.label(file)
        records = of_step(line_records(file, label, sink), "iteration", step, sink)
        if name == "train":
            write_rollouts(sink, step, list(parsed(records, _rollout, sink)), label)
        else:
            answers = [_answer(record, name) for record in records]
            write_answers(sink, step, answers, label, early=(name, 1) in files)
    if any("optim/entropy" in row for row in rows.values()):
        sink.note("optim/entropy is a Monte Carlo estimate of the sampled tokens: it is kept under its own name")
    single = all(row.get(_TURNS, 1.0) == 1.0 for row in rows.values())
    deliver(rows, {**DIALECT.names, **(_SINGLE_TURN if single else {})}, sink)


def _files(tree: Tree) -> dict[tuple[str, int], Path]:
    """Find the summaries: split and iteration -> file."""
    roots: dict[Path, dict[tuple[str, int], Path]] = {}
    for file in tree.having(lambda file: bool(_FILE.fullmatch(file.name))):
        match, place = _FILE.fullmatch(file.name), _FOLDER.fullmatch(home(file).name)
        first = tree.first_object(file)
        if match and place and (first is None or first.keys() >= _KEYS):
            roots.setdefault(home(file).parent, {})[match[1], int(place[1])] = file
    if len(roots) > 1:
        names = ", ".join(root.name for root in roots)
        hint = f"entropy-lab analyze {min(roots)}"
        raise RunFormatError(str(tree.path), f"holds summaries of {len(roots)} runs: {names}", "one run", hint)
    return dict(sorted(next(iter(roots.values()), {}).items()))


def _parts(record: Record) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give length and truncation of a trajectory, and its metrics."""
    turns = record.values.get("steps")
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        raise record.fault("has no list of steps")
    lengths = [Record(record.label, record.place, turn) for turn in turns]
    reason = turns[-1].get("stop_reason") if turns else None
    ours = {
        "n_tokens": sum(turn.whole("ac_len") for turn in lengths),
        "truncated": None if reason is None else reason == "length",
    }
    metrics: dict[str, Any] = {}
    for part in (*(turn.get("metrics") for turn in turns), record.values.get("trajectory_metrics")):
        metrics |= dict(part) if isinstance(part, Mapping) else {}
    kept = ("final_reward", "final_ob_len", "sampling_client_step")
    return ours, {**metrics, **{key: record.values[key] for key in kept if record.values.get(key) is not None}}


def _rollout(record: Record) -> Rollout:
    ours, theirs = _parts(record)
    tags = record.values.get("tags")
    group = record.whole("group_idx")
    ours |= {
        "reward": record.number("total_reward"),
        "source": ", ".join(map(str, tags)) if isinstance(tags, list) and tags else None,
    }
    return Rollout(f"{record.label}: group {group}", group, {}, ours, theirs)


def _answer(record: Record, name: str) -> Answer:
    ours, theirs = _parts(record)
    answer = {"benchmark": name.removeprefix("eval_"), "n_tokens": ours["n_tokens"]}
    return Answer(f"group {record.whole('group_idx')}", record.number("total_reward"), answer, theirs)


_RECORDER: Final = "entropy_lab.Recorder in the training loop records it"

READER: Final = Reader(
    name="tinker",
    title="Tinker cookbook",
    recognise=recognise,
    convert=convert,
    how_to_record={
        "rollouts": "rollout_json_export=True (the default) writes summaries",
        "logp": _RECORDER,
        "entropy": f"{_RECORDER}; the cookbook itself logs a Monte Carlo estimate",
        "logp_after": _RECORDER,
        "sampler_logp": _RECORDER,
        "advantage": f"{_RECORDER}; the cookbook takes the reward minus its group's mean",
        "truncated": "summaries of newer releases say stop_reason",
        "correct": "--map correct=METRIC names a metric of 0 and 1, or --correct-above X sets a threshold",
        "evals": "evaluations that roll out write eval_NAME_rollout_summaries.jsonl",
        "metrics": "the cookbook writes metrics.jsonl",
    },
    step_offset=0,
)
