"""SkyRL: the batches of ``trainer.dump_data_batch``, its evaluation results, and its scalars.

A batch is a pickle, read by ``safe_pickle``. The trainer takes rewards and group ids out before it writes one: the
rollouts have log-probabilities, advantages and tokens, but no ``reward`` and no ``correct``, and equal prompts make a
group. SkyRL counts updates from 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from entropy_lab.errors import RunFormatError
from entropy_lab.readers.answers import Answer, write_answers
from entropy_lab.readers.dialects import read_scalars, sighting, spoken_logs
from entropy_lab.readers.reader import Reader, Sighting
from entropy_lab.readers.records import Record, line_records, parsed
from entropy_lab.readers.rollouts import Rollout, prompt_of, token_text, write_rollouts
from entropy_lab.readers.safe_pickle import Kept, as_array, load_kept
from entropy_lab.readers.scalars import Dialect, deliver
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.step_folders import by_folder, home, one_run
from entropy_lab.readers.tree import Tree

DIALECT: Final = Dialect(
    signature=frozenset(
        {
            "policy/policy_entropy",
            "reward/avg_raw_reward",
            "loss/avg_final_rewards",
            "generate/avg_num_tokens",
            "policy/policy_update_steps",
        }
    ),
    names={
        "policy/policy_entropy": "entropy",
        "reward/avg_raw_reward": "reward",
        "generate/avg_num_tokens": "mean_length",
        "policy/policy_lr": "lr",
        # Both are what the optimiser measured before it clipped; the first is the older name.
        "policy/raw_grad_norm": "grad_norm",
        "policy/grad_norm": "grad_norm",
    },
)

NAMES: Final = frozenset(
    {
        *("_rebuild_tensor_batch", "TrainingInputBatch", "TensorBatch", "device"),
        # Older releases pickle every tensor a second time, as torch does; that copy is passed over.
        *("_rebuild_tensor_v2", "_load_from_bytes", "OrderedDict", "Size"),
        # numpy's scalars and arrays among the metadata.
        *("scalar", "dtype", "_reconstruct", "ndarray", "encode"),
    }
)
"""What the pickle of a batch may name."""

_BATCH: Final = re.compile(r"global_step_(\d+)_training_input\.pkl")
_PASS: Final = re.compile(r"global_step_(\d+)_evals")
_FIELDS: Final = {
    "token_logp": "action_log_probs",
    "token_sampler_logp": "rollout_logprobs",
    "token_advantage": "advantages",
}
_EVAL_KEYS: Final = frozenset({"input_prompt", "output_response", "score"})


def recognise(tree: Tree) -> Sighting | None:
    """See dumped batches, evaluation results, and scalars such as ``policy/policy_entropy``."""
    evidence, versions = [], []
    for files in _batches(tree).values():
        evidence.append(f"{tree.named(list(files.values()))}: dumped batches")
        versions.append("dumped batches")
    passes, logs = _passes(tree), spoken_logs(tree, DIALECT)
    if passes:
        first = next(iter(passes.values()))[0]
        evidence.append(f"{tree.label(first)}: evaluation results of {len(passes):,} passes")
        versions.append("evaluation results")
    return sighting(evidence, versions, logs, DIALECT)


def convert(tree: Tree, sink: Sink) -> None:
    """Join batches, evaluation results and scalars into one run."""
    rows, settings = read_scalars(tree, sink, DIALECT)
    if settings:
        sink.facts["config"] = dict(settings)
    for step, file in one_run(_batches(tree), tree, sink).items():
        label = tree.label(file)
        try:
            rollouts = list(_rollouts(load_kept(file, label, NAMES), label, sink))
        except RunFormatError as error:
            if not sink.options.skip_invalid:
                raise
            sink.warn(f"left out: {label}: {error.wrong}")
            continue
        write_rollouts(sink, step, rollouts, label)
    passes = _passes(tree)
    for step, files in passes.items():
        for file in files:
            label = tree.label(file)
            answers = list(parsed(_records(file, label, sink), _answer, sink))
            write_answers(sink, step, answers, label, early=1 in passes)
    deliver(rows, DIALECT.names, sink)


def _batches(tree: Tree) -> dict[Path, dict[int, Path]]:
    found = ((_BATCH.fullmatch(file.name), file) for file in tree.files)
    return by_folder((int(match[1]), file) for match, file in found if match)


def _passes(tree: Tree) -> dict[int, list[Path]]:
    passes: dict[int, list[Path]] = {}
    for file in tree.having(lambda file: file.suffix == ".jsonl" and file.name != "aggregated_results.jsonl"):
        match = _PASS.fullmatch(home(file).name)
        first = tree.first_object(file) if match else None
        if match and (first is None or first.keys() >= _EVAL_KEYS):
            passes.setdefault(int(match[1]), []).append(file)
    return dict(sorted(passes.items()))


def _rollouts(batch: object, label: str, sink: Sink) -> Iterator[Rollout]:
    """Take the rows of a batch: left-padded prompt and response, per-token values over the response's columns."""
    state = batch.state or next(iter(batch.arguments[1:]), None) if isinstance(batch, Kept) else batch
    fields = state.get("batch_dict") if isinstance(state, Mapping) else None
    if not isinstance(fields, Mapping):
        raise RunFormatError(label, "holds no batch", "a batch of SkyRL, with batch_dict")
    arrays = {str(name): array for name in fields if (array := as_array(fields[name], label, str(name))) is not None}
    ids, attended, responded, trained = _masks(arrays, label)
    meta = state.get("metadata") if isinstance(state, Mapping) else None
    meta = meta if isinstance(meta, Mapping) else {}
    groups, padding = meta.get("uids"), meta.get("pad_size")
    n_rows = len(ids) - (padding if isinstance(padding, int) and 0 < padding < len(ids) else 0)
    if n_rows < len(ids):
        sink.note(f"{label}: its last {len(ids) - n_rows:,} rows fill the batch up, and are left out")
    if not isinstance(groups, list) or len(groups) != len(ids):
        groups = None
        sink.note("the trainer takes group ids out of the batch before the dump: groups are runs of equal prompts")
    rewards = arrays.get("rewards")
    if rewards is None or rewards.shape != responded.shape:
        rewards = None
        sink.note("the trainer takes rewards out of the batch before the dump: `reward` is absent, `correct` is null")
    sink.meet(arrays)
    kept = responded & trained
    for row in range(n_rows):
        of_row = kept[row] if kept[row].any() else responded[row]  # a row without any loss keeps its response
        tokens = {
            ours: array[row][of_row].astype(np.float64)
            for ours, name in _FIELDS.items()
            if (array := arrays.get(name)) is not None and array.shape == responded.shape
        }
        sampled = np.append(np.zeros(ids.shape[1] - responded.shape[1], dtype=np.bool_), of_row)
        whole = ids[row][attended[row]].astype(np.int64)
        prompt, interrupted = prompt_of(whole, sampled[attended[row]])
        tokens |= {"token_ids": whole[sampled[attended[row]]], "prompt_token_ids": prompt}
        reward = None if rewards is None else float(rewards[row][responded[row]].sum())
        group = None if groups is None else str(groups[row])
        yield Rollout(token_text(prompt), group, tokens, {"reward": reward}, {"interrupted": interrupted})


def _masks(arrays: Mapping[str, NDArray[Any]], label: str) -> tuple[NDArray[Any], ...]:
    """Give the sequences with the masks of prompt and response, of the response, and of the loss."""
    ids, attended = arrays.get("sequences"), arrays.get("attention_mask")
    responded = arrays.get("response_mask", arrays.get("loss_mask"))
    trained = arrays.get("loss_mask", responded)
    if ids is None or attended is None or responded is None or trained is None:
        allowed = "sequences, attention_mask, response_mask"
        raise RunFormatError(label, f"has the fields {', '.join(arrays)}"[:160], allowed)
    flat = ids.ndim == 2 and ids.dtype.kind == "i" and attended.shape == ids.shape
    if not flat or responded.ndim != 2 or trained.shape != responded.shape or len(responded) != len(ids):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise RunFormatError(label, f"has fields whose shapes do not fit: {shapes}"[:200], "one row a sequence")
    if responded.shape[1] > ids.shape[1]:
        raise RunFormatError(label, "has longer responses than sequences", "one row a sequence")
    attended = attended > 0
    return ids, attended, (responded > 0) & attended[:, ids.shape[1] - responded.shape[1] :], trained > 0


def _records(file: Path, label: str, sink: Sink) -> Iterator[Record]:
    for record in line_records(file, label, sink):
        yield Record(label, record.place, {"data_source": file.stem, **record.values})


def _answer(record: Record) -> Answer:
    score = record.floats("score") if isinstance(record.values.get("score"), list) else None
    reward = record.number("score") if score is None else float(score.sum())
    prompt = record.text("input_prompt")
    ours = {"benchmark": record.text("data_source"), "prompt": prompt, "completion": record.text("output_response")}
    moved = (*_EVAL_KEYS, "data_source")
    return Answer(prompt or "", reward, ours, {key: v for key, v in record.values.items() if key not in moved})


READER: Final = Reader(
    name="skyrl",
    title="SkyRL",
    recognise=recognise,
    convert=convert,
    how_to_record={
        "rollouts": "trainer.dump_data_batch=true writes them, without rewards and texts",
        "reward": "SkyRL's dump has none: entropy_lab.Recorder in the generator or the trainer records it",
        "n_tokens": "trainer.dump_data_batch=true writes it",
        "logp": "trainer.dump_data_batch=true writes it",
        "entropy": "the trainer logs policy/policy_entropy a step; entropy_lab.Recorder records it a rollout",
        "logp_after": "entropy-lab score RUN --model CHECKPOINT --after CHECKPOINT computes it",
        "sampler_logp": "trainer.dump_data_batch=true writes it, with log-probabilities from the generator",
        "advantage": "trainer.dump_data_batch=true writes it",
        "truncated": "SkyRL's dump does not say; entropy_lab.Recorder records it",
        "correct": "SkyRL's dump has no rewards: entropy_lab.Recorder in the generator or the trainer records them",
        "evals": "trainer.dump_eval_results=true (the default) writes them",
        "metrics": "trainer.logger=tensorboard, or wandb, writes them",
    },
)
