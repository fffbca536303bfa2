"""What the user says of the record in verl's configuration: ``+trainer.v1.entropy_lab.NAME=VALUE``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from entropy_lab.errors import ParameterError


@dataclass(frozen=True)
class RecordSettings:
    """Settings of the record that our trainers write.

    Examples
    --------
    >>> RecordSettings.of({"record_to": "runs/mine", "texts": True}).texts
    True
    >>> RecordSettings.of({"text": True})
    Traceback (most recent call last):
    entropy_lab.errors.ParameterError: trainer.v1.entropy_lab: has text; record_to, tokens, texts, correct, prompt_id, \
logp_after_every, name, task, setting. Hint: did you mean texts?
    """

    record_to: str = ""
    """Directory of the run; default ``entropy-lab`` in ``trainer.default_local_dir``."""
    tokens: bool = True
    """Keep lists by token: ids, log-probabilities, entropies."""
    texts: bool = False
    """Keep prompts, completions and reference answers."""
    correct: str = ""
    """Key of what the reward function returns whose 0 and 1 are the verdicts; default ``acc``, else the reward, while
    they are 0 or 1."""
    prompt_id: str = ""
    """Key of the data set's ``extra_info`` that names prompts; default: a hash of the prompt's text."""
    logp_after_every: int = 0
    """Take log-probabilities under the updated policy after every k-th step (one forward pass); 0 for never."""
    name: str | None = None
    task: str | None = None
    setting: str | None = None
    """What the run is, see `Recorder`."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value: object = getattr(self, each.name)
            if isinstance(each.default, bool):
                right, allowed = isinstance(value, bool), "true or false"
            elif isinstance(each.default, int):
                right, allowed = isinstance(value, int) and not isinstance(value, bool) and value >= 0, "0 or more"
            else:
                right, allowed = isinstance(value, str) or value is each.default, "a text"
            if not right:
                raise ParameterError(f"trainer.v1.entropy_lab.{each.name}", f"is {value!r}", allowed)

    @classmethod
    def of(cls, section: Mapping[str, Any] | None) -> RecordSettings:
        """Read the section; None for one that is not there.

        Parameters
        ----------
        section
            Setting -> value.

        Raises
        ------
        ParameterError
            It has another name, or a value of another type.
        """
        known = [each.name for each in fields(cls)]
        for name in section or {}:
            if name not in known:
                close = get_close_matches(str(name), known, n=1)
                hint = f"did you mean {close[0]}?" if close else ""
                raise ParameterError("trainer.v1.entropy_lab", f"has {name}", ", ".join(known), hint)
        return cls(**{str(name): value for name, value in (section or {}).items()})
