"""What verl loads by itself (entry point group ``verl.plugins``): importing this registers our estimators and trainers.

verl tells nobody when a plugin fails; so a failure is logged here, and ``entropy-lab doctor verl`` finds it.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from entropy_lab.integrations.verl_advantages import RegisteredEstimator
from entropy_lab.integrations.verl_names import TRAINERS, estimator_names
from entropy_lab.integrations.verl_releases import SUPPORTED

FAULTS: Final[list[str]] = []
"""What could not be registered, and why; empty when all was."""


@cache
def own_keys() -> frozenset[str]:
    """Give verl's own keys of its section ``algorithm``."""
    fields = import_module("verl.trainer.config").AlgoConfig.__dataclass_fields__
    return frozenset({*fields, "_target_"})


@cache
def registered_estimators() -> dict[str, str]:
    """Register every estimator of ours, once.

    Returns
    -------
    dict of str to str
        Name in verl -> name in our registry.
    """
    core = import_module("verl.trainer.ppo.core_algos")
    names = estimator_names(core.ADV_ESTIMATOR_REGISTRY)
    for theirs, ours in names.items():
        core.register_adv_est(theirs)(RegisteredEstimator(ours, own_keys))
    return names


@cache
def registered_trainers() -> dict[str, type[Any]]:
    """Register our additions to verl's trainers, once.

    Returns
    -------
    dict of str to type
        Value of ``trainer.v1.trainer_mode`` -> class.
    """
    from entropy_lab.integrations.verl_mixin import RecordingMixin

    trainers = import_module("verl.trainer.ppo.v1")
    about: dict[str, Any] = {"our_names": registered_estimators(), "own_keys": own_keys()}
    about |= {"__doc__": RecordingMixin.__doc__, "__module__": __name__}
    made = {}
    for name, mode in TRAINERS.items():
        base = trainers.get_trainer_cls(mode)
        kind = type(f"EntropyLab{base.__name__}", (RecordingMixin, base), {**about, "base_mode": mode})
        made[name] = trainers.register_trainer(name)(kind)
    return made


def register() -> None:
    """Register all; what cannot be goes to `FAULTS` and to the log, and leaves verl as it is."""
    for register_some in (SUPPORTED.require, registered_estimators, registered_trainers):
        try:
            register_some()
        except Exception as error:  # verl would say nothing
            FAULTS.append(f"{type(error).__name__}: {error}")
            logging.getLogger(__name__).warning("entropy-lab is not (wholly) in verl: %s", FAULTS[-1])
            return


if find_spec("verl") is not None:
    register()
