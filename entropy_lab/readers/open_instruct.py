"""open-instruct: the shards of ``--save_traces``, and its scalars.

A row has prompt and response as token ids, reward, advantage, the engine's log-probabilities and ``prompt_idx``, which
makes its group; there is no text, no log-probability of the trainer and no entropy. Training steps count from 1; the
shards of newer releases count from 0.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from entropy_lab.errors import RunFormatError
from entropy_lab.readers.dialects import read_scalars, sighting, spoken_logs
from entropy_lab.readers.open_instruct_lines import find_lines, line_steps
from entropy_lab.readers.reader import Reader, Sighting
from entropy_lab.readers.records import Record, line_records, parsed
from entropy_lab.readers.rollouts import Rollout, token_text, write_rollouts
from entropy_lab.readers.scalars import Dialect, Scalars, as_step, deliver
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.tree import Tree, cannot_read

DIALECT: Final = Dialect(
    signature=frozenset(
        {
            "loss/kl_avg",
            "objective/kl_avg",
            "objective/verifiable_correct_rate",
            "learner_tokens_per_second_overall",
            "val/actor_tokens_per_second",
            "val/stop_rate",
        }
    ),
    names={
        "scores": "reward",
        "val/sequence_lengths": "mean_length",
        "optim/grad_norm": "grad_norm",
        "lr": "lr",
    },
)
_ENTROPY: Final = "policy/entropy_avg"
_MEANS: Final = ("masked_mean_axis", "masked_mean_denominator")
_OTHER_TRAINERS: Final = frozenset({"objective/entropy", "policy/approxkl_avg"})
"""Scalars of open-instruct's PPO and first GRPO trainers, whose ``policy/entropy_avg`` counts padding, too."""
_STEP_SCALAR: Final = "training_step"

_SHARD: Final = re.compile(r"(.+)_rollouts_(\d+)\.jsonl")
_KEYS: Final = frozenset({"prompt_idx", "prompt_tokens", "response_tokens", "reward"})
_STEP: Final = re.compile(rb'"step":\s*(-?\d+)')
_KEPT: Final = ("sample_idx", "prompt_idx", "finish_reason", "request_info")


def recognise(tree: Tree) -> Sighting | None:
    """See shards of traces, and scalars such as ``loss/kl_avg``."""
    shards, logs = _shards(tree), spoken_logs(tree, DIALECT)
    evidence = [f"{tree.named(files)}: {_keys(tree, files)}" for files in shards.values()]
    older = [file for files in find_lines(tree).values() for file in files]
    evidence += [f"{tree.label(file)}: a line of columns each training step" for file in older]
    return sighting(evidence, ["traces"] if shards or older else [], logs, DIALECT)


def convert(tree: Tree, sink: Sink) -> None:
    """Join traces and scalars into one run."""
    rows, settings = read_scalars(tree, sink, DIALECT)
    if settings:
        sink.facts["config"] = dict(settings)
    shards = _shards(tree)
    name, files = _one_run(shards or find_lines(tree), tree, sink)
    _facts(tree, name, sink)
    if shards:
        _write_shards(tree, files, sink)
    else:
        for file in files:
            for step, rollouts in line_steps(tree, file, sink):
                write_rollouts(sink, step, rollouts, f"{tree.label(file)}, step {step}")
    deliver(_by_training_step(rows), {**DIALECT.names, **_entropy_name(rows, settings, sink)}, sink)


def _write_shards(tree: Tree, files: Sequence[Path], sink: Sink) -> None:
    blocks = _blocks(tree, files)
    superseded = _superseded(blocks, sink)
    shift = 1 if min(blocks, default=1) == 0 else 0
    if shift:
        sink.note("the shards count from 0, scalars from 1: rollouts of step s are those of training step s + 1")
    for number, (step, block) in enumerate(groupby(_rows(tree, files, sink), key=lambda row: row[0])):
        if number not in superseded:
            records = [record for _, record in block]
            rollouts = _grouped(list(parsed(records, _rollout, sink)), sink)
            write_rollouts(sink, step + shift, rollouts, f"{records[0].label}, step {step}")


def _grouped(rollouts: Sequence[Rollout], sink: Sink) -> list[Rollout]:
    """Hold groups to one prompt: ``prompt_idx`` counts rows, and is wrong where truncated ones were taken out."""
    prompts: dict[Hashable, set[str]] = {}
    for one in rollouts:
        prompts.setdefault(one.group, set()).add(one.prompt)
    if all(len(found) == 1 for found in prompts.values()):
        return list(rollouts)
    why = "truncated ones were taken out before"
    sink.note(f"prompt_idx joins rollouts of different prompts ({why}): equal prompts make a group")
    return [Rollout(one.prompt, one.prompt, one.tokens, one.ours, one.theirs) for one in rollouts]


def _by_training_step(rows: Scalars) -> Scalars:
    """File scalars under the training step that they state: the sinks' own steps count episodes in most releases.

    Examples
    --------
    >>> _by_training_step({64: {"training_step": 1.0, "x": 2.0}, 65: {"y": 3.0}, 128: {"training_step": 2.0, "x": 4.0}})
    {1: {'x': 2.0, 'y': 3.0}, 2: {'x': 4.0}}
    """
    stated = {step: at for step, row in rows.items() if (at := as_step(row.get(_STEP_SCALAR))) is not None}
    if not stated:
        return rows
    out: Scalars = {}
    current = 0
    for step, row in sorted(rows.items()):
        current = stated.get(step, current)
        out.setdefault(current, {}).update({name: value for name, value in row.items() if name != _STEP_SCALAR})
    return out


def _entropy_name(rows: Scalars, settings: Mapping[str, Any], sink: Sink) -> dict[str, str]:
    """Take the entropy for ours unless the settings say that it is another mean than that over tokens."""
    given = {name for row in rows.values() for name in row}
    if _ENTROPY not in given:
        return {}
    if given & _OTHER_TRAINERS:
        sink.note(f"{_ENTROPY} of this trainer is no mean over the response's tokens: it keeps its own name")
        return {}
    set_otherwise = [name for name in _MEANS if settings.get(name) is not None]
    if set_otherwise:
        sink.note(f"{', '.join(set_otherwise)} is set: {_ENTROPY} is no mean over tokens, and keeps its own name")
        return {}
    if not settings:
        sink.note(f"masked_mean_axis is unknown: {_ENTROPY} is taken as a mean over tokens, open-instruct's default")
    return {_ENTROPY: "entropy"}


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


def _blocks(tree: Tree, files: Sequence[Path]) -> list[int]:
    """Read the step of each block of rows that have one, in the order of the files."""
    blocks: list[int] = []
    for file in files:
        try:
            with file.open("rb") as stream:
                for line in stream:
                    if (match := _STEP.search(line)) and blocks[-1:] != [int(match[1])]:
                        blocks.append(int(match[1]))
        except OSError as error:
            raise cannot_read(tree.label(file), error) from error
    return blocks


def _superseded(blocks: Sequence[int], sink: Sink) -> set[int]:
    """Find the blocks of rows whose step comes again later: training was resumed from an earlier step."""
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
