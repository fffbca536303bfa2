"""Which checkpoint belongs to which step: one for all, or one a step by a pattern such as ``ckpts/step-{step+1}``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from entropy_lab.errors import ParameterError

_FIELD: Final = re.compile(r"\{step(?P<offset>[+-]\d+)?(?::(?P<width>0?\d+)d?)?\}")


@dataclass(frozen=True)
class CheckpointPattern:
    """Where checkpoints are.

    Parameters
    ----------
    text
        A directory or hub id; with ``{step}``, ``{step+1}`` or ``{step:06d}`` in it, one for each step.

    Raises
    ------
    ParameterError
        There are other braces in it.

    Examples
    --------
    >>> pattern = CheckpointPattern("ckpts/{step+1:04d}")
    >>> pattern.by_step, pattern.at(7)
    (True, 'ckpts/0008')
    >>> CheckpointPattern("Qwen/Qwen3-0.6B").by_step
    False
    """

    text: str

    def __post_init__(self) -> None:
        if odd := re.search(r"\{.*?\}|[{}]", _FIELD.sub("", self.text)):
            raise ParameterError("checkpoint", f"holds {odd[0]} in {self.text!r}", "{step}, {step+1}, {step:06d}")

    @property
    def by_step(self) -> bool:
        """Whether every step has its own."""
        return _FIELD.search(self.text) is not None

    @property
    def name(self) -> str:
        """The last part of its path, with letters, digits and underscores only, as a column's name has."""
        return re.sub(r"\W+", "_", Path(self.text).resolve().name).strip("_")

    def at(self, step: int) -> str:
        """Give the checkpoint of a step."""
        return _FIELD.sub(lambda field: format(step + int(field["offset"] or 0), field["width"] or ""), self.text)

    def is_there(self, step: int) -> bool:
        """Tell whether the checkpoint of a step can be tried: one for all always, one of many if it is a directory."""
        return not self.by_step or Path(self.at(step)).is_dir()
