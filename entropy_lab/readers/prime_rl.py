"""prime-rl: the trainer's token export, the orchestrator's episodes, and ``metrics.jsonl``.

Episodes have rewards, groups and texts; the export has the trainer's log-probabilities and entropies. Where both are
there, they are joined by the tokens of each sequence. Entropies are of the distribution at the sampling temperature.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from entropy_lab.errors import RunFormatError
from entropy_lab.readers.answers import Answer, write_answers
from entropy_lab.readers.dialects import read_scalars, sighting, spoken_logs
from entropy_lab.readers.json_lines import read_objects
from entropy_lab.readers.log_kinds import LogFile
from entropy_lab.readers.prime_rl_episodes import Trace, find_episodes, read_traces
from entropy_lab.readers.prime_rl_tokens import ExportedSequence, find_exports, read_export
from entropy_lab.readers.reader import Reader, Sighting
from entropy_lab.readers.rollouts import Rollout, write_rollouts
from entropy_lab.readers.scalars import Dialect, Log, Scalars, as_number, as_step, deliver
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.step_folders import one_run
from entropy_lab.readers.tree import Tree

DIALECT: Final = Dialect(
    signature=frozenset({"entropy/all/mean", "mismatch_kl/all/mean", "kl_ent_ratio/mean", "mismatch_kl/mean"}),
    # entropy/mean is what releases that did not tell environments apart call entropy/all/mean. reward/all/mean is the
    # mean of the groups' means: it keeps its own name.
    names={
        "entropy/all/mean": "entropy",
        "entropy/mean": "entropy",
        "optim/grad_norm": "grad_norm",
        "optim/lr": "lr",
        "time": "time",
    },
)
_PEEK: Final = 50


def recognise(tree: Tree) -> Sighting | None:
    """See token exports, episodes, and scalars such as ``entropy/all/mean``."""
    evidence, versions = [], []
    for folder, steps in find_exports(tree).items():
        n_files = sum(map(len, steps.values()))
        evidence.append(f"{_label(tree, folder)}: token export, {len(steps):,} steps in {n_files:,} files")
        versions.append("token export")
    for folder, files in find_episodes(tree).items():
        name = next(iter(files.values()))[0].name
        evidence.append(f"{_label(tree, folder)}: episodes of {len(files):,} steps in {name}")
        versions.append("episodes")
    for file in _metrics_files(tree):
        evidence.append(f"{tree.label(file)}: metrics.jsonl with {', '.join(DIALECT.spoken(_names(tree, file))[:3])}")
        versions.append("metrics.jsonl")
    return sighting(evidence, versions, _other_logs(tree), DIALECT)


def convert(tree: Tree, sink: Sink) -> None:
    """Join exports, episodes and scalars into one run."""
    logs = [_metrics(file, tree.label(file), sink) for file in _metrics_files(tree)]
    rows, _ = read_scalars(tree, sink, DIALECT, logs)
    exports = one_run(find_exports(tree), tree, sink)
    episodes = _episodes(tree, sink)
    _find_first_step([*exports, *(step for kind, step in episodes if kind == "train"), *rows], sink)
    for step in sorted({*exports, *(step for kind, step in episodes if kind == "train")}):
        _write_step(tree, step, exports.get(step, []), episodes.get(("train", step), []), sink)
    passes = {step: files for (kind, step), files in episodes.items() if kind == "eval"}
    for step, files in passes.items():  # dispatched while that step was trained
        answers = [_answer(trace) for trace in read_traces(tree, files, sink)]
        n_updates = max(step - sink.step_offset, 0)
        write_answers(sink, n_updates, answers, tree.label(files[0]), sink.step_offset + 1 in passes)
    if any({"entropy/all/mean", "entropy/mean"} & row.keys() for row in rows.values()):
        sink.note("the logged entropy is over the tokens of the loss, of the distribution at the sampling temperature")
    deliver(rows, DIALECT.names, sink)


def _label(tree: Tree, folder: Path) -> str:
    return tree.label(folder) if tree.path in folder.parents else folder.name


def _episodes(tree: Tree, sink: Sink) -> dict[tuple[str, int], list[Path]]:
    found = find_episodes(tree)
    if len(found) > 1:
        names = ", ".join(_label(tree, folder) for folder in found)
        wrong = f"holds episodes of {len(found)} runs: {names}"
        raise RunFormatError(str(tree.path), wrong, "one run", f"entropy-lab analyze {min(found)}")
    episodes = dict(sorted(next(iter(found.values()), {}).items()))
    if any("all" in file.parts for (kind, _), files in episodes.items() for file in files if kind == "train"):
        sink.note("steps without the subset `effective` hold all episodes that arrived, also those never trained on")
    return episodes


def _find_first_step(steps: Sequence[int], sink: Sink) -> None:
    """Releases count updates from 0 or from 1."""
    sink.step_offset = min([1, *steps])
    shift = "" if sink.step_offset == 0 else " - 1"
    sink.note(f"this run counts updates from {sink.step_offset}: its step s is our step s{shift}")


def _write_step(tree: Tree, step: int, exports: list[Path], episodes: list[Path], sink: Sink) -> None:
    sequences = list(read_export(tree, step, exports, sink)) if exports else []
    if not episodes:
        sink.note(
            "episodes of some steps are not there: their rollouts have no reward, and equal prompts make a group, so "
            "that a prompt drawn twice in a step makes one"
        )
        write_rollouts(sink, step, [one.alone() for one in sequences], tree.label(exports[0].parent))
        return
    traces = read_traces(tree, episodes, sink)
    rollouts = list(_joined(traces, sequences, step, sink)) if exports else [trace.rollout for trace in traces]
    write_rollouts(sink, step, rollouts, tree.label(episodes[0]))


def _joined(traces: Sequence[Trace], sequences: Sequence[ExportedSequence], step: int, sink: Sink) -> Iterator[Rollout]:
    """Give every rollout the trainer's values of its sequence, found by its tokens."""
    waiting: dict[bytes, list[ExportedSequence]] = {}
    for sequence in reversed(sequences):
        waiting.setdefault(sequence.key, []).append(sequence)
    n_joined = 0
    for trace in traces:
        rollout, mask = trace.rollout, trace.mask
        found = waiting.get(trace.ids.tobytes()) if trace.ids is not None else None
        if found and mask is not None:
            export = found.pop()
            tokens = {**rollout.tokens, **{k: v for k, v in export.tokens(mask).items() if v is not None}}
            rollout = Rollout(
                rollout.prompt, rollout.group, tokens, rollout.ours, {**rollout.theirs, **export.n_masked}
            )
            n_joined += 1
        yield rollout
    if n_joined < max(len(traces), len(sequences)):
        sink.note(
            f"step {step}: {n_joined:,} of {len(traces):,} rollouts were found among {len(sequences):,} exported "
            "sequences by their tokens; the others have no values of the trainer"
        )


def _answer(trace: Trace) -> Answer:
    ours = dict(trace.rollout.ours)
    tokens = trace.rollout.tokens.get("token_ids")
    kept = {key: ours.get(key) for key in ("prompt", "completion", "answer")}
    return Answer(
        trace.rollout.prompt,
        ours["reward"],
        {"benchmark": ours.get("source"), "n_tokens": None if tokens is None else len(tokens), **kept},
        trace.rollout.theirs,
    )


def _metrics_files(tree: Tree) -> list[Path]:
    return [file for file in tree.files if file.name == "metrics.jsonl" and DIALECT.spoken(_names(tree, file))]


def _other_logs(tree: Tree) -> list[LogFile]:
    own = {tree.label(file) for file in _metrics_files(tree)}
    return [log for log in spoken_logs(tree, DIALECT) if log.label not in own]


def _names(tree: Tree, file: Path) -> set[str]:
    """Give the names of the first rows: trainer, orchestrator and inference engines write into the same file."""
    names: set[str] = set()
    for line in islice(tree.head(file).splitlines(), _PEEK):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        names |= set(row) if isinstance(row, dict) and {"step", "time"} <= row.keys() else set()
    return names


def _metrics(file: Path, label: str, sink: Sink) -> Log:
    """Read the rows of all who write into one file: a step has several, and rows of the engines have none."""
    log = Log(label, "metrics.jsonl")
    times: Scalars = {}
    first: float | None = None
    n_timed = 0
    for _, row in read_objects(file, label, sink):
        at = as_number(row.pop("time", None))
        first = at if first is None else first
        step = as_step(row.pop("step", None))
        if step is None or step < 0:
            n_timed += 1
            continue
        if at is not None and first is not None:
            times[step] = {"time": at - first}
        log.add(step, row)
    for step, time in times.items():
        log.add(step, time)
    if n_timed:
        sink.note(f"{label}: {n_timed:,} rows of no step (of the inference engines, by the clock) are left out")
    return log


READER: Final = Reader(
    name="prime_rl",
    title="prime-rl",
    recognise=recognise,
    convert=convert,
    how_to_record={
        "rollouts": "the file monitor (monitors.file, on by default) writes episodes below rollouts/",
        "reward": "the file monitor (monitors.file, on by default) writes episodes with rewards below rollouts/",
        "n_tokens": "trainer.enable_token_export=true (prime-rl 0.6 and later) writes it",
        "logp": "trainer.enable_token_export=true (prime-rl 0.6 and later) writes it",
        "entropy": "trainer.enable_token_export=true (prime-rl 0.6 and later) writes it",
        "logp_after": "entropy-lab score RUN --model CHECKPOINT --after CHECKPOINT computes it",
        "sampler_logp": "the file monitor's episodes, or trainer.enable_token_export=true",
        "advantage": "the file monitor's episodes, or trainer.enable_token_export=true",
        "truncated": "the file monitor's episodes say what stopped each",
        "correct": "--map correct=metrics/NAME names a metric of 0 and 1, or --correct-above X sets a threshold",
        "evals": "orchestrator.eval writes episodes below rollouts/step_N/eval/",
        "metrics": "the file monitor (monitors.file, on by default) writes metrics.jsonl",
    },
)
