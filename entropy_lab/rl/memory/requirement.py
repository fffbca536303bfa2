"""Saying what a run needs before it begins, and refusing it where the memory is not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

import torch
from transformers import PreTrainedConfig

from entropy_lab.errors import ParameterError
from entropy_lab.rl.memory.available import available_memory
from entropy_lab.rl.memory.estimate import GIB, MemoryEstimate, estimate_host, estimate_memory
from entropy_lab.rl.memory.footprint import footprint
from entropy_lab.rl.memory.workload import Workload, tokens_of

_WORTH_SAYING: Final = 0.98


def require_memory(
    config: PreTrainedConfig,
    dtype: str,
    load: Workload,
    device: torch.device,
    say: Callable[[str], None],
    available: Callable[[torch.device], int] = available_memory,
) -> MemoryEstimate:
    """Say what a run needs, and refuse it where the memory is not there; before the weights are loaded.

    Parameters
    ----------
    config
        Of a causal language model of transformers.
    dtype
        Type of its matrix products.
    load
        The settings.
    device
        What it is computed on.
    say
        Prints a line.
    available
        Tells how many bytes a device has left.

    Returns
    -------
    MemoryEstimate
        What the device needs.

    Raises
    ------
    ParameterError
        It does not fit; the message names the settings that would help, and how much.
    """
    found = footprint(config, dtype)
    gpu_bytes = int(torch.cuda.mem_get_info(device)[1]) if device.type == "cuda" else 0

    def estimate(settings: Workload) -> MemoryEstimate:
        return estimate_memory(found, settings, device.type, gpu_bytes)

    estimated, machine = estimate(load), torch.device("cpu")
    there = available(device)
    for line in (*estimated.lines(), f"there are  {there / GIB:.2f} GiB on {device}", *tokens_of(load)):
        say(line)
    if estimated.peak > there:
        helps = ", then ".join(f"{words} ({peak / GIB:.3g} GiB)" for words, peak in _smaller(load, estimate))
        raise _too_much(device, estimated.peak, there, f"smaller: {helps}" if helps else "")
    if device != machine and (needed := estimate_host(found, load).peak) > (there := available(machine)):
        raise _too_much(machine, needed, there, "smaller: --checkpoint-every 0" if load.checkpoint_every else "")
    return estimated


def _too_much(device: torch.device, needed: float, there: float, smaller: str) -> ParameterError:
    wrong = f"this run needs about {needed / GIB:.3g} GiB, and there are {there / GIB:.3g} GiB"
    return ParameterError(f"memory of {device}", wrong, smaller, "a smaller model, or a machine with more memory")


def _smaller(load: Workload, estimate: Callable[[Workload], MemoryEstimate]) -> Iterator[tuple[str, float]]:
    """Yield settings that change no method, each on top of those before it, and the peak with them."""
    changes: dict[str, dict[str, Any]] = {
        "--model.gradient-checkpointing": {"gradient_checkpointing": True},
        f"--micro-tokens {load.width}": {"micro_tokens": load.width},
        f"--rollout-batch {load.group_size}": {"rollout_batch": load.group_size},
    }
    peak = estimate(load).peak
    for words, change in changes.items():
        changed = replace(load, **change)
        if (smaller := estimate(changed).peak) < _WORTH_SAYING * peak:
            load, peak = changed, smaller
            yield words, peak
