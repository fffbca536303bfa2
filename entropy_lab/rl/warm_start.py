"""The base policy: supervised training on demonstrations, done once and kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
import transformers
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.nn.utils import clip_grad_norm_
from transformers import Qwen3ForCausalLM

from entropy_lab.errors import OutputError, ParameterError
from entropy_lab.files import replacing
from entropy_lab.rl.logprobs import token_scores
from entropy_lab.rl.micro_batches import micro_batches
from entropy_lab.rl.model import ModelSizes, build_model
from entropy_lab.rl.sequences import Sequences
from entropy_lab.tasks.task import EOS, DemonstratedTask

_REVISION: Final = 1
"""Part of the cache key: raise it with any change to how the weights are made that the settings do not show."""


@dataclass(frozen=True)
class WarmStart:
    """Settings of the supervised training.

    Raises
    ------
    ParameterError
        When a setting is out of range.

    Examples
    --------
    >>> WarmStart(steps=10).batch_size
    128
    """

    steps: int = 450
    """Gradient steps; 0 leaves the weights random."""
    seed: int = 0
    """Seed of the initial weights and of the demonstrations."""
    batch_size: int = 128
    """Fresh demonstrations a step."""
    lr: float = 3e-3
    """Highest learning rate."""
    rise: int = 50
    """Steps of linear rise to the highest learning rate, from where it falls linearly to a tenth."""

    def __post_init__(self) -> None:
        if self.steps < 0 or self.batch_size < 1 or self.rise < 1:
            raise ParameterError(
                "warm_start", f"is {self.steps} steps of {self.batch_size}, rise {self.rise}", "0, 1 and 1 or more"
            )

    def lr_at(self, step: int) -> float:
        """Learning rate of a step.

        Examples
        --------
        >>> WarmStart(steps=101, rise=1, lr=1.0).lr_at(0), round(WarmStart(steps=101, rise=1, lr=1.0).lr_at(100), 3)
        (1.0, 0.109)
        """
        risen = min(1.0, (step + 1) / self.rise)
        fallen = max(0, step + 1 - self.rise) / max(1, self.steps - self.rise + 1)
        return self.lr * risen * (1 - 0.9 * fallen)


def cache_directory() -> Path:
    """Where warm-started weights are kept: ``$ENTROPY_LAB_CACHE``, else ``~/.cache/entropy-lab``.

    Returns
    -------
    Path
        It may not exist yet.

    Examples
    --------
    >>> isinstance(cache_directory(), Path)
    True
    """
    chosen = os.environ.get("ENTROPY_LAB_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "entropy-lab"


def warm_start(
    task: DemonstratedTask,
    sizes: ModelSizes,
    settings: WarmStart,
    *,
    progress: Callable[[int, int, float], None] | None = None,
) -> Qwen3ForCausalLM:
    """Policy trained on demonstrations, from the cache when the same one was made before.

    The loss is the mean over response tokens, end-of-sequence included, of -log p(token).

    Parameters
    ----------
    task
        Source of the demonstrations.
    sizes
        Sizes of the network.
    settings
        Length, seed and learning rate of the training.
    progress
        Called after each step with steps done, steps in all and the step's loss; never called on a cache hit.

    Returns
    -------
    Qwen3ForCausalLM
        In evaluation mode.

    Raises
    ------
    OutputError
        When the weights cannot be written to the cache.
    """
    file = cache_directory() / f"warm-start-{_key(task, sizes, settings)}.safetensors"
    model = _cached(file, task, sizes, settings)
    try:
        return model or _made(file, task, sizes, settings, progress)
    except OSError as error:
        hint = "set ENTROPY_LAB_CACHE to a folder that can be written"
        raise OutputError(str(file.parent), "cannot keep the warm-started weights", "", hint) from error


def _made(
    file: Path,
    task: DemonstratedTask,
    sizes: ModelSizes,
    settings: WarmStart,
    progress: Callable[[int, int, float], None] | None,
) -> Qwen3ForCausalLM:
    """Train and keep the weights. Of runs that begin together with the same base policy one does, the others wait."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        model = _cached(file, task, sizes, settings)
        if model is None:
            model = build_model(sizes, task.vocabulary.size, settings.seed)
            with replacing(file) as temporary:
                _train(model, task, settings, progress)
                save_file(model.model.state_dict(), temporary)
        return model


def _cached(file: Path, task: DemonstratedTask, sizes: ModelSizes, settings: WarmStart) -> Qwen3ForCausalLM | None:
    """Load the weights; None when there are none, or when the file was cut off or is of another network."""
    if not file.is_file():
        return None
    model = build_model(sizes, task.vocabulary.size, settings.seed)
    # The body holds every weight: the output layer is tied to its embeddings.
    with contextlib.suppress(SafetensorError, RuntimeError):
        model.model.load_state_dict(load_file(file))
        return model
    return None


def _key(task: DemonstratedTask, sizes: ModelSizes, settings: WarmStart) -> str:
    """Hash of everything that makes the weights, down to what changes the last bits of a sum."""
    probe = task.demonstrations(np.random.default_rng(settings.seed), 64)
    made_of = {
        "revision": _REVISION,
        "task": task.name,
        "vocabulary": task.vocabulary.characters,
        # Stands for the task's code: another way of drawing problems shows in the first demonstrations.
        "demonstrations": [demonstration.problem.prompt + demonstration.completion for demonstration in probe],
        "sizes": asdict(sizes),
        "settings": asdict(settings),
        "software": [torch.__version__, transformers.__version__, np.__version__],
        "machine": [platform.machine(), torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()],
    }
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:16]


def _train(
    model: Qwen3ForCausalLM,
    task: DemonstratedTask,
    settings: WarmStart,
    progress: Callable[[int, int, float], None] | None,
) -> None:
    rng = np.random.default_rng(settings.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, betas=(0.9, 0.98), weight_decay=0.01)
    for step in range(settings.steps):
        optimizer.param_groups[0]["lr"] = settings.lr_at(step)
        drawn = task.demonstrations(rng, settings.batch_size)
        encode = task.vocabulary.encode
        sequences = Sequences.join(
            [encode(each.problem.prompt) for each in drawn], [[*encode(each.completion), EOS] for each in drawn]
        )
        n_tokens, loss = int(sequences.n_tokens_B.sum()), 0.0
        optimizer.zero_grad()
        for index_B in micro_batches(sequences, torch.arange(settings.batch_size), 64):
            part = -token_scores(model, sequences.rows(index_B), temperature=1.0).logp_BT.sum() / n_tokens
            part.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
            loss += part.item()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if progress is not None:
            progress(step + 1, settings.steps, loss)
