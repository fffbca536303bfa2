"""verl: rollout and validation dumps of both trainers (0.4 to 0.9), and its logs of scalars.

Recognised by JSON lines with ``input``, ``output`` and ``score``, and by scalars such as ``actor/pg_loss``. verl counts
updates from 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from entropy_lab.errors import RunFormatError
from entropy_lab.readers import roll
from entropy_lab.readers.dialects import sighting, spoken_logs
from entropy_lab.readers.log_kinds import LogFile
from entropy_lab.readers.logs import find_logs, of_dialect
from entropy_lab.readers.reader import Reader, Sighting
from entropy_lab.readers.scalars import Dialect, Scalars, deliver, join
from entropy_lab.readers.settings import look_up, read_yaml, unwrapped
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.tree import Tree
from entropy_lab.readers.verl_dump import convert_dumps
from entropy_lab.readers.verl_files import Dump, find_dumps
from entropy_lab.readers.verl_tensors import find_tensors

DIALECT: Final = Dialect(
    signature=frozenset(
        {
            "actor/entropy",
            "actor/entropy_loss",
            "actor/pg_loss",
            "actor/ppo_kl",
            "critic/score/mean",
            "critic/rewards/mean",
            "response_length/mean",
        }
    ),
    names={
        "critic/score/mean": "reward",
        "actor/grad_norm": "grad_norm",
        "actor/lr": "lr",
        "response_length/mean": "mean_length",
        "response_length/clip_ratio": "truncated",
        "training/epoch": "epoch",
        "timing_s/gen": "time_rollout",
        "timing_s/old_log_prob": "time_logp",
        "timing_s/update_actor": "time_update",
    },
    foreign=roll.SIGNATURE,
)

LARGEST_ENTROPY: Final = 13.0
"""Nats: above the logarithm of any vocabulary (442,000 tokens), a number is no entropy of one token."""

_EPOCH: Final = "training/epoch"
_IDENTITY: Final = (
    "trainer.project_name",
    "trainer.experiment_name",
    "trainer.rollout_data_dir",
    "actor_rollout_ref.model.path",
    "actor_rollout_ref.rollout.n",
    "actor_rollout_ref.actor.optim.lr",
    "algorithm.adv_estimator",
)
"""Settings that tell one run from another."""

_MODE: Final = "actor_rollout_ref.actor.loss_agg_mode"
_PRINTED_MODE: Final = re.compile(rb"'?loss_agg_mode'?[:=] ?'?([a-z-]+)'?")


def recognise(tree: Tree) -> Sighting | None:
    """See dumps and logs of verl."""
    dumps, tensors = find_dumps(tree), find_tensors(tree)
    evidence = [*(dump.evidence for dump in dumps), *(tensor.evidence for tensor in tensors)]
    versions = [*(dump.version for dump in dumps), *(tensor.version for tensor in tensors)]
    return sighting(evidence, versions, spoken_logs(tree, DIALECT), DIALECT)


def convert(tree: Tree, sink: Sink) -> None:
    """Join dumps, logs and settings into one run."""
    logs = of_dialect(find_logs(tree), DIALECT, tree, sink.options.run_name)
    loaded = [log.load(sink) for log in logs]
    settings = _settings(tree, sink) or next((log.config for log in loaded if log.config), {})
    _facts(settings, sink)
    rows = join(loaded, sink)
    sink.epochs = {step: int(row[_EPOCH]) for step, row in rows.items() if math.isfinite(row.get(_EPOCH, math.nan))}
    dumps = find_dumps(tree, settings)
    _find_first_step(rows, dumps, sink)
    convert_dumps(tree, dumps, find_tensors(tree), sink)
    if rows:
        names = {**DIALECT.names, **_entropy_name(rows, settings, tree, logs, sink)}
        if any("actor/pg_clipfrac" in row for row in rows.values()):
            sink.note("actor/pg_clipfrac counts both sides of the clip: it is kept under its own name")
        deliver(rows, names, sink)


def _settings(tree: Tree, sink: Sink) -> dict[str, Any]:
    """Read verl's settings: the run's ``config.yaml``, Hydra's or W&B's copy; those of several runs are refused."""
    found: dict[str, dict[str, Any]] = {}
    for file in tree.having(lambda file: file.name in ("config.yaml", "config.yml")):
        if b"actor_rollout_ref" in tree.head(file, 1_000_000):
            found[tree.label(file)] = unwrapped(read_yaml(file, tree.label(file), sink))
    first = next(iter(found.values()), {})
    for label, settings in found.items():
        values = ((path, look_up(first, path), look_up(settings, path)) for path in _IDENTITY)
        if different := [path for path, a, b in values if a is not None and b is not None and a != b]:
            wrong = f"{next(iter(found))} and {label} differ in {different[0]}: settings of several runs"
            raise RunFormatError(str(tree.path), wrong, "one run", "name one run's directory")
    return first


def _facts(settings: Mapping[str, Any], sink: Sink) -> None:
    if not settings:
        return
    name = look_up(settings, "algorithm.adv_estimator")
    chosen = {
        "loss_mode": "actor_rollout_ref.actor.policy_loss.loss_mode",
        "loss_agg_mode": _MODE,
        "clip_ratio_low": "actor_rollout_ref.actor.clip_ratio_low",
        "clip_ratio_high": "actor_rollout_ref.actor.clip_ratio_high",
        "entropy_coeff": "actor_rollout_ref.actor.entropy_coeff",
        "norm_adv_by_std_in_grpo": "algorithm.norm_adv_by_std_in_grpo",
        "temperature": "actor_rollout_ref.rollout.temperature",
    }
    params = {key: value for key, path in chosen.items() if (value := look_up(settings, path)) is not None}
    facts = {
        "method": {"name": str(name), "params": params, "label": str(name)} if name else None,
        "model": look_up(settings, "actor_rollout_ref.model.path"),
        "group_size": look_up(settings, "actor_rollout_ref.rollout.n"),
        "config": dict(settings),
    }
    sink.facts |= {key: value for key, value in facts.items() if value is not None}


def _find_first_step(rows: Scalars, dumps: Sequence[Dump], sink: Sink) -> None:
    """Releases of 2024 counted from 0, where today only a validation pass before training has step 0."""
    trained = any(name.startswith("actor/") for name in rows.get(0, {}))
    if trained or any(0 in dump.steps for dump in dumps if not dump.validation):
        sink.step_offset = 0
        sink.note("training is logged from step 0 on: the source's step s is our step s")
    elif rows or dumps:
        sink.note("verl counts updates from 1: its step s is our step s - 1")


def _entropy_name(
    rows: Scalars, settings: Mapping[str, Any], tree: Tree, logs: Sequence[LogFile], sink: Sink
) -> dict[str, str]:
    """Take ``actor/entropy`` for the entropy per token only where it was averaged over tokens."""
    values = [row["actor/entropy"] for row in rows.values() if "actor/entropy" in row]
    if not values:
        if any("actor/entropy_loss" in row for row in rows.values()):
            sink.note("actor/entropy_loss is of the update's own forward pass: it is kept under its own name")
        return {}
    mode = look_up(settings, _MODE) or _printed_mode(tree, logs)
    if mode == "token-mean":
        return {"actor/entropy": "entropy"}
    if mode:
        sink.note(
            f"actor/entropy is aggregated with loss_agg_mode={mode}, not per token: it is kept under its own name, "
            "and `entropy` is absent (entropy_audit converts it where it can)"
        )
        return {}
    highest = max((value for value in values if math.isfinite(value)), default=0.0)
    if highest > LARGEST_ENTROPY:
        sink.note(
            f"actor/entropy reaches {highest:.4g}, more nats than one token can have: summed over tokens by some "
            "loss_agg_mode, it is kept under its own name"
        )
        return {}
    sink.note("loss_agg_mode is unknown (no config.yaml): actor/entropy is taken as token-mean, verl's default")
    return {"actor/entropy": "entropy"}


def _printed_mode(tree: Tree, logs: Sequence[LogFile]) -> str | None:
    """Find the setting in the configuration that verl prints when it starts."""
    consoles = {log.label for log in logs if log.kind == "console log"}
    for file in tree.having(lambda file: tree.label(file) in consoles):
        if match := _PRINTED_MODE.search(tree.head(file, 1_000_000)):
            return match[1].decode()
    return None


_TRAINER: Final = "trainer.v1.trainer_mode=entropy_lab (verl 0.9, with entropy-lab installed beside it) records it"
_SCORE: Final = "entropy-lab score RUN --model CHECKPOINT computes it from the texts"

READER: Final = Reader(
    name="verl",
    title="verl",
    recognise=recognise,
    convert=convert,
    how_to_record={
        "rollouts": "trainer.rollout_data_dir=DIR writes them",
        "n_tokens": f"{_TRAINER}, or {_SCORE}",
        "logp": f"{_TRAINER}, or {_SCORE}",
        "entropy": f"{_TRAINER}, or {_SCORE}",
        "logp_after": f"{_TRAINER} with +trainer.v1.entropy_lab.logp_after_every=1, or {_SCORE} and --after CHECKPOINT",
        "sampler_logp": f"{_TRAINER} with actor_rollout_ref.rollout.calculate_log_probs=true",
        "advantage": _TRAINER,
        "truncated": _TRAINER,
        "epoch": "trainer.logger=['console','file'] writes training/epoch, which is joined by step",
        "correct": "compute_score returns {'score': …, 'acc': 0 or 1} (V1 drops acc in training: trainer.use_v1=false "
        "keeps it), or --correct-above X on the reward",
        "evals": "trainer.validation_data_dir=DIR with trainer.test_freq=K writes them",
        "metrics": "trainer.logger=['console','file'] writes them",
    },
)
