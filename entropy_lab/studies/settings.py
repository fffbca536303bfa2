"""From the settings of a planned run to the configuration of its trainer, checked before anything is run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from entropy_lab import recipes
from entropy_lab.errors import MissingExtraError, ParameterError, UnknownNameError
from entropy_lab.presets.preset import Preset, read_preset


def load_trainer(name: str) -> ModuleType:
    """Load a trainer.

    Parameters
    ----------
    name
        Name or path of a recipe.

    Returns
    -------
    module
        With ``Config``, ``main`` and ``prepare``.

    Raises
    ------
    MissingExtraError
        It needs torch or transformers, and they are not installed.
    UnknownNameError
        There is no such trainer.
    """
    try:
        return recipes.load("trainers", name)
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "transformers"):
            raise
        hint = "pip install 'entropy-lab[train]'"
        raise MissingExtraError(f"train {name}", f"{error.name} is not installed", "the extra `train`", hint) from error


def configured(config_class: type[Any], where: str, values: Mapping[str, Any], out: Path) -> Any:  # noqa: ANN401 - the class given
    """Fill a trainer's configuration.

    Parameters
    ----------
    config_class
        A dataclass with a field ``out``; fields may be dataclasses, then their values are tables.
    where
        What to name in an error, such as ``study.toml: methods.grpo``.
    values
        Field -> value, without ``out``. With ``preset``, they are laid over that of this name, see `Preset.under`.
    out
        Directory of the run.

    Returns
    -------
    object
        An instance.

    Raises
    ------
    UnknownNameError
        There is no such field, or no such preset.
    ParameterError
        A value has another type than its field.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Config:
    ...     out: Path
    ...     lr: float = 1e-4
    >>> configured(Config, "mine.toml", {"lr": 1}, Path("run")).lr
    1.0
    >>> configured(Config, "mine.toml", {"lr": "1"}, Path("run"))
    Traceback (most recent call last):
    entropy_lab.errors.ParameterError: mine.toml: lr: is '1'; input should be a valid number
    """
    if "preset" in values:
        own = {name: value for name, value in values.items() if name != "preset"}
        if not isinstance(values["preset"], str):
            raise ParameterError(f"{where}: preset", f"is {values['preset']!r}", "a text")
        values = preset_for(config_class, values["preset"]).under(own)
    return config_class(**checked(config_class, where, values), out=out)


def preset_for(config_class: type[Any], name: str) -> Preset:
    """Read a preset for a trainer, without the settings that the trainer has no use for.

    Parameters
    ----------
    config_class
        A dataclass. Its attribute ``LEFT_OUT``, where there is one, lists settings of trainers/grpo.py that a preset
        may have and this trainer does without.
    name
        Name or path, as `read_preset`.

    Returns
    -------
    Preset
        Its values fit the class.

    Raises
    ------
    UnknownNameError, ParameterError
        As `read_preset` and `configured`.

    Examples
    --------
    >>> from dataclasses import make_dataclass
    >>> preset = read_preset("qwen3-4b-math")
    >>> others = tuple(each for each in preset.values if each != "lr")
    >>> preset_for(make_dataclass("Config", [("lr", float)], namespace={"LEFT_OUT": others}), "qwen3-4b-math").values
    {'lr': 2e-06}
    """
    preset, left_out = read_preset(name), getattr(config_class, "LEFT_OUT", ())
    values = {setting: value for setting, value in preset.values.items() if setting not in left_out}
    checked(config_class, preset.where, values)
    return replace(preset, values=values)


def checked(kind: type[Any], where: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Check names and types of a dataclass's fields.

    Parameters
    ----------
    kind
        The dataclass.
    where
        What to name in an error.
    values
        Field -> value, as TOML has it: lists for tuples, texts for paths, tables for dataclasses.

    Returns
    -------
    dict of str to object
        Field -> value of its type.

    Raises
    ------
    UnknownNameError, ParameterError
        As `configured`.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Config:
    ...     log_to: tuple[str, ...] = ()
    >>> checked(Config, "mine.toml", {"log_to": ["wandb"]})
    {'log_to': ('wandb',)}
    """
    from pydantic import TypeAdapter, ValidationError

    known = get_type_hints(kind)
    typed: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "entropy-lab train TRAINER --help lists the settings"
            raise UnknownNameError(where, f"there is no setting {name!r}", "one of the trainer's", hint)
        try:
            if is_dataclass(known[name]) and isinstance(value, Mapping):
                typed[name] = known[name](**checked(known[name], f"{where}.{name}", value))
            else:
                typed[name] = TypeAdapter(known[name]).validate_json(json.dumps(value, default=str), strict=True)
        except ValidationError as error:
            wrong = str(error.errors()[0]["msg"])
            raise ParameterError(f"{where}: {name}", f"is {value!r}", wrong[:1].lower() + wrong[1:]) from error
    return typed
