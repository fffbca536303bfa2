"""A trainer's configuration as it stands in run.json, and how it differs from that of another start."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from typing import Any, Final

NOT_SAVED: Final = frozenset({"checkpoint_every", "log_to", "out", "resume"})
"""Fields that say nothing about what a run is: with other values of them it is the same run."""


def saved(config: Any) -> dict[str, Any]:  # noqa: ANN401 - a trainer's own dataclass
    """Give a configuration as it stands in run.json: without the place it was written to.

    Parameters
    ----------
    config
        A dataclass instance.

    Returns
    -------
    dict
        Field -> value, nested dataclasses as dicts, without `NOT_SAVED`.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Config:
    ...     out: str
    ...     lr: float = 1e-4
    >>> saved(Config("run"))
    {'lr': 0.0001}
    """
    return {name: value for name, value in asdict(config).items() if name not in NOT_SAVED}


def difference(made: Mapping[str, Any], config: Any) -> tuple[str, Any, Any] | None:  # noqa: ANN401 - as in `saved`
    """Find a setting that a run was made with and that a configuration changes.

    A field that the run's configuration lacks has its default there: the run was made before the trainer had it.

    Parameters
    ----------
    made
        ``config`` of the run's run.json.
    config
        A dataclass instance.

    Returns
    -------
    tuple or None
        Name, value in the run and value now, of the first in alphabetical order; None when the two are equal.
        Values are those that JSON gives back, None for a name that only one of the two knows.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Config:
    ...     out: str
    ...     lr: float = 1e-4
    ...     steps: int = 80
    >>> difference({"lr": 1e-4}, Config("elsewhere"))
    >>> difference({"lr": 1e-4}, Config("elsewhere", steps=90))
    ('steps', 80, 90)
    """
    was, now = _plain(_with_defaults(made, config)), _plain(saved(config))
    for name in sorted((was.keys() | now.keys()) - NOT_SAVED):
        if was.get(name) != now.get(name):
            return name, was.get(name), now.get(name)
    return None


def _with_defaults(made: Mapping[str, Any], config: Any) -> dict[str, Any]:  # noqa: ANN401 - as in `saved`
    whole = dict(made)
    for each in fields(config):
        value = getattr(config, each.name)
        if each.name in whole:
            if is_dataclass(value) and isinstance(whole[each.name], Mapping):
                whole[each.name] = _with_defaults(whole[each.name], value)
        elif each.default is not MISSING:
            whole[each.name] = each.default
        elif each.default_factory is not MISSING:
            whole[each.name] = each.default_factory()
    return whole


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Give values as they come back from run.json."""
    plain: dict[str, Any] = json.loads(json.dumps(values, default=_jsonable))
    return plain


def _jsonable(value: object) -> object:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def find_setting(config: Any, names: Sequence[str]) -> Any:  # noqa: ANN401 - JSON
    """Find a setting by its last name, wherever it stands in a configuration.

    Parameters
    ----------
    config
        Mappings in mappings, as run.json holds them; keys may be dotted paths.
    names
        Last names, the most wanted first.

    Returns
    -------
    object
        The first value that is neither null nor a reference (``"${…}"``), depth first; None when there is none.

    Examples
    --------
    >>> find_setting({"actor": {"loss_agg_mode": "token-sum"}, "n": 8}, ["mode", "loss_agg_mode"])
    'token-sum'
    >>> find_setting({"model.vocab_size": 43, "limit": "${data.limit}"}, ["limit", "vocab_size"])
    43
    """
    flat = list(_flat(config))
    return next((value for name in names for key, value in flat if key == name), None)


def _flat(config: object) -> Iterator[tuple[str, Any]]:
    for key, value in config.items() if isinstance(config, Mapping) else ():
        if isinstance(value, Mapping):
            yield from _flat(value)
        elif value is not None and not (isinstance(value, str) and value.startswith("${")):
            yield str(key).rpartition(".")[2], value
