"""What a framework calls its settings and metrics, from ``frameworks.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

OURS: Final = "entropy-lab"

_SPOKEN: Final = {
    "learning_rate": "the learning rate",
    "clip_low": "the lower clip range",
    "clip_high": "the upper clip range",
    "entropy_bonus": "the entropy bonus",
    "adaptive_bonus": "an entropy bonus that comes by itself below a target",
    "covariance_clip": "Clip-Cov or KL-Cov",
    "estimator": "the advantage estimator",
    "dynamic_sampling": "dynamic sampling",
    "aggregation": "the loss aggregation",
    "length_limit": "the length limit",
    "overlong": "the treatment of cut-off responses",
    "temperature": "the sampling temperature",
    "group_size": "the group size",
    "reuse": "the number of gradient steps on one batch",
}


@cache
def _table() -> Mapping[str, Mapping[str, Any]]:
    with Path(__file__).with_name("frameworks.toml").open("rb") as file:
        return tomllib.load(file)


def spoken(setting: str, framework: str) -> str:
    """Name a setting in words, and by the framework's parameter where that is known.

    Parameters
    ----------
    setting
        A key of our own, as ``"clip_high"``.
    framework
        ``"verl"``, ``"trl"``, …, ``"entropy-lab"``; an unknown one has no parameters.

    Returns
    -------
    str
        Words for the middle of a sentence.

    Examples
    --------
    >>> spoken("clip_high", "trl"), spoken("learning_rate", "slime")
    ('the upper clip range (epsilon_high)', 'the learning rate')
    """
    parameter = _table().get(framework, {}).get("settings", {}).get(setting)
    return f"{_SPOKEN[setting]} ({parameter})" if parameter else _SPOKEN[setting]


@cache
def metric_names(signal: str, framework: str | None = None) -> tuple[str, ...]:
    """Names under which a framework logs a quantity of ours, where its definition serves to follow changes.

    Parameters
    ----------
    signal
        A key of ``signals.SIGNALS``.
    framework
        One framework; by default all of them.

    Returns
    -------
    tuple of str
        Keys of ``metrics.jsonl``, each by itself enough.

    Examples
    --------
    >>> metric_names("zero_signal"), metric_names("zero_signal", "verl")
    (('frac_reward_zero_std',), ())
    """
    tables = _table().values() if framework is None else [_table().get(framework, {})]
    return tuple(dict.fromkeys(name for table in tables for name in table.get("metrics", {}).get(signal, [])))
