"""The memory that a training run needs at its peak, and what takes it.

With N parameters, float32 weights whatever they are multiplied in, and AdamW:

- always: 4N bytes of weights, 4N of gradients, 8N of moments, 4N of a frozen reference; what vLLM takes;
- while responses are sampled by the embedded engine: keys and values of the responses side by side, one more copy of
  them for a block (each token makes the tensors anew), four float32 values for each next-token logit, and in bfloat16
  the copies of the weights;
- in a backward pass over M tokens (a micro-batch, padding included): what the forward pass kept, see `footprint`, and
  the blocks of logits of `linear_logp_entropy` with its hidden states and their gradient; with gradient checkpointing
  what goes from block to block, and the larger of all that one block keeps and the logits; in bfloat16 the
  output matrix, and then its gradient, in that type; the gradient of the output matrix before it is added, 4 bytes a
  value, and once more at the end where the embedding shares the matrix;
- in an optimizer step on a GPU: 4N, since PyTorch then updates all parameters at once;
- on a processor, while an update is made: 200 MiB that the C library keeps of what was freed (measured);
- of the machine that has the GPU: 4N while the weights are read, 12N while a checkpoint is written.

The peak is the sum of the first and the largest of the others. Not counted: Python and PyTorch themselves (some 0.5 GiB
of the machine, and as much of a GPU), memory that PyTorch's allocator on a GPU keeps in pieces too small to use, texts,
verifiers.

References
----------
4 + 4 + 8 bytes: arXiv 1910.02054, section 3.1. What blocks keep, and checkpointing: arXiv 2205.05198, section 4, and
arXiv 1604.06174. docs/training.md compares estimates with measured peaks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from entropy_lab.rl.linear_logp import BLOCK_MIB
from entropy_lab.rl.memory.footprint import Footprint
from entropy_lab.rl.memory.workload import Workload

GIB: Final = 2**30
ALWAYS: Final = "always"
_FLOAT32: Final = 4
_VLLM_CACHE: Final = 2**29
"""Of vLLM on a processor, where its options say nothing."""
_KEPT_FREE: Final = 200 * 2**20
"""130 to 470 MiB with glibc for models of 20 to 50 M parameters: it keeps freed pieces of up to 32 MiB."""


@dataclass(frozen=True)
class Part:
    """Something that takes memory.

    Parameters
    ----------
    phase
        When: ``always``, or while something is done.
    what
        A few words.
    n_bytes
        How much.
    """

    phase: str
    what: str
    n_bytes: float


@dataclass(frozen=True)
class MemoryEstimate:
    """What a run needs of one device.

    Parameters
    ----------
    parts
        All that takes memory; nothing is in two of them.
    """

    parts: tuple[Part, ...]

    @property
    def phases(self) -> Mapping[str, float]:
        """Bytes in use in each phase, what is always there included."""
        always = sum(part.n_bytes for part in self.parts if part.phase == ALWAYS)
        found: dict[str, float] = {}
        for part in self.parts:
            if part.phase != ALWAYS:
                found[part.phase] = found.get(part.phase, always) + part.n_bytes
        return found or {ALWAYS: always}

    @property
    def peak(self) -> float:
        """Most bytes in use at a time."""
        return max(self.phases.values())

    def lines(self) -> Iterator[str]:
        """Yield a table to be read, in GiB.

        Yields
        ------
        str
            A line for each part, and for the peak.

        Examples
        --------
        >>> parts = Part("always", "weights", 3 * GIB), Part("update", "activations", 2 * GIB)
        >>> print(*MemoryEstimate(parts).lines(), sep=chr(10))
        always     weights                                      3.00 GiB
        update     activations                                  2.00 GiB
        peak       update                                       5.00 GiB
        """
        for part in self.parts:
            yield f"{part.phase:10} {part.what:42} {part.n_bytes / GIB:6.2f} GiB"
        phase = max(self.phases, key=self.phases.__getitem__)
        yield f"{'peak':10} {phase:42} {self.peak / GIB:6.2f} GiB"


def estimate_memory(found: Footprint, load: Workload, device: str = "cpu", gpu_bytes: int = 0) -> MemoryEstimate:
    """Estimate what a run needs of the device that it computes on.

    Parameters
    ----------
    found
        The model.
    load
        The settings.
    device
        Type of the device: ``cpu``, ``cuda``, or another accelerator's.
    gpu_bytes
        Memory of the whole GPU, of which vLLM takes a share.

    Returns
    -------
    MemoryEstimate
        The formulas are those of this module.

    Examples
    --------
    >>> found = Footprint(10**6, 2, 10**5, 1000, True, 1e4, 0, 400, 500)
    >>> load = Workload(
    ...     steps=1, prompts_per_step=4, group_size=8, prompt_tokens=20, max_new_tokens=80, micro_batch=8
    ... )
    >>> sorted(estimate_memory(found, load).phases)
    ['rollout', 'update']
    """
    n = found.n_parameters
    parts = [
        Part(ALWAYS, f"weights of {n / 1e9:.3f} B parameters, float32", _FLOAT32 * n),
        Part(ALWAYS, "gradients", _FLOAT32 * n),
        Part(ALWAYS, "AdamW's moments", 2 * _FLOAT32 * n),
    ]
    if load.kl_coef:
        parts.append(Part(ALWAYS, "reference policy", _FLOAT32 * n))
    parts += _of_engine(found, load, device, gpu_bytes)
    parts += _of_update(found, load, device)
    if device == "cpu":
        parts.append(Part("update", "freed memory that the C library keeps", _KEPT_FREE))
    else:
        parts.append(Part("optimizer", "update of all parameters at once", _FLOAT32 * n))
    return MemoryEstimate(tuple(parts))


def estimate_host(found: Footprint, load: Workload) -> MemoryEstimate:
    """Estimate what a run that computes on a GPU needs of the machine's own memory.

    Parameters
    ----------
    found
        The model.
    load
        The settings.

    Returns
    -------
    MemoryEstimate
        The formulas are those of this module.

    Examples
    --------
    >>> found = Footprint(10**6, 2, 10**5, 1000, True, 1e4, 0, 400, 500)
    >>> load = Workload(
    ...     steps=1, prompts_per_step=4, group_size=8, prompt_tokens=20, max_new_tokens=80, micro_batch=8
    ... )
    >>> estimate_host(found, load).peak
    4000000.0
    """
    parts = [Part("loading", "weights on their way to the GPU", float(_FLOAT32 * found.n_parameters))]
    if load.checkpoint_every:
        parts.append(Part("checkpoint", "weights and moments on their way to it", 3.0 * _FLOAT32 * found.n_parameters))
    return MemoryEstimate(tuple(parts))


def _of_engine(found: Footprint, load: Workload, device: str, gpu_bytes: int) -> Iterator[Part]:
    if load.engine == "transformers":
        cache = load.side_by_side * load.width * found.cache_per_token
        what = f"keys and values of {load.side_by_side:,} x {load.width:,} tokens"
        yield Part("rollout", what, cache * (1 + 1 / found.n_layers))
        yield Part("rollout", "next-token logits", 4 * _FLOAT32 * load.side_by_side * found.n_vocabulary)
        if found.saved_fixed:  # the output matrix, too, is multiplied in that type
            yield Part("rollout", "weights in the type they are multiplied in", found.saved_fixed + 2 * found.n_output)
    elif device == "cuda" and load.kv_cache_memory_bytes is None:
        yield Part(ALWAYS, "vLLM, by gpu_memory_utilization", load.gpu_memory_utilization * gpu_bytes)
    else:
        yield Part(ALWAYS, "vLLM's weights", _FLOAT32 * found.n_parameters)
        yield Part(ALWAYS, "vLLM's keys and values", load.kv_cache_memory_bytes or _VLLM_CACHE)


def _of_update(found: Footprint, load: Workload, device: str) -> Iterator[Part]:
    m, width = load.micro_width, found.n_output // found.n_vocabulary
    logp = BLOCK_MIB.get(device, BLOCK_MIB["cuda"]) * 2**20 + 2 * _FLOAT32 * m * width
    if found.saved_fixed:  # the output matrix in the type it is multiplied in; its gradient in that type comes after
        logp += 2 * found.n_output
    if load.gradient_checkpointing:
        block = (m * found.saved_per_token + found.saved_fixed) / found.n_layers
        kept = [
            Part("update", f"between blocks, {m:,} tokens", m * found.n_layers * found.between_blocks),
            # One after the other: the first block is made again when the gradients have left the logits.
            Part("update", "one block, made again, or logits", max(block, logp)),
        ]
    else:
        kept = [
            Part("update", f"kept for the backward pass, {m:,} tokens", m * found.saved_per_token),
            Part("update", "weights in the type they are multiplied in", found.saved_fixed),
            Part("update", "logits, block by block", logp),
        ]
    yield from (part for part in kept if part.n_bytes)
    output = _FLOAT32 * found.n_output
    # Of a shared matrix the embedding's gradient comes last, when what was kept is gone.
    more = max(0.0, output - sum(part.n_bytes for part in kept)) if found.shares_output else 0.0
    yield Part("update", "gradient of the output matrix on its way", output + more)
