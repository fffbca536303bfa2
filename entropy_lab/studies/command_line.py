"""A trainer's configuration from the words of its command line, begun from a preset."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, make_dataclass
from typing import Annotated, Any, Final

import tyro
from tyro.conf import arg

from entropy_lab.presets.preset import PRESETS, Preset
from entropy_lab.studies.settings import checked, preset_for

_OPTION: Final = "--preset"


def from_command_line(
    config_class: type[Any], words: Sequence[str] | None = None, *, prog: str | None = None, about: str | None = None
) -> Any:  # noqa: ANN401 - an instance of the class
    r"""Fill a trainer's configuration from words, with ``--preset`` beside its own options.

    What the words say goes before what the preset says, and that before the defaults, see `Preset.under`.

    Parameters
    ----------
    config_class
        A dataclass.
    words
        After the program's name; default those of the process.
    prog, about
        Name of the program and a sentence on it, for ``--help``.

    Returns
    -------
    object
        An instance of `config_class`.

    Raises
    ------
    UnknownNameError
        There is no such preset, or it has a key that is no setting of the trainer.
    ParameterError
        A value of the preset has another type than its setting.
    SystemExit
        The words are no options of the trainer, or ask for ``--help``.

    Examples
    --------
    >>> import tempfile
    >>> from dataclasses import dataclass
    >>> from pathlib import Path
    >>> @dataclass
    ... class Config:
    ...     out: str
    ...     lr: float = 1e-4
    ...     steps: int = 80
    >>> file = Path(tempfile.mkdtemp()) / "mine.toml"
    >>> _ = file.write_text("lr = 2e-6\nsteps = 500")
    >>> from_command_line(Config, ["--preset", str(file), "--out", "run", "--steps", "10"])
    Config(out='run', lr=2e-06, steps=10)
    """
    words = sys.argv[1:] if words is None else list(words)
    preset = preset_for(config_class, _named(words))
    begun = _begun(config_class, preset)
    # A dict that is not empty would become one option for each of its entries, and no other entry could be given.
    shown = {name: {} if isinstance(value, Mapping) else value for name, value in begun.items()}
    with_option = _with_preset_option(config_class)
    parsed = tyro.cli(with_option, args=words, default=with_option(**shown), prog=prog, description=about)
    said = {name: getattr(parsed, name) for name in begun}
    changed = {name: value for name, value in said.items() if value != shown[name]}
    return config_class(**Preset(preset.where, begun).under(changed))


def _named(words: Sequence[str]) -> str:
    """Value of the last ``--preset``; empty without one, or where it has no value, which tyro will say."""
    name = ""
    for word, following in zip(words, [*words, ""][1:], strict=True):
        option, equals, value = word.partition("=")
        if option == _OPTION:
            name = value if equals else following
    return name


def _begun(config_class: type[Any], preset: Preset) -> dict[str, Any]:
    """Give the settings of the preset and the defaults of the others; tyro asks for what has none."""
    of_preset = checked(config_class, preset.where, preset.values)
    made = {each.name: _default(each) for each in fields(config_class) if each.init}
    return made | of_preset


def _default(of: Field[Any]) -> Any:  # noqa: ANN401 - of the field's type
    if of.default_factory is not MISSING:
        return of.default_factory()
    return tyro.MISSING if of.default is MISSING else of.default


def _with_preset_option(config_class: type[Any]) -> type[Any]:
    """Give the class an option ``--preset``, first in its help."""
    frozen = config_class.__dataclass_params__.frozen
    known = ", ".join(PRESETS.names())
    about = f"Settings to begin from: {known}, or a file (./mine.toml). Other options change single ones."
    option = (_OPTION.strip("-"), Annotated[str, arg(help=about, metavar="PRESET")], "")
    base = make_dataclass("_Preset", [option], kw_only=True, frozen=frozen)
    return make_dataclass(config_class.__name__, [], bases=(config_class, base), kw_only=True, frozen=frozen)
