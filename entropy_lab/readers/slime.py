"""slime: ``--dump-details`` (``rollout_data/*.pt`` and ``train_data/*.pt``), and its scalars.

The rollout file has texts, groups and rewards, the train file the trainer's log-probabilities, advantages and, with
``--use-rollout-entropy``, entropies. Both are files of torch, read with ``weights_only=True``. slime counts from 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from entropy_lab.errors import RunFormatError
from entropy_lab.readers.answers import Answer, write_answers
from entropy_lab.readers.columns import message_text
from entropy_lab.readers.dialects import read_scalars, sighting, spoken_logs
from entropy_lab.readers.reader import Reader, Sighting
from entropy_lab.readers.records import BoolArray, Record, parsed
from entropy_lab.readers.rollouts import Rollout, all_zero, masked, prompt_of, token_text, without, write_rollouts
from entropy_lab.readers.scalars import deliver
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.slime_ranks import by_position, rank_records, rank_step
from entropy_lab.readers.slime_scalars import DIALECT, by_rollout, names_of
from entropy_lab.readers.step_folders import by_folder, home, one_run
from entropy_lab.readers.torch_file import load_arrays
from entropy_lab.readers.tree import Tree

_FILE: Final = re.compile(r"(?:.*[_-])?(\d+)\.pt")
_EVAL: Final = re.compile(r"(?:.*_)?eval_\d+\.pt")
_TRAIN_KEY: Final = re.compile(rb"[\x00\x0e]format_version")
"""The key as pickles write it, behind its length; torch has a record of this name in every file of its own."""

_TRAINED: Final = {
    "token_logp": "log_probs",
    "token_sampler_logp": "rollout_log_probs",
    "token_entropy": "entropy",
    "token_advantage": "advantages",
}
_KEPT: Final = ("index", "status", "metadata", "weight_versions", "remove_sample")


@dataclass(frozen=True)
class Dumps:
    """The files of a directory by what they hold: rollouts, training data, validation passes."""

    rollouts: dict[Path, dict[int, Path]]
    train: dict[Path, dict[int, list[Path]]]
    evals: dict[Path, dict[int, Path]]


def find_dumps(tree: Tree) -> Dumps:
    """Find the files by their folder's name, or by the keys that stand at their beginning."""
    found: dict[str, list[tuple[int, Path]]] = {"rollout": [], "train": [], "eval": []}
    train: dict[Path, dict[int, list[Path]]] = {}
    for file in tree.having(lambda file: file.suffix == ".pt"):
        head = tree.head(file, 4096)
        match = _FILE.fullmatch(file.name)
        if (step := rank_step(file.name, head)) is not None:
            train.setdefault(file.parent, {}).setdefault(step, []).append(file)
        elif match and (kind := _kind(home(file).name, head)) == "train":
            train.setdefault(file.parent, {})[int(match[1])] = [file]
        elif match and kind:
            found["eval" if _EVAL.fullmatch(file.name) else kind].append((int(match[1]), file))
    return Dumps(by_folder(found["rollout"]), train, by_folder(found["eval"]))


def _kind(folder: str, head: bytes) -> str:
    if b"rollout_id" in head and b"samples" in head:
        return "train" if _TRAIN_KEY.search(head) or folder == "train_data" else "rollout"
    # A file that is damaged is missed by what it holds, and must not be passed over.
    return {"rollout_data": "rollout", "train_data": "train"}.get(folder, "")


def recognise(tree: Tree) -> Sighting | None:
    """See dumps in ``rollout_data`` and ``train_data``, and scalars such as ``rollout/raw_reward``."""
    dumps, logs = find_dumps(tree), spoken_logs(tree, DIALECT)
    evidence, versions = [], []
    for title, files in (
        *(("rollout data", list(files.values())) for files in dumps.rollouts.values()),
        *(("train data", [part for parts in files.values() for part in parts]) for files in dumps.train.values()),
        *(("validation data", list(files.values())) for files in dumps.evals.values()),
    ):
        evidence.append(f"{tree.named(files)}: {title}")
        versions.append(title)
    return sighting(evidence, versions, logs, DIALECT)


def convert(tree: Tree, sink: Sink) -> None:
    """Join rollout data, train data and scalars into one run."""
    logged, settings = read_scalars(tree, sink, DIALECT)
    rows = by_rollout(logged, settings, sink)
    if settings:
        sink.facts["config"] = dict(settings)
        if isinstance(size := settings.get("n_samples_per_prompt"), int):
            sink.facts["group_size"] = size
    dumps = find_dumps(tree)
    drawn, trained = one_run(dumps.rollouts, tree, sink), one_run(dumps.train, tree, sink)
    for step in sorted({*drawn, *trained}):
        _write_step(tree, step, drawn.get(step), trained.get(step, []), sink)
    for step, file in one_run(dumps.evals, tree, sink).items():
        label = tree.label(file)
        samples = _samples(file, label, sink)[0]
        write_answers(sink, step + 1, list(parsed(samples, lambda row: _answer(row, sink), sink)), label)
    if any("rollout/entropy" in row for row in rows.values()):
        sink.note("rollout/entropy is averaged over each response first: it is kept under its own name")
    deliver(rows, names_of(rows), sink)


class _Sample(Record):
    """A sample of the rollout data, with what the trainer made of it."""

    trained: Record | None = None
    raw_reward: float | None = None


def _samples(file: Path, label: str, sink: Sink) -> tuple[list[_Sample], Mapping[str, Any]]:
    """Read the samples of a file, and all that it holds; nothing of a damaged one with ``skip_invalid``."""
    try:
        content = load_arrays(file, label)
        samples = content.get("samples") if isinstance(content, Mapping) else None
        if not isinstance(samples, list) or not all(isinstance(sample, Mapping) for sample in samples):
            keys = ", ".join(map(str, content))[:80] if isinstance(content, Mapping) else type(content).__name__
            allowed = "a dump of slime: rollout_id and samples (train data: of format_version 2)"
            raise RunFormatError(label, f"has no samples (it holds {keys})", allowed)
    except RunFormatError as error:
        if not sink.options.skip_invalid:
            raise
        sink.warn(f"left out: {label}: {error.wrong}")
        return [], {}
    return [_Sample(label, f"sample {number}", sample) for number, sample in enumerate(samples)], content


def _write_step(tree: Tree, step: int, drawn: Path | None, trained: list[Path], sink: Sink) -> None:
    where = tree.label(drawn or trained[0])
    samples = dict(enumerate(_samples(drawn, where, sink)[0])) if drawn else {}
    train, raw_rewards = _trained(tree, trained, samples, sink) if trained else ({}, {})
    if not samples:
        sink.note("steps without rollout data: equal prompts make a group, and texts are absent")
        samples = {position: _Sample(record.label, record.place, {}) for position, record in train.items()}
    if absent := sorted(train.keys() - samples.keys()):
        wrong = f"has {len(samples):,} samples, but {tree.label(trained[0])} one of position {absent[0]:,}"
        raise RunFormatError(where, wrong, "rollout data and train data of one run")
    for position, sample in samples.items():
        sample.trained, sample.raw_reward = train.get(position), raw_rewards.get(position)
        sink.meet(sample.values)
    rollouts = list(parsed(samples.values(), lambda row: _rollout(row, sink), sink))
    if train and len(train) < len(samples):
        n_alone = len(samples) - len(train)
        sink.note(
            f"{where}: {n_alone:,} of {len(samples):,} rollouts were not trained on: the trainer's values are null"
        )
    if all_zero(rollouts, "token_logp"):
        sink.note(f"{where}: log_probs is zero everywhere: `logp` is absent")
        rollouts = without(rollouts, "token_logp")
    write_rollouts(sink, step, rollouts, where)


def _trained(
    tree: Tree, files: list[Path], samples: Mapping[int, Record], sink: Sink
) -> tuple[dict[int, Record], dict[int, float]]:
    """Read train data: position in the rollout data -> sample, and -> reward before it was normalised."""
    found: dict[int, Record] = {}
    label = tree.label(files[0])
    if rank_step(files[0].name, tree.head(files[0], 4096)) is not None:
        records, raw = rank_records(files, tree.label, sink)
        found = by_position(records, samples) if samples else _of_ranks(records, sink)
        if records and not found:
            wrong = f"has other tokens than the rollout data of its step ({len(samples):,} samples)"
            raise RunFormatError(label, wrong, "rollout data and train data of one run")
        raw = raw if len(raw) == len(samples) else []
    else:
        own, content = _samples(files[0], label, sink)
        for record in own:
            if found.setdefault(record.whole("rollout_position"), record) is not record:
                raise record.fault(f"repeats rollout_position {record.values['rollout_position']}", "each once")
        stated = content.get("raw_reward")
        raw = stated if isinstance(stated, list) else []
    return found, {at: float(value) for at, value in enumerate(raw) if isinstance(value, int | float)}


def _of_ranks(records: list[Record], sink: Sink) -> dict[int, Record]:
    """Give the samples numbers; their rewards are normalised, and which raw reward is whose is not kept."""
    sink.note("train data of ranks without rollout data: rewards are normalised, and left out")
    plain = ({name: part for name, part in one.values.items() if name != "rewards"} for one in records)
    return {at: Record(one.label, one.place, row) for at, (one, row) in enumerate(zip(records, plain, strict=True))}


def _rollout(record: _Sample, sink: Sink) -> Rollout:
    row, trained = record.values, record.trained
    source = record if row.get("tokens") is not None or trained is None else trained
    ids = source.whole_numbers("tokens")
    if ids is None:
        raise record.fault("has no tokens")
    others = None if trained is None else trained.whole_numbers("tokens")
    if trained is not None and (others is None or not np.array_equal(ids, others)):
        wrong = f"has other tokens than {trained.place} of {trained.label}"
        raise record.fault(wrong, "rollout data and train data of one run")
    length = source.whole("response_length" if "response_length" in source.values else "response_lengths")
    if length > len(ids):
        raise record.fault(f"has a response of {length:,} tokens among {len(ids):,}")
    mask = _mask(record, length)
    whole = np.append(np.zeros(len(ids) - length, dtype=np.bool_), mask)
    prompt, interrupted = prompt_of(ids, whole)
    tokens: dict[str, Any] = {"token_ids": ids[whole], "prompt_token_ids": prompt}
    if trained is not None:
        tokens |= {ours: masked(trained.floats(name, length), mask) for ours, name in _TRAINED.items()}
    if tokens.get("token_sampler_logp") is None:
        tokens["token_sampler_logp"] = masked(record.floats("rollout_log_probs", length), mask)
    reward, parts = _reward(record, sink)
    status = row.get("status")
    ours = {
        "reward": reward,
        "truncated": None if status is None else status == "truncated",
        "prompt": message_text(row.get("prompt")),
        "completion": record.text("response"),
        "answer": record.text("label"),
    }
    theirs = {key: row[key] for key in _KEPT if row.get(key) not in (None, {}, [])} | {"interrupted": interrupted}
    if trained is not None and "rewards" in trained.values:
        theirs["normalised_reward"] = trained.number("rewards")
    return Rollout(token_text(prompt), row.get("group_index"), tokens, ours, {**theirs, **parts})


def _mask(record: _Sample, length: int) -> BoolArray:
    """Give the response tokens that the policy sampled; of a sample that was left out of the loss, all."""
    mask = record.mask("loss_mask", length)
    if mask is None and record.trained is not None:
        mask = record.trained.mask("loss_masks", length)
    return np.ones(length, dtype=np.bool_) if mask is None or not mask.any() else mask


def _reward(record: _Sample, sink: Sink) -> tuple[float | None, dict[str, Any]]:
    """Give the reward before normalisation, and the parts of one that has several."""
    value = record.values.get("reward")
    if isinstance(value, bool | int | float):
        return record.number("reward"), {}
    named_parts = dict(value) if isinstance(value, Mapping) else {}
    sink.meet(map(str, named_parts))
    parts = {f"reward/{name}": part for name, part in named_parts.items()}
    named = parts.get(f"reward/{sink.options.theirs('reward')}", record.raw_reward)
    if isinstance(named, bool | int | float):
        return float(named), parts
    if parts:
        wrong = f"{record.place} has the rewards {', '.join(map(str, named_parts))}"
        allowed = "train data beside it, whose raw_reward says which counts"
        raise RunFormatError(record.label, wrong, allowed, "--map reward=NAME chooses one")
    return (None if record.trained is None else record.trained.number_or_none("rewards")), {}


def _answer(record: _Sample, sink: Sink) -> Answer:
    reward, parts = _reward(record, sink)
    prompt = message_text(record.values.get("prompt"))
    ours = {
        "benchmark": "evaluation",
        "prompt": prompt,
        "completion": record.text("response"),
        "answer": record.text("label"),
        "n_tokens": record.whole("response_length") if "response_length" in record.values else None,
    }
    return Answer(prompt or "", reward, ours, parts)


READER: Final = Reader(
    name="slime",
    title="slime",
    recognise=recognise,
    convert=convert,
    how_to_record={
        "rollouts": "--dump-details DIR writes them",
        "reward": "--dump-details DIR writes rollout_data and train_data, which have it",
        "n_tokens": "--dump-details DIR writes it",
        "logp": "--dump-details DIR writes train_data, which has it",
        "entropy": "--use-rollout-entropy with --dump-details DIR records it",
        "logp_after": "entropy-lab score RUN --model CHECKPOINT --after CHECKPOINT computes it",
        "sampler_logp": "--dump-details DIR writes it, as rollout_log_probs",
        "advantage": "--dump-details DIR writes train_data, which has it",
        "truncated": "--dump-details DIR writes rollout_data, whose status says it",
        "correct": "rewards of 0 and 1, --map correct=reward/NAME for one of several, or --correct-above X",
        "evals": "--dump-details DIR with --eval-interval K writes rollout_data/eval_{id}.pt",
        "metrics": "--use-tensorboard, or --use-wandb, writes them",
    },
    step_offset=0,
)
