"""TRL: completions of GRPOTrainer, and the scalars of transformers' Trainer in every sink.

Recognised by ``completions/completions_*.parquet`` and by scalars such as ``frac_reward_zero_std``. The Trainer's step
counts finished updates. ``training_args.bin`` is a pickle and is never read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final

from entropy_lab.readers.dialects import sighting
from entropy_lab.readers.logs import of_run
from entropy_lab.readers.reader import Reader, Sighting
from entropy_lab.readers.scalars import Scalars, deliver, join
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.swift_completions import find_generations
from entropy_lab.readers.tree import Tree
from entropy_lab.readers.trl_completions import blocks, convert_completions, find_files, find_tables
from entropy_lab.readers.trl_logs import DIALECT, find_trainer_logs, settings_of, spell
from entropy_lab.readers.trl_tokens import find_tokens, with_tokens


def recognise(tree: Tree) -> Sighting | None:
    """See completions and logs of TRL."""
    folders, logs, tokens, tables = find_files(tree), find_trainer_logs(tree), find_tokens(tree), find_tables(tree)
    evidence = [f"{folder}: {len(files):,} files completions_*.parquet" for folder, files in folders.items()]
    swift = [file for files in find_generations(tree).values() for file in files]
    evidence += [f"{tree.label(file)}: completions of ms-swift, one line a generation" for file in swift]
    evidence += [f"{tree.label(tables[0].parent)}: {len(tables):,} tables of completions"] if tables else []
    evidence += [f"{tree.label(file)}: token-level rows of a hook" for file in tokens]
    own = ["completions"] if folders or swift or tables else ["token-level rows"] if tokens and not logs else []
    return sighting(evidence, own, logs, DIALECT)


def convert(tree: Tree, sink: Sink) -> None:
    """Join completions and logs into one run."""
    loaded = [log.load(sink) for log in of_run(find_trainer_logs(tree), tree, sink.options.run_name)]
    settings = settings_of(loaded)
    _facts(settings, sink)
    rows = join(loaded, sink, spell)
    # The Trainer logs what is finished: after the last step of the first pass it says 1.0.
    epochs = {step: row["epoch"] for step, row in rows.items() if math.isfinite(row.get("epoch", math.nan))}
    sink.epochs = {step: max(math.ceil(epoch - 1e-6) - 1, 0) for step, epoch in epochs.items()}
    sink.note("the Trainer's step s is logged after its update: it is our step s - 1")
    convert_completions(with_tokens(tree, blocks(tree, loaded, sink), sink), rows, settings, sink)
    if rows:
        _note_distance(rows, sink)
        deliver(rows, DIALECT.names, sink, spell)


def _note_distance(rows: Scalars, sink: Sink) -> None:
    steps = [step for step, row in rows.items() if "loss" in row]
    gaps = {later - earlier for earlier, later in pairwise(steps)}
    if gaps and min(gaps) > 1:
        sink.note(f"scalars were logged every {min(gaps)} steps: each is the mean over the steps since the log before")


def _facts(settings: Mapping[str, Any], sink: Sink) -> None:
    if not settings:
        return
    chosen = ("loss_type", "scale_rewards", "beta", "epsilon", "epsilon_high", "temperature", "num_iterations")
    params = {key: settings[key] for key in chosen if key in settings}
    sink.facts["method"] = {"name": "grpo", "params": params, "label": "GRPO (TRL)"}
    sink.facts["config"] = dict(settings)
    if isinstance(settings.get("num_generations"), int):
        sink.facts["group_size"] = settings["num_generations"]
    if model := settings.get("_name_or_path") or settings.get("model_name_or_path"):
        sink.facts["model"] = model


_HOOK: Final = "entropy_lab.integrations.trl.EntropyLabGRPOTrainer in the place of GRPOTrainer records it"
_SCORE: Final = "entropy-lab score RUN --model CHECKPOINT computes it from the texts"

READER: Final = Reader(
    name="trl",
    title="TRL",
    recognise=recognise,
    convert=convert,
    how_to_record={
        "rollouts": "GRPOConfig(log_completions=True, logging_steps=1) writes them (TRL 0.28 and later)",
        "n_tokens": f"{_HOOK}, or {_SCORE}",
        "logp": f"{_HOOK}, or {_SCORE}",
        "entropy": f"{_HOOK}, or {_SCORE}",
        "logp_after": f"{_HOOK}, or {_SCORE} and --after CHECKPOINT",
        "sampler_logp": f"{_HOOK} with use_vllm=True",
        "advantage": "log_completions=True of TRL 0.28 and later writes it",
        "truncated": _HOOK,
        "epoch": "save_steps=K keeps trainer_state.json, whose epoch is joined by step",
        "correct": "--map correct=FUNCTION names a reward function of 0 and 1, or --correct-above X sets a threshold",
        "evals": "a trainer with eval_strategy='steps' and log_completions=True in a run of its own: in one run, "
        "evaluations overwrite the training completions",
        "metrics": "save_steps=K keeps trainer_state.json, report_to='tensorboard' event files",
    },
)
