"""What a study consists of: settings x methods x seeds, from a ``study.toml``.

::

    name = "mine"
    trainer = "grpo"
    seeds = 5

    [defaults]                       # settings of the trainer, for every run
    steps = 150

    [settings.countdown]             # a row of panels in figures
    label = "Countdown"
    task = "countdown"

    [methods.asym-grpo]              # a curve in figures
    advantage = "asym_grpo"
    advantage_params = { beta_pos = 0.9, beta_neg = 0.4 }

What a method says goes before what a setting says, and that before the defaults. Seed k of every method starts from the
same warm-started weights and meets the same prompts in the same order (common random numbers), so that methods are
compared pair by pair; another seed has another base policy, other prompts and another order.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from entropy_lab.built_in import SUFFIX, BuiltIn
from entropy_lab.errors import ParameterError, UnknownNameError

STUDIES: Final = BuiltIn("study", Path(__file__).parent)
"""Those that ship with the package."""
_SEEDS_OF: Final = ("seed", "data_seed", "warm_start_seed")
"""Settings of the trainer that the study's seed fills."""
_TOP: Final = {
    "name": str,
    "about": str,
    "trainer": str,
    "seeds": int,
    "defaults": dict,
    "settings": dict,
    "methods": dict,
}


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study.

    Parameters
    ----------
    name
        Its directory: ``<setting>-<method>-seed<k>``.
    setting, method
        Keys of the plan.
    seed
        From 0.
    values
        Settings of the trainer; the others keep the trainer's defaults.
    """

    name: str
    setting: str
    method: str
    seed: int
    values: Mapping[str, Any]

    @property
    def where(self) -> str:
        """Where the plan says what the run is, for errors."""
        return f"methods.{self.method} in settings.{self.setting}"


@dataclass(frozen=True)
class Plan:
    """A study as planned. Make one with ``read_plan``.

    Parameters
    ----------
    name, about
        Name of the study, and a sentence on it.
    trainer
        Name or path of the trainer.
    seeds
        Most seeds of a method.
    defaults
        Settings of the trainer for every run.
    settings, methods
        What each setting and each method changes, by name; with ``label`` (in figures) and, of a method, ``seeds``
        (fewer than the study's) and ``steps``.
    """

    name: str
    trainer: str
    seeds: int
    defaults: Mapping[str, Any]
    settings: Mapping[str, Mapping[str, Any]]
    methods: Mapping[str, Mapping[str, Any]]
    about: str = ""

    def runs(self, seeds: int | None = None) -> tuple[PlannedRun, ...]:
        """List the runs, seed by seed, so that a study that is stopped has all methods of the seeds it got to.

        Parameters
        ----------
        seeds
            Most seeds of a method, instead of the plan's own.

        Returns
        -------
        tuple of PlannedRun
            Methods with fewer ``seeds`` of their own keep to them.

        Raises
        ------
        ParameterError
            ``seeds`` is below 1.

        Examples
        --------
        >>> plan = Plan("mine", "grpo", 2, {}, {"a": {"task": "countdown"}}, {"m": {"lr": 1e-4}, "n": {"seeds": 1}})
        >>> [run.name for run in plan.runs()]
        ['a-m-seed0', 'a-n-seed0', 'a-m-seed1']
        """
        wanted = self.seeds if seeds is None else seeds
        if wanted < 1:
            raise ParameterError("seeds", f"is {wanted}", "1 or more")
        return tuple(run for seed in range(wanted) for run in self._runs_of(seed, wanted))

    def _runs_of(self, seed: int, wanted: int) -> Iterator[PlannedRun]:
        for setting, common in self.settings.items():
            for method, own in self.methods.items():
                if seed >= min(wanted, own.get("seeds", wanted)):
                    continue
                values = {**self.defaults, **common, **own, **dict.fromkeys(_SEEDS_OF, seed)}
                values |= {"setting": common.get("label", setting), "label": own.get("label", method)}
                values.pop("seeds", None)
                yield PlannedRun(f"{setting}-{method}-seed{seed}", setting, method, seed, values)


def find_plan(name: str) -> Path:
    """Find a study's file: a built-in one by name, another by its path.

    Parameters
    ----------
    name
        ``tiny``, or ``./mine.toml``.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    UnknownNameError
        There is no such study.

    Examples
    --------
    >>> find_plan("tiny").name
    'tiny.toml'
    """
    if not name.endswith(SUFFIX):
        return STUDIES.find(name)
    if not Path(name).is_file():
        raise UnknownNameError(name, "does not exist", "the path of a study's file", "entropy-lab copy studies/tiny .")
    return Path(name)


def read_plan(name: str) -> Plan:
    """Read a study's file.

    Parameters
    ----------
    name
        As for `find_plan`.

    Returns
    -------
    Plan
        Its form is checked; the settings of the trainer are checked by whoever loads the trainer.

    Raises
    ------
    UnknownNameError
        There is no such study, or the file has a key that no study has.
    ParameterError
        The file is not TOML, or an entry has the wrong type.

    Examples
    --------
    >>> plan = read_plan("tiny")
    >>> len(plan.settings), "asym-grpo" in plan.methods
    (2, True)
    """
    file = find_plan(name)
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ParameterError(str(file), f"is not TOML ({error})", "see docs/studies.md") from error
    for key, value in content.items():
        if key not in _TOP:
            close = get_close_matches(key, _TOP, n=1)
            hint = f"did you mean {close[0]}?" if close else "see docs/studies.md"
            raise UnknownNameError(str(file), f"has {key!r}", f"a study has {', '.join(_TOP)}", hint)
        _require(file, key, value, _TOP[key])
    for table in ("settings", "methods"):
        if not content.get(table):
            raise ParameterError(
                f"{file}: {table}", "is missing", f"at least one [{table}.NAME]", "see docs/studies.md"
            )
        for key, entry in content[table].items():
            _check_entry(file, f"{table}.{key}", key, entry)
    return Plan(
        name=content.get("name", file.stem),
        trainer=content.get("trainer", "grpo"),
        seeds=content.get("seeds", 1),
        defaults=content.get("defaults", {}),
        settings=content["settings"],
        methods=content["methods"],
        about=content.get("about", ""),
    )


def _check_entry(file: Path, where: str, key: str, entry: Mapping[str, Any]) -> None:
    _require(file, where, entry, dict)
    if not key.replace("-", "").replace("_", "").isalnum():
        raise ParameterError(f"{file}: {where}", f"is named {key!r}", "letters, digits, '-' and '_'")
    _require(file, f"{where}.label", entry.get("label", ""), str)
    seeds = entry.get("seeds", 1)
    _require(file, f"{where}.seeds", seeds, int)
    if seeds < 1:
        raise ParameterError(f"{file}: {where}.seeds", f"is {seeds}", "1 or more")
    for name in _SEEDS_OF:
        if name in entry:
            raise ParameterError(f"{file}: {where}.{name}", "is set", "nothing: the study numbers the seeds itself")


def _require(file: Path, where: str, value: object, kind: type) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ParameterError(f"{file}: {where}", f"is {value!r}", f"a {_SPOKEN[kind]}")


_SPOKEN: Final[Mapping[type, str]] = {str: "text", int: "whole number", dict: "table"}
