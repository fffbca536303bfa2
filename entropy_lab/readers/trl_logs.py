"""Scalars as transformers' Trainer keeps them: ``trainer_state.json``, lists of log entries, printed dictionaries."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Final

from entropy_lab.errors import RunFormatError
from entropy_lab.readers import open_instruct
from entropy_lab.readers.console import printed_dicts
from entropy_lab.readers.console_styles import Printed
from entropy_lab.readers.log_kinds import LogFile, is_text
from entropy_lab.readers.logs import find_logs
from entropy_lab.readers.scalars import Dialect, Log, as_step
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.tree import Tree, cannot_read

_NAME: Final = re.compile(rb'"([^"\\]{1,80})"\s*:')
_PEEK_TEXT: Final = 8_000_000
_STEPS: Final = ("step", "global_step")
_SINKS: Final = ("W&B", "trackio", "MLflow", "TensorBoard", "table")
_CHECKPOINT: Final = re.compile(r"checkpoint-\d+")


def spell(name: str) -> str:
    """Undo what the sinks do to the Trainer's names: ``train/entropy`` is ``entropy``, ``eval/reward`` ``eval_reward``.

    Examples
    --------
    >>> spell("train/entropy"), spell("eval/reward"), spell("rewards/exact/mean")
    ('entropy', 'eval_reward', 'rewards/exact/mean')
    """
    if name.startswith("eval/"):
        return f"eval_{name.removeprefix('eval/')}"
    return name.removeprefix("train/")


DIALECT: Final = Dialect(
    signature=frozenset(
        {
            "frac_reward_zero_std",
            "reward_std",
            "completions/mean_length",
            "completions/clipped_ratio",
            "completion_length",
            "clip_ratio/low_mean",
            "clip_ratio/region_mean",
            "objective/rlhf_reward",
        }
    ),
    names={
        "learning_rate": "lr",
        # PPOTrainer, RLOOTrainer before 0.23 and OnlineDPOTrainer. objective/entropy is -logp summed over a completion,
        # policy/entropy_avg an average over padding, too: they keep their own names.
        "lr": "lr",
        "objective/scores": "reward",
        "completions/mean_length": "mean_length",
        "completion_length": "mean_length",
        "completions/clipped_ratio": "truncated",
        "clip_ratio/low_mean": "clip_fraction_low",
        "clip_ratio/high_mean": "clip_fraction_high",
        **{name: name for name in ("entropy", "reward", "loss", "grad_norm")},
    },
    spell=spell,
    foreign=open_instruct.DIALECT.signature,
)


def find_trainer_logs(tree: Tree) -> tuple[LogFile, ...]:
    """Find the Trainer's logs, the most exact first.

    Of the checkpoints of one run only the last is taken: it has the history of all before it.
    """
    if "trl" not in tree.memory:
        states = [log for file in tree.files if (log := _json_log(tree, file))]
        printed = [log for file in tree.files if (log := _printed_log(tree, file))]
        known_labels = {log.label for log in states}
        sinks = [log for log in find_logs(tree, _SINKS) if log.label not in known_labels]
        tree.memory["trl"] = tuple(
            log for log in (*_last_states(states), *sinks, *printed) if DIALECT.spoken(log.names)
        )
    known: tuple[LogFile, ...] = tree.memory["trl"]
    return known


def _last_states(logs: list[LogFile]) -> Iterator[LogFile]:
    """Keep the last checkpoint's state of each run's folder; files are in the order of their numbers."""
    last: dict[Path, LogFile] = {}
    for log in logs:
        path = Path(log.label)
        folder = path.parent.parent if _CHECKPOINT.fullmatch(path.parent.name) else path.parent
        if path.name == "trainer_state.json":
            # The state beside the checkpoints is written at the end of training: it has more than they.
            if folder not in last or path.parent != folder or Path(last[folder].label).parent != folder:
                is_final = folder in last and Path(last[folder].label).parent == folder
                last[folder] = last[folder] if is_final else log
        else:
            yield log
    yield from last.values()


def _json_log(tree: Tree, file: Path) -> LogFile | None:
    if file.suffix != ".json" or tree.head(file, 1)[:1] not in (b"[", b"{"):
        return None
    names = frozenset(name.decode("utf-8", "replace") for name in _NAME.findall(tree.head(file)))
    label = tree.label(file)
    if b'"log_history"' not in tree.head(file) and tree.head(file, 1) != b"[":
        return None
    kind = "trainer_state.json" if file.name == "trainer_state.json" else "list of log entries"
    return LogFile(label, kind, names, "", lambda sink: _load_json(file, label, kind, sink))


def _load_json(file: Path, label: str, kind: str, sink: Sink) -> Log:
    try:
        value = json.loads(file.read_bytes())
    except OSError as error:
        raise cannot_read(label, error) from error
    except ValueError as error:
        raise RunFormatError(label, f"is not JSON ({error})", "a whole file; it may still be being written") from error
    entries = value.get("log_history") if isinstance(value, dict) else value
    log = Log(label, kind)
    if not isinstance(entries, list):
        raise RunFormatError(label, "holds no list of log entries", '[{"step": 1, …}, …]')
    steps = [as_step(_step(entry)) if isinstance(entry, Mapping) else None for entry in entries]
    if None in steps:
        wrong = f"entry {steps.index(None)} has no step"
        if set(steps) == {None} or not all(isinstance(entry, Mapping) for entry in entries):
            raise RunFormatError(label, wrong, '[{"step": 1, …}, …]')
        sink.note(
            f"{label}: {wrong}: {steps.count(None)} of {len(steps)} entries are left out, as summaries at the end"
        )
    for step, entry in zip(steps, entries, strict=True):
        if step is not None:
            log.add(step, {name: part for name, part in entry.items() if name not in _STEPS})
    return log


def _step(entry: Mapping[str, Any]) -> object:
    return next((entry[name] for name in _STEPS if name in entry), None)


def _printed_log(tree: Tree, file: Path) -> LogFile | None:
    if not is_text(tree, file):
        return None
    names = {name for line in islice(printed_dicts(file, _PEEK_TEXT), 5) for name in line.values}
    if not names:
        return None
    label = tree.label(file)
    return LogFile(label, "printed log", frozenset(names), "", lambda sink: _load_printed(file, label, sink))


def _load_printed(file: Path, label: str, sink: Sink) -> Log:
    """Put printed entries at the steps of the progress bar, or, without one, count them."""
    log = Log(label, "printed log")
    lines = [line for line in printed_dicts(file) if not line.values.keys() <= {"epoch"}]
    training = [line for line in lines if "loss" in line.values]
    seen = _bar_steps(training)
    if seen is None:
        sink.note(f"{label}: its lines have no step number: the n-th printed entry is taken for step n")
    position = 0
    for line in lines:
        step = seen[min(position, len(seen) - 1)] if seen else position + 1
        if "loss" in line.values:
            position += 1
        elif position:  # an evaluation, or the summary at the end, belongs to the entry before it
            step = seen[position - 1] if seen else position
        log.add(step, line.values)
    return log


def _bar_steps(lines: list[Printed]) -> list[int] | None:
    steps = [line.step for line in lines]
    if any(step is None for step in steps):
        return None
    known = [step for step in steps if step is not None]
    return known if all(a < b for a, b in pairwise(known)) else None


def settings_of(logs: list[Log]) -> dict[str, Any]:
    """Take the training arguments that some log holds."""
    return next((log.config for log in logs if "num_generations" in log.config), {})
