"""ROLL: both its dumps of rollouts, and its scalars.

``critic/entropy/mean`` is the mean over tokens, and 0 when it was not computed. ROLL counts updates from 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from entropy_lab.readers.dialects import read_scalars, sighting, spoken_logs
from entropy_lab.readers.reader import Reader, Sighting
from entropy_lab.readers.records import parsed
from entropy_lab.readers.roll_dump import (
    find_columns,
    find_rows,
    find_trajectories,
    of_row,
    read_columns,
    row_records,
    with_scores,
)
from entropy_lab.readers.rollouts import all_zero, without, write_rollouts
from entropy_lab.readers.scalars import Dialect, deliver
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.step_folders import by_folder, one_run
from entropy_lab.readers.tree import Tree

SIGNATURE: Final = frozenset(
    {
        "critic/entropy/mean",
        "critic/correct/mean",
        "critic/raw_advantages/mean",
        "token/response_length/mean",
        "tokens/response_length/mean",
        "tokens/non_prompt_length/mean",
        "actor/ppo_ratio_high_clipfrac",
        "actor/ppo_ratio_low_clipfrac",
        # Newer releases keep how a scalar is reduced in its name where a log is printed.
        "actor/ppo_ratio_high_clipfrac@sum",
        "actor/ppo_ratio_low_clipfrac@sum",
    }
)
"""Scalars of ROLL's own; with ``critic/score/mean`` and others it shares verl's names."""

DIALECT: Final = Dialect(
    signature=SIGNATURE,
    names={
        "critic/entropy/mean": "entropy",
        "critic/score/mean": "reward",
        "token/response_length/mean": "mean_length",
        "tokens/response_length/mean": "mean_length",
        "actor/lr": "lr",
        "actor_train/grad_norm": "grad_norm",
    },
)
_ENTROPY: Final = "critic/entropy/mean"


def recognise(tree: Tree) -> Sighting | None:
    """See both dumps, and scalars such as ``critic/entropy/mean``."""
    evidence, versions = [], []
    for files in by_folder(find_columns(tree)).values():
        evidence.append(f"{tree.named(list(files.values()))}: dumped rollouts, columns in one line")
        versions.append("rollout dump")
    rows = find_rows(tree)
    if rows:
        first = next(iter(rows.values()))[0]
        evidence.append(f"{tree.label(first)}: rows with per-token values of {len(rows):,} steps")
        versions.append("logging board")
    return sighting(evidence, versions, spoken_logs(tree, DIALECT), DIALECT)


def convert(tree: Tree, sink: Sink) -> None:
    """Join both dumps and scalars into one run."""
    scalars, settings = read_scalars(tree, sink, DIALECT)
    if settings:
        sink.facts["config"] = dict(settings)
    columns = one_run(by_folder(find_columns(tree)), tree, sink)
    if others := find_trajectories(tree):
        sink.note(f"{tree.named(others)}: of the agentic pipeline, without responses: not read")
    rows = find_rows(tree)
    for step in sorted({*columns, *rows}):
        _write_step(tree, step, columns.get(step), rows.get(step, []), sink)
    if n_zero := sum(row.get(_ENTROPY) == 0 for row in scalars.values()):
        sink.note(f"{_ENTROPY} is 0 at {n_zero:,} steps, which says that it was not computed: those are left out")
        scalars = {step: {k: v for k, v in row.items() if k != _ENTROPY or v} for step, row in scalars.items()}
    deliver(scalars, DIALECT.names, sink)


def _write_step(tree: Tree, step: int, columns: Path | None, files: list[Path], sink: Sink) -> None:
    scored = read_columns(tree, columns, sink) if columns else []
    if not files and columns:
        write_rollouts(sink, step, scored, tree.label(columns))
        return
    where = tree.named(files)
    rollouts = list(parsed(row_records(tree, files, step, sink), of_row, sink))
    for name, theirs in (("token_logp", "logprobs"), ("token_entropy", "old_log_probs2_entropy")):
        if all_zero(rollouts, name):
            sink.note(f"{where}: {theirs} is zero everywhere: it was not computed")
            rollouts = without(rollouts, name)
    joined = with_scores(rollouts, scored) if scored else None
    if joined is not None:
        sink.note(
            "both dumps are joined by their texts: `reward` is the raw score, normalised_reward what ROLL made of it"
        )
    elif columns:
        sink.warn(f"{tree.label(columns)}: its texts are not those of {where}: its scores are not read")
    else:
        sink.note("without rollout_dump_dir, `reward` is what ROLL made of the scores (normalised, clipped, penalised)")
    write_rollouts(sink, step, rollouts if joined is None else joined, where)


_RECORDER: Final = "entropy_lab.Recorder in the pipeline records it"
_BOARD: Final = "save_logging_board_dir: DIR/ (with the slash) writes it, for a second forward pass"

READER: Final = Reader(
    name="roll",
    title="ROLL",
    recognise=recognise,
    convert=convert,
    how_to_record={
        "rollouts": "rollout_dump_dir: /ABSOLUTE/DIR writes texts and scores, save_logging_board_dir: DIR/ tokens",
        "n_tokens": _BOARD,
        "logp": _BOARD,
        "entropy": _BOARD,
        "logp_after": _RECORDER,
        "sampler_logp": _RECORDER,
        "advantage": _RECORDER,
        "truncated": _RECORDER,
        "correct": "rollout_dump_dir: /ABSOLUTE/DIR writes raw scores of 0 and 1, or --correct-above X",
        "evals": "ROLL writes no answers of validation passes",
        "metrics": "track_with: tensorboard writes them",
    },
    step_offset=0,
)
