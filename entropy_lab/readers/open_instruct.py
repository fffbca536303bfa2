"""open-instruct: the shards of ``--save_traces``, and its scalars.

A row has prompt and response as token ids, reward, advantage, the engine's log-probabilities and ``prompt_idx``, which
makes its group; there is no text, no log-probability of the trainer and no entropy. open-instruct counts from 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from entropy_lab.errors import RunFormatError
from entropy_lab.readers.dialects import described, read_scalars, spoken_logs
from entropy_lab.readers.reader import Reader, Sighting
from entropy_lab.readers.records import Record, line_records, parsed
from entropy_lab.readers.rollouts import Rollout, token_text, write_rollouts
from entropy_lab.readers.scalars import Dialect, deliver
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.tree import Tree, cannot_read

DIALECT: Final = Dialect(
    signature=frozenset({"loss/kl_avg", "objective/kl_avg", "objective/verifiable_correct_rate"}),
    # How policy/entropy_avg is averaged is not verified: it keeps its own name.
    names={},
)

_SHARD: Final = re.compile(r"(.+)_rollouts_(\d+)\.jsonl")
_KEYS: Final = frozenset({"prompt_idx", "prompt_tokens", "response_tokens", "reward"})
_STEP: Final = re.compile(rb'"step":\s*(-?\d+)')
_KEPT: Final = ("sample_idx", "prompt_idx", "finish_reason", "request_info")


def recognise(tree: Tree) -> Sighting | None:
    """See shards of traces, and scalars such as ``loss/kl_avg``."""
    shards, logs = _shards(tree), spoken_logs(tree, DIALECT)
    evidence = [
        f"{tree.label(files[0])}{f' and {len(files) - 1:,} more' if files[1:] else ''}: {_keys(tree, files)}"
        for files in shards.values()
    ]
    evidence += described(logs, DIALECT)
    kinds = dict.fromkeys([*(["traces"] if shards else []), *(log.kind for log in logs)])
    return Sighting(", ".join(kinds), tuple(evidence)) if evidence else None


def convert(tree: Tree, sink: Sink) -> None:
    """Join traces and scalars into one run."""
    rows, settings = read_scalars(tree, sink, DIALECT)
    if settings:
        sink.facts["config"] = dict(settings)
    name, files = _one_run(_shards(tree), tree, sink)
    _facts(tree, name, sink)
    superseded = _superseded(tree, files, sink)
    for number, (step, block) in enumerate(groupby(_rows(tree, files, sink), key=lambda row: row[0])):
        if number not in superseded:
            records = [record for _, record in block]
            write_rollouts(sink, step, list(parsed(records, _rollout, sink)), f"{records[0].label}, step {step}")
    if any("policy/entropy_avg" in row for row in rows.values()):
        sink.note("how policy/entropy_avg is averaged is not verified: it is kept under its own name")
    deliver(rows, DIALECT.names, sink)


def _shards(tree: Tree) -> dict[tuple[Path, str], list[Path]]:
    """Find shards by folder and name of the run, in the order of their numbers."""
    runs: dict[tuple[Path, str], list[Path]] = {}
    for file in tree.having(lambda file: bool(_SHARD.fullmatch(file.name))):
        first, match = tree.first_object(file), _SHARD.fullmatch(file.name)
        if match and (first is None or first.keys() >= _KEYS):
            runs.setdefault((file.parent, match[1]), []).append(file)
    return {key: files for key, files in runs.items() if any(tree.first_object(file) for file in files)}


def _keys(tree: Tree, files: Sequence[Path]) -> str:
    return next((", ".join(row) for file in files if (row := tree.first_object(file))), "")


def _one_run(runs: dict[tuple[Path, str], list[Path]], tree: Tree, sink: Sink) -> tuple[str, list[Path]]:
    wanted = sink.options.run_name
    kept = {key: files for key, files in runs.items() if wanted in (None, key[1])}
    if len(kept) > 1:
        names = sorted({name for _, name in kept})
        hint = f"--run-name {names[0]}" if len(names) > 1 else f"entropy-lab analyze {min(kept)[0]}"
        raise RunFormatError(str(tree.path), f"holds traces of {len(kept)} runs: {', '.join(names)}", "one run", hint)
    return next(((name, files) for (_, name), files in kept.items()), ("", []))


def _facts(tree: Tree, name: str, sink: Sink) -> None:
    """Keep what the metadata beside the shards says."""
    for file in tree.having(lambda file: file.name == f"{name}_metadata.jsonl"):
        said = tree.first_object(file) or {}
        known = {"name": said.get("run_name"), "model": said.get("model_name")}
        sink.facts |= {key: value for key, value in known.items() if isinstance(value, str)}


def _rows(tree: Tree, files: Sequence[Path], sink: Sink) -> Iterator[tuple[int, Record]]:
    for file in files:
        records = line_records(file, tree.label(file), sink)
        yield from parsed(records, lambda record: (record.whole("step"), record), sink)


def _superseded(tree: Tree, files: Sequence[Path], sink: Sink) -> set[int]:
    """Find the blocks of rows whose step comes again later: training was resumed from an earlier step."""
    blocks: list[int] = []
    for file in files:
        try:
            with file.open("rb") as stream:
                for line in stream:
                    if (match := _STEP.search(line)) and blocks[-1:] != [int(match[1])]:
                        blocks.append(int(match[1]))
        except OSError as error:
            raise cannot_read(tree.label(file), error) from error
    last = {step: number for number, step in enumerate(blocks)}
    lost = {number for number, step in enumerate(blocks) if last[step] != number}
    if lost:
        steps = ", ".join(str(blocks[number]) for number in sorted(lost)[:5]) + (", …" if len(lost) > 5 else "")
        sink.note(f"training was resumed: of steps that stand twice (steps {steps}), the later rows count")
    return lost


def _rollout(record: Record) -> Rollout:
    row = record.values
    prompt, response = record.whole_numbers("prompt_tokens"), record.whole_numbers("response_tokens")
    if prompt is None or response is None:
        raise record.fault("has no prompt_tokens and response_tokens")
    finish = row.get("finish_reason")
    ours = {
        "reward": record.number("reward"),
        "advantage": record.number_or_none("advantage"),
        "truncated": None if finish is None else finish == "length",
        "source": record.text("dataset"),
        "answer": record.text("ground_truth"),
    }
    tokens = {
        "token_ids": response,
        "prompt_token_ids": prompt,
        "token_sampler_logp": record.floats("logprobs", len(response)),
    }
    theirs = {key: row[key] for key in _KEPT if row.get(key) is not None}
    return Rollout(token_text(prompt), record.whole("prompt_idx"), tokens, ours, theirs)


READER: Final = Reader(
    name="open_instruct",
    title="open-instruct",
    recognise=recognise,
    convert=convert,
    how_to_record={
        "rollouts": "--save_traces --rollouts_save_path DIR writes them",
        "n_tokens": "--save_traces --rollouts_save_path DIR writes it",
        "logp": "entropy-lab score RUN --model CHECKPOINT computes it: the traces have the engine's log-probabilities",
        "entropy": "entropy-lab score RUN --model CHECKPOINT computes it; record_entropy=True logs it a step",
        "logp_after": "entropy-lab score RUN --model CHECKPOINT --after CHECKPOINT computes it",
        "sampler_logp": "--save_traces --rollouts_save_path DIR writes it, where the engine gives it",
        "advantage": "--save_traces --rollouts_save_path DIR writes it",
        "truncated": "--save_traces --rollouts_save_path DIR writes finish_reason",
        "correct": "rewards of 0 and 1, or --correct-above X on the reward",
        "evals": "open-instruct writes no answers of evaluations",
        "metrics": "--with_tracking logs them to W&B; WANDB_MODE=offline keeps the file",
    },
)
