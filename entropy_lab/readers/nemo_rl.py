"""NeMo-RL: ``train_data_step{N}.jsonl`` and ``val_data_step{N}.jsonl`` of its logger, and its scalars.

Every value of a row is a list of one element. Per-token arrays cover prompt, response and padding: only the positions
of ``token_loss_mask`` are of the response. NeMo-RL counts updates from 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from entropy_lab.json_values import json_text
from entropy_lab.readers.answers import Answer, write_answers
from entropy_lab.readers.dialects import read_scalars, sighting, spoken_logs
from entropy_lab.readers.reader import Reader, Sighting
from entropy_lab.readers.records import Record, line_records, parsed
from entropy_lab.readers.rollouts import Rollout, all_zero, masked, prompt_of, token_text, without, write_rollouts
from entropy_lab.readers.scalars import Dialect, deliver
from entropy_lab.readers.settings import look_up, read_yaml, unwrapped
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.step_folders import by_folder, one_run
from entropy_lab.readers.tree import Tree

DIALECT: Final = Dialect(
    signature=frozenset(
        {
            "train/approx_entropy",
            "train/token_mult_prob_error",
            "train/gen_kl_error",
            "train/policy_kl_error",
            "train/sampling_importance_ratio",
            "train/baseline_reward/pct_mixed",
            "train/mean_gen_tokens_per_sample",
        }
    ),
    # approx_entropy is a Monte Carlo estimate, and sums over mini-batches are no means: they keep their own names.
    names={"train/reward": "reward", "train/lr": "lr", "train/mean_gen_tokens_per_sample": "mean_length"},
)

_FILE: Final = re.compile(r"(train|val)_data_step(\d+)\.jsonl")
_SIZE: Final = "grpo.num_generations_per_prompt"
_TOKENS: Final = {
    "token_logp": "prev_logprobs",
    "token_sampler_logp": "generation_logprobs",
    "token_advantage": "advantages",
}
_MOVED: Final = frozenset(
    {"rewards", "filtered_rewards", "input_lengths", "token_ids", "token_loss_mask", "idx", *_TOKENS.values()}
)


def recognise(tree: Tree) -> Sighting | None:
    """See the logger's files, and scalars such as ``train/approx_entropy``."""
    evidence, versions = [], []
    for kind, title in (("train", "training data"), ("val", "validation data")):
        for files in by_folder(_files(tree, kind)).values():
            keys = next((", ".join(row) for file in files.values() if (row := tree.first_object(file))), "no row yet")
            evidence.append(f"{tree.named(list(files.values()))}: {keys}")
            versions.append(title)
    return sighting(evidence, versions, spoken_logs(tree, DIALECT), DIALECT)


def convert(tree: Tree, sink: Sink) -> None:
    """Join training data, validation data, settings and scalars into one run."""
    rows, logged = read_scalars(tree, sink, DIALECT)
    settings = _settings(tree, sink) or logged
    size = _facts(settings, sink)
    drawn = one_run(by_folder(_files(tree, "train")), tree, sink)
    early = 0 in drawn
    if early:
        sink.note(
            "train_data_step{N} counts from 0, as in older releases: N is our step, and step N + 1 of the scalars"
        )
    for step, file in drawn.items():
        _write_step(tree, step + early, file, size, sink)
    passes = one_run(by_folder(_files(tree, "val")), tree, sink)
    for step, file in passes.items():
        label = tree.label(file)
        answers = list(parsed(_records(file, label, sink), _answer, sink))
        write_answers(sink, step, answers, label, early=1 in passes)
    if any("train/approx_entropy" in row for row in rows.values()):
        sink.note("train/approx_entropy is a Monte Carlo estimate of the sampled tokens: it is kept under its own name")
    deliver(rows, DIALECT.names, sink)


def _files(tree: Tree, kind: str) -> Iterator[tuple[int, Path]]:
    for file in tree.files:
        if (match := _FILE.fullmatch(file.name)) and match[1] == kind:
            yield int(match[2]), file


def _settings(tree: Tree, sink: Sink) -> dict[str, Any]:
    """Read the master configuration that checkpoints keep."""
    for file in tree.having(lambda file: file.name in ("config.yaml", "config.yml")):
        if b"num_generations_per_prompt" in tree.head(file, 1_000_000):
            return unwrapped(read_yaml(file, tree.label(file), sink))
    return {}


def _facts(settings: Mapping[str, Any], sink: Sink) -> int:
    """Keep what the settings say, and give the group size; 0 when it is unknown."""
    if not settings:
        return 0
    size = look_up(settings, _SIZE)
    chosen = ("loss_fn.ratio_clip_min", "loss_fn.ratio_clip_max", "grpo.normalize_rewards", "grpo.use_dynamic_sampling")
    params = {path: value for path in chosen if (value := look_up(settings, path)) is not None}
    sink.facts["config"] = dict(settings)
    sink.facts["method"] = {"name": "grpo", "params": params, "label": "GRPO (NeMo-RL)"}
    if model := look_up(settings, "policy.model_name"):
        sink.facts["model"] = model
    if not isinstance(size, int) or size < 1:
        return 0
    sink.facts["group_size"] = size
    return size


def _records(file: Path, label: str, sink: Sink) -> Iterator[Record]:
    """Yield the rows, each value out of its list of one."""
    for record in line_records(file, label, sink):
        row = record.values.items()
        values = {key: part[0] if isinstance(part, list) and len(part) == 1 else part for key, part in row}
        yield Record(label, record.place, values)


def _write_step(tree: Tree, step: int, file: Path, size: int, sink: Sink) -> None:
    label = tree.label(file)
    rollouts = list(parsed(_records(file, label, sink), lambda record: _rollout(record, step, size), sink))
    for name, theirs, what in (
        ("token_logp", "prev_logprobs", "the trainer's pass was skipped, and `logp` is absent"),
        ("token_sampler_logp", "generation_logprobs", "`sampler_logp` is absent"),
    ):
        if all_zero(rollouts, name):
            sink.note(f"{label}: {theirs} is zero everywhere: {what}")
            rollouts = without(rollouts, name)
    if not size and rollouts:
        sink.note(f"{_SIZE} is not recorded: groups are runs of equal prompts, in the order of the rows")
    write_rollouts(sink, step, rollouts, label, size)


def _rollout(record: Record, step: int, size: int) -> Rollout:
    row = record.values
    reward = record.number("filtered_rewards" if "filtered_rewards" in row else "rewards")
    theirs = {key: value for key, value in row.items() if key not in _MOVED}
    if "filtered_rewards" in row:
        theirs["unfiltered_reward"] = record.number("rewards")
    ids = record.whole_numbers("token_ids")
    mask = record.mask("token_loss_mask", None if ids is None else len(ids))
    if ids is None or mask is None:  # older releases: neither the prompt nor the response can be told apart
        if not size:
            wrong = "has no token_ids and token_loss_mask, as an older NeMo-RL: rows cannot be grouped"
            raise record.fault(wrong, f"these, or a config.yaml with {_SIZE} in the directory")
        group = record.whole("idx") // size
        return Rollout(f"step {step}, group {group}", group, ours={"reward": reward}, theirs=theirs)
    if row.get("input_lengths") is not None:
        mask[record.whole("input_lengths") :] = False
    prompt, interrupted = prompt_of(ids, mask)
    tokens = {ours: masked(record.floats(name, len(ids)), mask) for ours, name in _TOKENS.items()}
    return Rollout(
        token_text(prompt),
        tokens={**tokens, "token_ids": ids[mask], "prompt_token_ids": prompt},
        ours={"reward": reward},
        theirs={**theirs, "interrupted": interrupted},
    )


def _answer(record: Record) -> Answer:
    """Take an answer of a validation pass; its content is a list of messages, or their text."""
    reward, content = record.number("rewards"), record.values.get("content")
    theirs = {key: value for key, value in record.values.items() if key not in ("content", "rewards", "idx")}
    if not isinstance(content, list) or not all(isinstance(message, Mapping) for message in content):
        return Answer(f"row {record.whole('idx')}", reward, {"completion": json_text(content)}, theirs)
    roles = [message.get("role") for message in content]
    first = roles.index("assistant") if "assistant" in roles else len(roles)
    prompt = json_text([{key: message.get(key) for key in ("role", "content")} for message in content[:first]])
    said = [str(message.get("content")) for message in content if message.get("role") == "assistant"]
    return Answer(prompt or "", reward, {"prompt": prompt, "completion": "\n".join(said)}, theirs)


READER: Final = Reader(
    name="nemo_rl",
    title="NeMo-RL",
    recognise=recognise,
    convert=convert,
    how_to_record={
        "rollouts": "logger.log_dir holds train_data_step{N}.jsonl, unless env.should_log_nemo_gym_responses=true",
        "logp": "the trainer's pass over previous log-probabilities, which this run skipped",
        "sampler_logp": "generation_logprobs of the generation engine",
        "entropy": "entropy-lab score RUN --model CHECKPOINT computes it; NeMo-RL itself logs a Monte Carlo estimate",
        "logp_after": "entropy-lab score RUN --model CHECKPOINT --after CHECKPOINT computes it",
        "truncated": "NeMo-RL records it as a scalar only",
        "correct": "rewards of 0 and 1, or --correct-above X on the reward",
        "evals": "grpo.val_period=K writes val_data_step{N}.jsonl",
        "metrics": "logger.tensorboard_enabled=true, or wandb_enabled=true, writes them",
    },
)
