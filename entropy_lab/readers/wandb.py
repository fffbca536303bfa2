"""Weights & Biases: ``run-<id>.wandb``, as its client keeps it in offline and in online mode."""

from __future__ import annotations

from typing import Final

from entropy_lab.readers.containers import container
from entropy_lab.readers.reader import Reader

READER: Final[Reader] = container("wandb", "Weights & Biases", "W&B")
