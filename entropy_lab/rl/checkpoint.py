"""What a training run needs to go on after it was stopped, in one file that is whole or not there.

Policy weights, the optimizer's moments and the states of controllers. No state of a random number generator and no
place in the data are among it: both are functions of the settings, see `randomness`.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from entropy_lab.errors import ParameterError, RunFormatError
from entropy_lab.files import cannot_write, leftovers, replacing
from entropy_lab.run import RunWarning

FOLDER: Final = "checkpoints"
_FORMAT: Final = "entropy-lab/checkpoint-1"
_WEIGHT: Final = "weight"


class Controller(Protocol):
    """What changes from update to update beside the policy: advantages under a `Modulation`, say."""

    def state(self) -> Mapping[str, float]:
        """Give all that a fresh object of the same settings needs to continue, JSON-able."""
        ...

    def restore(self, state: Mapping[str, float], /) -> None:
        """Continue where another object stopped."""
        ...


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state of a training run after an update.

    Parameters
    ----------
    step
        Index of the update, from 0.
    seconds
        Time that training has taken so far.
    weights
        Parameter of the policy -> value.
    moments
        ``<name of the state>/<parameter>`` -> value, of AdamW: ``step``, ``exp_avg`` and ``exp_avg_sq``. A parameter
        that never had a gradient has none.
    controllers
        Name of a `Controller` -> its state.

    Examples
    --------
    >>> import tempfile
    >>> from entropy_lab.advantages import modulation
    >>> model = nn.Linear(2, 1)
    >>> optimizer = torch.optim.AdamW(model.parameters())
    >>> model(torch.ones(2)).backward()
    >>> optimizer.step()
    >>> run = Path(tempfile.mkdtemp())
    >>> Checkpoint.of(7, 1.5, model, optimizer, {"advantage": modulation("grpo")}).save(run).name
    'step-000007.safetensors'
    >>> sorted(latest(run).moments)[:3]
    ['exp_avg/bias', 'exp_avg/weight', 'exp_avg_sq/bias']
    """

    step: int
    seconds: float
    weights: Mapping[str, torch.Tensor]
    moments: Mapping[str, torch.Tensor]
    controllers: Mapping[str, Mapping[str, float]]

    @classmethod
    def of(
        cls,
        step: int,
        seconds: float,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        controllers: Mapping[str, Controller],
    ) -> Checkpoint:
        """Take the state of a run; on a processor its tensors are the run's own, so save it before the next update.

        Parameters
        ----------
        step, seconds
            As in the class.
        model
            The policy; it must not have buffers that training changes.
        optimizer
            Of the model's parameters. Its learning rate is a function of the step, and not kept.
        controllers
            By name, after the update.
        """
        parameters = dict(model.named_parameters())
        moments = {
            f"{key}/{name}": value.cpu()
            for name, parameter in parameters.items()
            for key, value in optimizer.state.get(parameter, {}).items()
        }
        weights = {name: parameter.detach().cpu() for name, parameter in parameters.items()}
        states = {name: dict(controller.state()) for name, controller in controllers.items()}
        return cls(step, seconds, weights, moments, states)

    def restore(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, controllers: Mapping[str, Controller]
    ) -> None:
        """Bring fresh objects of the same settings to this state.

        Parameters
        ----------
        model, optimizer, controllers
            Changed in place.

        Raises
        ------
        ParameterError
            The model has other parameters, or the controllers are others.
        """
        parameters = dict(model.named_parameters())
        _require_same(
            "parameters", *({name: value.shape for name, value in of.items()} for of in (self.weights, parameters))
        )
        _require_same("controllers", dict.fromkeys(self.controllers), dict.fromkeys(controllers))
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(self.weights[name])
        optimizer.state.clear()
        for name, value in self.moments.items():
            key, _, of = name.partition("/")
            # AdamW keeps its count of steps on the processor wherever the parameters are.
            device = parameters[of].device if value.ndim else value.device
            optimizer.state[parameters[of]][key] = value.to(device, copy=True)
        for name, controller in controllers.items():
            controller.restore(self.controllers[name])

    def file_in(self, run: Path) -> Path:
        """Give the file that a run has it in: ``RUN/checkpoints/step-<step>.safetensors``."""
        return run / FOLDER / f"step-{self.step:06d}.safetensors"

    def save(self, run: Path) -> Path:
        """Write the checkpoint into a run, and remove the others once it is whole.

        Parameters
        ----------
        run
            Directory of the run.

        Returns
        -------
        Path
            See `file_in`.

        Raises
        ------
        OutputError
            It cannot be written; the one before is still there.
        """
        file = self.file_in(run)
        folder = file.parent
        tensors = {f"{_WEIGHT}/{name}": value for name, value in self.weights.items()} | dict(self.moments)
        facts = json.dumps({"step": self.step, "seconds": self.seconds, "controllers": dict(self.controllers)})
        with replacing(file) as temporary:
            try:  # straight from the tensors: bytes in between would take their memory twice more
                save_file(tensors, temporary, {"format": _FORMAT, "facts": facts, "sha256": _digest(tensors, facts)})
            except SafetensorError as error:
                raise OSError(str(error)) from error
            # The steps that it stands for must be on the disk before it: power cuts keep no order of their own.
            os.sync()
        try:
            for other in {*_files(folder), *leftovers(folder)} - {file}:
                other.unlink()
        except OSError as error:
            raise cannot_write(folder, error) from error
        return file

    @classmethod
    def load(cls, file: Path) -> Checkpoint:
        """Read a checkpoint, and make sure that it is what was written.

        Parameters
        ----------
        file
            From `save`.

        Returns
        -------
        Checkpoint
            Equal to the bit.

        Raises
        ------
        RunFormatError
            It was cut off or changed, or is something else.
        """
        try:
            with safe_open(file, framework="pt") as stream:
                about = stream.metadata() or {}
                tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError) as error:
            raise RunFormatError(str(file), f"cannot be read ({error})", "a whole checkpoint") from error
        if about.get("format") != _FORMAT:
            raise RunFormatError(str(file), "is not a checkpoint", f"a file of the format {_FORMAT}")
        if about.get("sha256") != _digest(tensors, about.get("facts", "")):
            raise RunFormatError(str(file), "is damaged: its contents do not have its checksum", "a whole checkpoint")
        weights = {name: value for name, value in tensors.items() if name.startswith(f"{_WEIGHT}/")}
        return cls(
            weights={name.removeprefix(f"{_WEIGHT}/"): value for name, value in weights.items()},
            moments={name: value for name, value in tensors.items() if name not in weights},
            **json.loads(about["facts"]),
        )


def latest(run: Path) -> Checkpoint | None:
    """Read the latest whole checkpoint of a run.

    Parameters
    ----------
    run
        Directory of the run.

    Returns
    -------
    Checkpoint or None
        None when there is no checkpoint. A damaged one costs a `RunWarning` when an older one is whole.

    Raises
    ------
    RunFormatError
        There are checkpoints and none is whole.

    Examples
    --------
    >>> latest(Path("/nowhere"))
    """
    refused: list[RunFormatError] = []
    for file in reversed(_files(run / FOLDER)):
        try:
            checkpoint = Checkpoint.load(file)
        except RunFormatError as error:
            refused.append(error)
            continue
        for refusal in refused:
            warnings.warn(f"{refusal}. Going on from {file.name}", RunWarning, stacklevel=2)
        return checkpoint
    if refused:
        raise refused[0]
    return None


def _require_same(what: str, found: Mapping[str, object], expected: Mapping[str, object]) -> None:
    wrong = sorted(
        name for name in found.keys() | expected.keys() if found.get(name, "absent") != expected.get(name, "absent")
    )
    if wrong:
        raise ParameterError("checkpoint", f"has other {what} than the run: {', '.join(wrong)}", "those of the run")


def _files(folder: Path) -> list[Path]:
    """Find the checkpoints of a folder, by step."""
    names = {path: path.stem.removeprefix("step-") for path in folder.glob("step-*.safetensors")}
    return sorted((path for path in names if names[path].isdecimal()), key=lambda path: int(names[path]))


def _digest(tensors: Mapping[str, torch.Tensor], facts: str) -> str:
    """Hash everything that a checkpoint says."""
    found = hashlib.sha256(facts.encode())
    for name, value in sorted(tensors.items()):
        found.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
