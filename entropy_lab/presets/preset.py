"""Settings of a trainer in a TOML file, which whoever begins from them may still change one by one.

::

    about = "Qwen3-4B on MATH."       # a sentence for `entropy-lab list`

    task = "math"                     # settings of the trainer, as in --help
    lr = 2e-6

    [model]                           # a setting that has parts
    path = "Qwen/Qwen3-4B"
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from entropy_lab.built_in import SUFFIX, BuiltIn
from entropy_lab.errors import ParameterError, UnknownNameError

PRESETS: Final = BuiltIn("preset", Path(__file__).parent)
"""Those that ship with the package."""
_NOT_PRESET: Final = ("out", "resume", "preset")
"""What every start says for itself."""
_PARAMETERS: Final = "_params"
"""``task_params`` are the parameters of what ``task`` names, and say nothing about another one."""


@dataclass(frozen=True)
class Preset:
    """A file of settings. Make one with `read_preset`.

    Parameters
    ----------
    where
        The file, as an error names it; empty for no preset.
    values
        Setting of the trainer -> value, as they stand there; the trainer checks them.
    about
        A sentence on it.

    Examples
    --------
    >>> preset = Preset("mine.toml", {"lr": 2e-6, "model": {"path": "here", "dtype": "bfloat16"}})
    >>> preset.under({"model": {"path": "there"}})
    {'lr': 2e-06, 'model': {'path': 'there', 'dtype': 'bfloat16'}}
    """

    where: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    about: str = ""

    def under(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Give the settings of the preset with others laid over them.

        Parameters
        ----------
        given
            Settings that go before the preset's. A table, such as ``model``, changes only the entries that it has.
            Where ``X`` is another one than the preset's, the preset's ``X_params`` are not used.

        Returns
        -------
        dict of str to object
            All of them.

        Examples
        --------
        >>> exponents = {"beta_pos": 0.9, "beta_neg": 0.4}
        >>> preset = Preset("mine.toml", {"advantage": "asym_grpo", "advantage_params": exponents})
        >>> preset.under({"advantage_params": {"beta_pos": 0.7}})["advantage_params"]
        {'beta_pos': 0.7, 'beta_neg': 0.4}
        >>> preset.under({"advantage": "grpo"})
        {'advantage': 'grpo'}
        """
        kept = {name: value for name, value in self.values.items() if not self._is_of_another(name, given)}
        return {**kept, **{name: _over(kept.get(name), value) for name, value in given.items()}}

    def _is_of_another(self, name: str, given: Mapping[str, Any]) -> bool:
        named = name.removesuffix(_PARAMETERS)
        return named != name and named in given and given[named] != self.values.get(named)


def _over(below: object, above: object) -> object:
    if isinstance(below, Mapping) and isinstance(above, Mapping):
        return {**below, **above}
    return above


def read_preset(name: str) -> Preset:
    """Read a preset: a built-in one by name, another by its path.

    Parameters
    ----------
    name
        ``qwen3-4b-math``, or ``./mine.toml``; empty for none.

    Returns
    -------
    Preset
        Its form is checked; names and values of settings are checked by whoever knows the trainer.

    Raises
    ------
    UnknownNameError
        There is no such preset.
    ParameterError
        The file is not TOML, ``about`` is no text, or it sets what every start says for itself: ``out``, ``resume``.

    Examples
    --------
    >>> read_preset("qwen3-4b-math").values["lr"]
    2e-06
    >>> read_preset("")
    Preset(where='', values={}, about='')
    """
    if not name:
        return Preset()
    if not name.endswith(SUFFIX):
        file = PRESETS.find(name)
    elif not (file := Path(name)).is_file():
        hint = f"entropy-lab copy presets/{PRESETS.names()[0]} {name}"
        raise UnknownNameError(name, "does not exist", "the path of a preset's file", hint)
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ParameterError(
            str(file), f"is not TOML ({error})", "settings of a trainer", "see docs/training.md"
        ) from error
    about = values.pop("about", "")
    if not isinstance(about, str):
        raise ParameterError(f"{file}: about", f"is {about!r}", "a text")
    for setting in _NOT_PRESET:
        if setting in values:
            raise ParameterError(f"{file}: {setting}", "is set", "nothing: it is said on the command line")
    return Preset(str(file), values, about)
