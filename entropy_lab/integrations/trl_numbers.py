"""The numbers that TRL logs, as lines of ``metrics.jsonl``."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from entropy_lab.readers.trl_logs import DIALECT
from entropy_lab.writer import RunWriter

_NOT_OF_A_STEP: Final = frozenset({"num_tokens", "epoch", "total_flos", "step"})


def as_metrics(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Give TRL's numbers the run format's names; those that it does not name keep their own.

    Parameters
    ----------
    numbers
        As TRL logs them.

    Returns
    -------
    dict of str to object
        Without totals since the beginning.

    Examples
    --------
    >>> as_metrics({"learning_rate": 1e-6, "clip_ratio/low_mean": 0.1, "kl": 0.2, "num_tokens": 512.0})
    {'lr': 1e-06, 'clip_fraction_low': 0.1, 'kl': 0.2}
    """
    return {DIALECT.names.get(name, name): value for name, value in numbers.items() if name not in _NOT_OF_A_STEP}


class StepNumbers:
    """Means, over the optimizer steps of a recorded step, of what TRL measures; independent of its logging interval.

    Examples
    --------
    >>> numbers = StepNumbers()
    >>> before = numbers.lengths({"kl": [0.5]})
    >>> numbers.take({"kl": [0.5, 0.1]}, before, loss=0.25)
    >>> numbers.take({"kl": [0.3]}, numbers.lengths({}), loss=0.75)
    >>> numbers.of_step(updates=2)
    {'kl': 0.2, 'loss': 0.5}
    """

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = defaultdict(list)
        self._loss = 0.0

    def lengths(self, measured: Mapping[str, Sequence[float]]) -> dict[str, int]:
        """Count what had been measured before a forward and backward pass."""
        return {name: len(values) for name, values in measured.items()}

    def take(self, measured: Mapping[str, Sequence[float]], before: Mapping[str, int], loss: float) -> None:
        """Take what a forward and backward pass has added.

        Parameters
        ----------
        measured
            Name -> all values since TRL last logged.
        before
            From `lengths`.
        loss
            Its share of the optimizer step's loss.
        """
        for name, values in measured.items():
            self._values[name] += values[before.get(name, 0) :]
        self._loss += loss

    def note(self, name: str, value: float) -> None:
        """Take one more value."""
        self._values[name].append(value)

    def of_step(self, updates: int) -> dict[str, Any]:
        """Give the means, and forget the values.

        Parameters
        ----------
        updates
            Optimizer steps since the last call.
        """
        finite = {name: [v for v in values if math.isfinite(v)] for name, values in self._values.items()}
        means = {name: sum(values) / len(values) for name, values in finite.items() if values}
        found = as_metrics({**means, "loss": self._loss / max(updates, 1)})
        self._values.clear()
        self._loss = 0.0
        return found


class StepMetricsCallback(TrainerCallback):
    """Write what any trainer of TRL logs to a run of our format, without rollouts.

    A line for each optimizer step that is logged (``logging_steps=1`` for all), numbered from 0, with the numbers of an
    evaluation that follows it; it is written when the next one begins, or the training ends. Only the main process
    writes. A training that goes on from a checkpoint goes on with the run.

    Parameters
    ----------
    path
        Directory of the run; default ``entropy-lab`` in the trainer's ``output_dir``.
    method
        Name of the method.

    Examples
    --------
    >>> import tempfile
    >>> from entropy_lab.run import open_run
    >>> from types import SimpleNamespace
    >>> arguments = SimpleNamespace(output_dir=tempfile.mkdtemp(), seed=0, to_sanitized_dict=dict)
    >>> callback, state = StepMetricsCallback(), TrainerState(global_step=0)
    >>> callback.on_train_begin(arguments, state, TrainerControl())
    >>> state.global_step = 1
    >>> callback.on_log(arguments, state, TrainerControl(), logs={"entropy": 0.7, "learning_rate": 1e-6})
    >>> callback.on_log(arguments, state, TrainerControl(), logs={"eval_loss": 0.2})
    >>> callback.on_train_end(arguments, state, TrainerControl())
    >>> open_run(arguments.output_dir + "/entropy-lab").metrics().rows()
    [(0, 0.7, 1e-06, 0.2)]
    """

    def __init__(self, path: str | Path | None = None, method: str = "trl") -> None:
        self._path, self._method = path, method
        self._writer: RunWriter | None = None
        self._line: dict[str, Any] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Begin the run, or go on with it."""
        if not state.is_world_process_zero:
            return
        path = Path(self._path or Path(args.output_dir or ".") / "entropy-lab")
        if state.global_step and (path / "run.json").exists():
            self._writer = RunWriter.resume(path, after=state.global_step - 1)
        else:
            about: dict[str, Any] = {"seed": args.seed, "config": args.to_sanitized_dict()}
            self._writer = RunWriter(path, method={"name": self._method, "params": {}}, **about)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: object,
    ) -> None:
        """Take in what belongs to the latest optimizer step."""
        numbers = as_metrics(logs or {})
        # The summary at the end of training is of no step.
        if self._writer is None or not state.global_step or "train_runtime" in numbers:
            return
        if self._line.get("step") != state.global_step - 1:
            self._write()
        self._line |= {"step": state.global_step - 1, **numbers}

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Write the last line."""
        self._write()

    def _write(self) -> None:
        if self._writer is not None and self._line:
            self._writer.write_metrics(self._line)
        self._line = {}
