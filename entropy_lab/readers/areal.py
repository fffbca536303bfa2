"""AReaL: the trajectories of ``rollout.dump_to_file``, and its scalars.

One file a prompt, in a folder that is named by the newest weights that took part: that version is taken for the step.
There are texts, rewards and groups; no log-probabilities, entropies or advantages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from entropy_lab.errors import RunFormatError
from entropy_lab.readers.answers import Answer, write_answers
from entropy_lab.readers.dialects import described, read_scalars, spoken_logs
from entropy_lab.readers.reader import Reader, Sighting
from entropy_lab.readers.records import Record, line_records, parsed
from entropy_lab.readers.rollouts import Rollout, write_rollouts
from entropy_lab.readers.scalars import Dialect, deliver
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.step_folders import home
from entropy_lab.readers.tree import Tree

DIALECT: Final = Dialect(
    signature=frozenset(
        {
            "ppo_actor/update/entropy/avg",
            "ppo_actor/update/clip_ratio/avg",
            "ppo_actor/update/importance_weight/avg",
            "ppo_actor/task_reward/avg",
        }
    ),
    names={"ppo_actor/update/entropy/avg": "entropy", "ppo_actor/task_reward/avg": "reward"},
)

_KEYS: Final = frozenset({"task_id", "sample_idx", "tail_version", "reward", "prompt", "completion"})
_EVAL: Final = "eval-rollout"
_MOVED: Final = frozenset({"reward", "prompt", "completion", "seqlen", "segments"})


def recognise(tree: Tree) -> Sighting | None:
    """See dumped trajectories, and scalars such as ``ppo_actor/update/entropy/avg``."""
    evidence, versions = [], []
    for title, passes in (("trajectories", _versions(tree, False)), ("evaluation", _versions(tree, True))):
        if passes:
            first = passes[min(passes)][0]
            n_files = sum(map(len, passes.values()))
            keys = ", ".join(tree.first_object(first) or ())
            evidence.append(f"{tree.label(first)}: {title} of {len(passes):,} versions in {n_files:,} files: {keys}")
            versions.append(title)
    logs = spoken_logs(tree, DIALECT)
    evidence += described(logs, DIALECT)
    kinds = dict.fromkeys([*versions, *(log.kind for log in logs)])
    return Sighting(", ".join(kinds), tuple(evidence)) if evidence else None


def convert(tree: Tree, sink: Sink) -> None:
    """Join trajectories and scalars into one run."""
    rows, settings = read_scalars(tree, sink, DIALECT)
    if settings:
        sink.facts["config"] = dict(settings)
    versions = _versions(tree, False)
    if versions:
        sink.note("the version of the weights is taken for the step: rollouts may have been used some updates later")
        sink.note("trajectories that the trainer rejected are in the dump, too, and cannot be told from the others")
    for version, files in versions.items():
        records = _last(_records(tree, files, sink), sink)
        write_rollouts(sink, version, list(parsed(records, _rollout, sink)), _place(tree, files))
    passes = _versions(tree, True)
    for version, files in passes.items():
        answers = list(parsed(_last(_records(tree, files, sink), sink), _answer, sink))
        write_answers(sink, version, answers, _place(tree, files), early=1 in passes)
    deliver(rows, DIALECT.names, sink)


def _versions(tree: Tree, evaluation: bool) -> dict[int, list[Path]]:
    """Find the files of each version; one file of each folder is looked at."""
    roots: dict[Path, dict[int, list[Path]]] = {}
    for folder, files in _folders(tree, evaluation).items():
        first = next((row for file in files if (row := tree.first_object(file))), None)
        if first is not None and first.keys() >= _KEYS:
            roots.setdefault(folder.parent, {})[int(folder.name)] = files
    if len(roots) > 1:
        names = ", ".join(str(root) for root in roots)
        raise RunFormatError(str(tree.path), f"holds trajectories of {len(roots)} runs: {names}", "one run")
    return dict(sorted(next(iter(roots.values()), {}).items()))


def _folders(tree: Tree, evaluation: bool) -> dict[Path, list[Path]]:
    folders: dict[Path, list[Path]] = {}
    for file in tree.having(lambda file: file.suffix == ".jsonl" and file.stem.isdecimal()):
        folder = home(file)
        if folder.name.isdecimal() and (_EVAL in folder.parts) is evaluation:
            folders.setdefault(folder, []).append(file)
    return folders


def _place(tree: Tree, files: Sequence[Path]) -> str:
    return tree.label(files[0]) if len(files) == 1 else tree.label(files[0].parent)


def _records(tree: Tree, files: Sequence[Path], sink: Sink) -> Iterator[Record]:
    for file in files:
        yield from line_records(file, tree.label(file), sink)


def _last(records: Iterator[Record], sink: Sink) -> list[Record]:
    """Keep the last row of each sample: a run that is started again appends to the files of the same name."""
    kept: dict[tuple[str, str], Record] = {}
    n_rows = 0
    for record in records:
        n_rows += 1
        kept[str(record.values.get("task_id")), str(record.values.get("sample_idx"))] = record
    if n_rows > len(kept):
        sink.note(f"{n_rows - len(kept):,} rows repeat a task and sample of their version: the last one counts")
    return list(kept.values())


def _length(record: Record) -> int | None:
    """Count the tokens that the policy sampled: of a conversation, those of its own turns."""
    segments = record.values.get("segments")
    if isinstance(segments, list) and all(isinstance(part, Mapping) for part in segments):
        turns = [Record(record.label, record.place, part) for part in segments if part.get("role") == "gen"]
        return sum(turn.whole("len") for turn in turns)
    if record.values.get("seqlen") is None or record.values.get("prompt_len") is None:
        return None
    length = record.whole("seqlen") - record.whole("prompt_len")
    if length < 0:
        raise record.fault(f"has a prompt of {record.whole('prompt_len'):,} in {record.whole('seqlen'):,} tokens")
    return length


def _rollout(record: Record) -> Rollout:
    prompt = record.text("prompt") or ""
    ours = {
        "reward": record.number("reward"),
        "n_tokens": _length(record),
        "prompt": prompt,
        "completion": record.text("completion"),
    }
    theirs = {key: value for key, value in record.values.items() if key not in _MOVED}
    return Rollout(prompt, str(record.values.get("task_id")), {}, ours, theirs)


def _answer(record: Record) -> Answer:
    prompt = record.text("prompt") or ""
    ours: dict[str, Any] = {
        "prompt": prompt,
        "completion": record.text("completion"),
        "n_tokens": _length(record),
    }
    theirs = {key: value for key, value in record.values.items() if key not in _MOVED}
    return Answer(prompt, record.number("reward"), ours, theirs)


_RECORDER: Final = "entropy_lab.Recorder in the training loop records it"
_SCORE: Final = "entropy-lab score RUN --model CHECKPOINT computes it from the texts"

READER: Final = Reader(
    name="areal",
    title="AReaL",
    recognise=recognise,
    convert=convert,
    how_to_record={
        "rollouts": "rollout.dump_to_file=true with rollout.tokenizer_path writes them",
        "logp": f"{_RECORDER}, or {_SCORE}",
        "entropy": f"{_RECORDER}, or {_SCORE}",
        "logp_after": f"{_RECORDER}, or {_SCORE} and --after CHECKPOINT",
        "sampler_logp": _RECORDER,
        "advantage": _RECORDER,
        "truncated": _RECORDER,
        "correct": "rewards of 0 and 1, or --correct-above X on the reward",
        "evals": "rollout.dump_to_file=true writes them below eval-rollout/",
        "metrics": "stats_logger.wandb.mode=offline, or its tensorboard, writes them",
    },
    step_offset=0,
)
