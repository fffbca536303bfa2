"""What `entropy-lab doctor verl` looks at: verl swallows what goes wrong when it loads a plugin."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Final

from entropy_lab.errors import ParameterError
from entropy_lab.integrations.checks import Check, in_turn
from entropy_lab.integrations.verl_names import TRAINERS, estimator_names
from entropy_lab.integrations.verl_releases import SUPPORTED

GROUP: Final = "verl.plugins"
NAME: Final = "entropy_lab"
POLICY: Final = "VERL_USE_EXTERNAL_PLUGINS"


def checks() -> Iterator[Check]:
    """Look at the release, at the way in which verl finds plugins, at what it has registered, and use it once."""
    return in_turn(
        [
            ("release", SUPPORTED.require, SUPPORTED.hint),
            ("entry point", _entry_point, "pip install entropy-lab once more in this environment"),
            ("plugin policy", _policy, f"unset {POLICY}"),
            ("estimators", _estimators, ""),
            ("trainers", _trainers, SUPPORTED.hint),
            ("an estimator called by verl", _advantages, ""),
        ]
    )


def _entry_point() -> str:
    found = [each.value for each in entry_points(group=GROUP) if each.name == NAME]
    if not found:
        raise ParameterError(GROUP, f"has no entry point {NAME}", "the installed package brings it")
    return f"{GROUP}: {NAME} = {found[0]}"


def _policy() -> str:
    """As verl reads it."""
    policy = os.environ.get(POLICY, "auto").strip().lower()
    if policy != "auto" and NAME not in {name.strip() for name in policy.split(",")}:
        raise ParameterError(POLICY, f"is {policy!r}", f"auto, or a list with {NAME}")
    return f"{POLICY}={policy}"


def _estimators() -> str:
    import_module("verl")
    registry = import_module("verl.trainer.ppo.core_algos").ADV_ESTIMATOR_REGISTRY
    ours = {name: each for name, each in registry.items() if type(each).__name__ == "RegisteredEstimator"}
    _require_all("estimators", estimator_names(registry.keys() - ours.keys()), ours)
    return f"{len(ours)}: {', '.join(ours)}"


def _trainers() -> str:
    known = import_module("verl.trainer.ppo.v1.trainer_base").TRAINER_REGISTRY
    _require_all("trainers", TRAINERS, known)
    return ", ".join(TRAINERS)


def _require_all(what: str, wanted: Any, registered: Any) -> None:  # noqa: ANN401 - names
    missing = [name for name in wanted if name not in registered]
    if missing:
        faults = import_module("entropy_lab.integrations.verl_plugin").FAULTS
        why = "; ".join(faults) or "verl did not load the plugin"
        raise ParameterError(what, f"{', '.join(missing)} are not registered ({why})", "all are")


def _advantages() -> str:
    """Let verl compute advantages of a group of four by the closed form of AsymGRPO."""
    import numpy as np
    import torch

    protocol, trainer = import_module("verl.protocol"), import_module("verl.trainer.ppo.ray_trainer")
    rewards = torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    tensors = {"token_level_rewards": rewards, "response_mask": torch.ones(4, 2)}
    data = protocol.DataProto.from_dict(tensors, non_tensors={"uid": np.array(["a"] * 4, dtype=object)})
    found = trainer.compute_advantage(data, adv_estimator="asym_grpo", config={"beta_pos": 0.9, "beta_neg": 0.4})
    advantage_BT = found.batch["advantages"]
    wanted = torch.tensor([3**0.9, -((1 / 3) ** 0.4), -((1 / 3) ** 0.4), -((1 / 3) ** 0.4)])[:, None]
    difference = float((advantage_BT - wanted).abs().max())
    if difference > 1e-6:
        raise ParameterError("asym_grpo", f"differs from the closed form by {difference:.2g}", "at most 1e-6")
    return "asym_grpo gives the closed form to 1e-6"
