"""ROLL's two dumps: columns of a step's rollouts in one line, and rows with per-token values.

``rollout_dump_dir`` has texts, raw scores and references; ``save_logging_board_dir`` has log-probability and entropy of
every token, and the reward after ROLL's own normalisation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from entropy_lab.json_values import json_text
from entropy_lab.readers.records import Record, line_records, of_step
from entropy_lab.readers.rollouts import Rollout, masked
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.tree import Tree

_COLUMNS_FILE: Final = re.compile(r"rollout_dump_data\.step_(\d+)\.jsonl")
_ROWS_FILE: Final = re.compile(r"data_\d{8}_\d{6}_\d{3}\.jsonl")
_COLUMNS: Final = frozenset({"responses", "scores"})
_ROWS: Final = frozenset({"logprobs", "old_log_probs2_entropy", "new_response_mask", "reward", "step"})
_MOVED: Final = frozenset({"prompt", "responses", "scores", "ground_truth", "domain", "global_step"})
_SPECIAL: Final = re.compile(r"<[|｜][^<>]*[|｜]>|</?s>|<pad>|<unk>|\[PAD\]")
_PADDING: Final = re.compile(r"^((?:<[^<>\s]+>|\[PAD\]))\1+|((?:<[^<>\s]+>|\[PAD\]))\2+$")


def find_columns(tree: Tree) -> list[tuple[int, Path]]:
    """Find the files of columns, with their steps; those of the agentic pipeline, without responses, are others."""
    found = ((_COLUMNS_FILE.fullmatch(file.name), file) for file in tree.files)
    return [(int(match[1]), file) for match, file in found if match and not _is_agentic(tree, file)]


def find_trajectories(tree: Tree) -> list[Path]:
    """Find the agentic pipeline's files of the same names: messages and trajectories as texts."""
    named = tree.having(lambda file: bool(_COLUMNS_FILE.fullmatch(file.name)))
    return [file for file in named if _is_agentic(tree, file)]


def _is_agentic(tree: Tree, file: Path) -> bool:
    """Look at the file's beginning: its one line may be of any length."""
    head = tree.head(file)
    return not any(b'"%s"' % name.encode() in head for name in _COLUMNS) and b'"trajectory_data"' in head


def find_rows(tree: Tree) -> dict[int, list[Path]]:
    """Find the files of rows by the step of their first row; a step has one file a domain.

    A step that comes back after another one was trained again: its later files count.
    """
    steps: dict[int, list[Path]] = {}
    before: int | None = None
    for file in tree.having(lambda file: bool(_ROWS_FILE.fullmatch(file.name))):  # named by the time
        first = tree.first_object(file)
        if first is None or not first.keys() >= _ROWS or not isinstance(first["step"], int):
            continue
        step = first["step"]
        if step != before:
            steps[step] = []
        steps[step].append(file)
        before = step
    return dict(sorted(steps.items()))


def read_columns(tree: Tree, file: Path, sink: Sink) -> list[Rollout]:
    """Read a file of columns as rollouts.

    Raises
    ------
    RunFormatError
        Columns are absent or of different lengths.
    """
    label = tree.label(file)
    rollouts: list[Rollout] = []
    for whole in line_records(file, label, sink):
        columns = whole.values
        absent = sorted(name for name in _COLUMNS if not isinstance(columns.get(name), list))
        if absent:
            raise whole.fault(f"has no column {', '.join(absent)}", "columns of rollouts: responses, scores, prompt, …")
        n_rows = len(columns["responses"])
        lengths = {name: len(values) for name, values in columns.items() if isinstance(values, list)}
        if set(lengths.values()) != {n_rows}:
            raise whole.fault(f"has columns of different lengths ({lengths})"[:160], "one value a rollout")
        for row in range(n_rows):
            values = {name: column[row] for name, column in columns.items() if isinstance(column, list)}
            rollouts.append(_of_columns(Record(label, f"rollout {row}", values)))
    ids = [rollout.group for rollout in rollouts]
    if None in ids or len(set(ids)) == len(ids):  # an id of its own for every rollout is no group
        rollouts = [Rollout(one.prompt, None, one.tokens, one.ours, one.theirs) for one in rollouts]
    return rollouts


def _of_columns(record: Record) -> Rollout:
    row = record.values
    prompt = record.text("prompt") or record.text("messages") or ""
    ours = {
        "reward": record.number("scores"),
        "prompt": prompt,
        "completion": record.text("responses"),
        "answer": record.text("ground_truth"),
        "source": record.text("domain"),
    }
    kept = {key: value for key, value in row.items() if key not in _MOVED and value is not None}
    return Rollout(prompt, None if row.get("id") is None else (json_text(row["id"]), prompt), {}, ours, kept)


def row_records(tree: Tree, files: Sequence[Path], step: int, sink: Sink) -> Iterator[Record]:
    """Yield the rows of a step's files.

    Raises
    ------
    RunFormatError
        A row is of another step (not with ``skip_invalid``).
    """
    for file in files:
        yield from of_step(line_records(file, tree.label(file), sink), "step", step, sink)


def of_row(record: Record) -> Rollout:
    """Take a row with per-token values: they begin with the response and end in padding, which the mask tells."""
    mask = record.mask("new_response_mask")
    if mask is None:
        raise record.fault("has no new_response_mask")
    tokens = {
        "token_logp": masked(record.floats("logprobs", len(mask)), mask),
        "token_entropy": masked(record.floats("old_log_probs2_entropy", len(mask)), mask),
    }
    prompt = _PADDING.sub("", record.text("prompt") or "")
    ours = {
        "reward": record.number("reward"),
        "n_tokens": int(mask.sum()),
        "prompt": prompt,
        "completion": _PADDING.sub("", record.text("response") or ""),
    }
    return Rollout(prompt, None, tokens, ours, {})


def with_scores(rows: Sequence[Rollout], columns: Sequence[Rollout]) -> list[Rollout] | None:
    """Give rows the raw scores, references and ids of the other dump, by their texts; None when any has no counterpart.

    Parameters
    ----------
    rows
        With per-token values; their reward becomes ``normalised_reward``.
    columns
        With scores.

    Examples
    --------
    >>> row = Rollout("<|user|>1+1=", None, {}, {"reward": 0.7, "completion": "2<|end|>"})
    >>> column = Rollout("1+1=", None, {}, {"reward": 1.0, "completion": "2"}, {"id": "a"})
    >>> with_scores([row], [column])[0].ours["reward"]
    1.0
    """
    waiting: dict[str, list[Rollout]] = {}
    for column in reversed(columns):
        waiting.setdefault(_plain(column.ours["completion"]), []).append(column)
    joined = []
    for row in rows:
        candidates = waiting.get(_plain(row.ours["completion"]), [])
        asked = _plain(row.prompt)
        found = next((one for one in reversed(candidates) if _plain(one.prompt) in asked), None)
        if found is None:
            return None
        candidates.remove(found)
        said: Mapping[str, Any] = {key: value for key, value in found.ours.items() if value is not None}
        ours = {**row.ours, **{key: said[key] for key in ("reward", "answer", "source") if key in said}}
        theirs = {**found.theirs, "normalised_reward": row.ours["reward"]}
        joined.append(Rollout(row.prompt, found.group, row.tokens, ours, theirs))
    return joined


def _plain(words: object) -> str:
    """Leave out special tokens, which one dump keeps and the other does not."""
    return _SPECIAL.sub("", str(words or "")).strip()
