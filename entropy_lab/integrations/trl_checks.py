"""What `entropy-lab doctor trl` looks at."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from entropy_lab.integrations.checks import Check, in_turn
from entropy_lab.integrations.trl_releases import SUPPORTED


def checks() -> Iterator[Check]:
    """Look at the release, and make the trainer's class."""
    return in_turn([("release", SUPPORTED.require, SUPPORTED.hint), ("trainer", _trainer, "")])


def _trainer() -> str:
    kind = import_module("entropy_lab.integrations.trl").EntropyLabGRPOTrainer
    return f"{kind.__module__}.{kind.__name__} is made"
