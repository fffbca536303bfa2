"""AReaL: the trajectories of ``rollout.dump_to_file``, and its scalars.

One file a prompt, in a folder that is named by the newest weights that took part: that version is taken for the step.
There are texts, rewards and groups; no log-probabilities, entropies or advantages. Versions count from 0, scalars
from 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from entropy_lab.errors import RunFormatError
from entropy_lab.readers.answers import Answer, write_answers
from entropy_lab.readers.areal_text import is_dump, text_records
from entropy_lab.readers.dialects import read_scalars, sighting, spoken_logs
from entropy_lab.readers.reader import Reader, Sighting
from entropy_lab.readers.records import Record, line_records, parsed
from entropy_lab.readers.rollouts import Rollout, write_rollouts
from entropy_lab.readers.scalars import Dialect, Scalars, deliver
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.step_folders import home
from entropy_lab.readers.tree import Tree

_SCOPES: Final = ("ppo_actor", "grpo_actor")
"""Under which the scalars of the policy stand: newer and older releases."""

_SAMPLED: Final = tuple(f"{scope}/task_reward/avg" for scope in _SCOPES)

DIALECT: Final = Dialect(
    signature=frozenset(
        f"{scope}/{name}"
        for scope in _SCOPES
        for name in (
            "update/entropy/avg",
            "update/clip_ratio/avg",
            "update/importance_weight/avg",
            "update/grad_norm",
            "task_reward/avg",
        )
    ),
    names={
        f"{scope}/{theirs}": ours
        for scope in _SCOPES
        for theirs, ours in (
            ("update/entropy/avg", "entropy"),
            ("update/grad_norm", "grad_norm"),
            ("update/lr", "lr"),
            ("task_reward/avg", "reward"),
        )
    },
)

_KEYS: Final = frozenset({"task_id", "sample_idx", "tail_version", "reward", "prompt", "completion"})
_EVALS: Final = frozenset({"eval-rollout", "generated-eval"})
_LOOKED_AT: Final = 8
_MOVED: Final = frozenset({"reward", "prompt", "completion", "seqlen", "segments"})


def recognise(tree: Tree) -> Sighting | None:
    """See dumped trajectories, and scalars such as ``ppo_actor/update/entropy/avg``."""
    evidence, versions = [], []
    for title, passes in (("trajectories", _versions(tree, False)), ("evaluation", _versions(tree, True))):
        if passes:
            first = passes[min(passes)][0]
            n_files = sum(map(len, passes.values()))
            keys = ", ".join(tree.first_object(first) or ("texts",))
            evidence.append(f"{tree.label(first)}: {title} of {len(passes):,} versions in {n_files:,} files: {keys}")
            versions.append(title)
    return sighting(evidence, versions, spoken_logs(tree, DIALECT), DIALECT)


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
    rows = _of_updates(rows, sink)
    first = min(rows, default=0)  # the trainer's logger begins with step 1 for the update of version 0
    if first > 0:
        sink.note("scalars count from 1, versions from 0: scalars of step s are of our step s - 1")
    deliver({step - (first > 0): row for step, row in rows.items()}, DIALECT.names, sink)


def _of_updates(rows: Scalars, sink: Sink) -> Scalars:
    """Join the rows of each update: older releases log one a mini-batch, of which the first has the rewards.

    Examples
    --------
    >>> import tempfile
    >>> from entropy_lab.readers.reader import Options
    >>> sink = Sink(Path(tempfile.mkdtemp()) / "run", "areal", Options())
    >>> second = {"grpo_actor/update/entropy/avg": 2.0}
    >>> first = {"grpo_actor/task_reward/avg": 0.5, "grpo_actor/update/entropy/avg": 1.0}
    >>> _of_updates({1: first, 2: second, 3: first, 4: second}, sink)[2]
    {'grpo_actor/task_reward/avg': 0.5, 'grpo_actor/update/entropy/avg': 1.5}
    """
    updates = {step for step, row in rows.items() if any(name in row for name in DIALECT.names)}
    starts = {step for step in updates if any(name in rows[step] for name in _SAMPLED)}
    if not starts or len(starts) * 2 > len(updates) or min(updates) not in starts:
        return rows
    size = round(len(updates) / len(starts))
    sink.note(f"a row each mini-batch, {size} an update: the means of an update's rows are those of the step")
    before = (min(starts) - 1) // size  # updates before a log that begins later
    parts: dict[int, list[dict[str, float]]] = {}
    for step, row in rows.items():
        parts.setdefault(before + max(sum(start <= step for start in starts), 1), []).append(row)
    return {
        update: {
            name: sum(values) / len(values)
            for name in dict.fromkeys(name for row in found for name in row)
            if (values := [row[name] for row in found if name in row])
        }
        for update, found in parts.items()
    }


def _versions(tree: Tree, evaluation: bool) -> dict[int, list[Path]]:
    """Find the files of each version; one file of each folder is looked at."""
    roots: dict[Path, dict[int, list[Path]]] = {}
    for folder, files in _folders(tree, evaluation).items():
        if any(is_dump(tree, file) or (tree.first_object(file) or {}).keys() >= _KEYS for file in files[:_LOOKED_AT]):
            roots.setdefault(folder.parent, {})[int(folder.name)] = files
    if len(roots) > 1:
        names = ", ".join(str(root) for root in roots)
        raise RunFormatError(str(tree.path), f"holds trajectories of {len(roots)} runs: {names}", "one run")
    return dict(sorted(next(iter(roots.values()), {}).items()))


def _folders(tree: Tree, evaluation: bool) -> dict[Path, list[Path]]:
    folders: dict[Path, list[Path]] = {}
    for file in tree.having(lambda file: file.suffix == ".txt" or (file.suffix == ".jsonl" and file.stem.isdecimal())):
        folder = home(file)
        if folder.name.isdecimal() and bool(_EVALS.intersection(folder.parts)) is evaluation:
            folders.setdefault(folder, []).append(file)
    return folders


def _place(tree: Tree, files: Sequence[Path]) -> str:
    return tree.label(files[0]) if len(files) == 1 else tree.label(files[0].parent)


def _records(tree: Tree, files: Sequence[Path], sink: Sink) -> Iterator[Record]:
    for file in files:
        read = text_records if file.suffix == ".txt" else line_records
        yield from read(file, tree.label(file), sink)


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
