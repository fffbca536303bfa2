"""What our record and our estimators add to verl's trainers (V1), by overriding their steps."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import torch
from torch import Tensor

from entropy_lab.advantages import Modulation
from entropy_lab.errors import ParameterError
from entropy_lab.integrations.entropy_need import needs_entropies
from entropy_lab.integrations.verl_advantages import Update, telling
from entropy_lab.integrations.verl_names import SECTION, advantage_of
from entropy_lab.integrations.verl_numbers import as_metrics
from entropy_lab.integrations.verl_rollouts import FIELDS, LOGP_AFTER, Columns, Outputs
from entropy_lab.integrations.verl_settings import RecordSettings
from entropy_lab.recording.recorder import Recorder
from entropy_lab.run import RunWarning

_CHECKPOINT: Final = "entropy_lab.json"


class RecordingMixin:
    """What ``trainer.v1.trainer_mode=entropy_lab`` adds to verl's PPOTrainer.

    Each step is recorded once its update is made, whatever ``trainer.rollout_data_dir`` says: our step s is verl's
    step s + 1. Rollouts are the last outputs of agent loops' sessions, without verl's padding. Log-probabilities and
    entropies are those of verl's own forward pass before the update. Before the first rollout errors raise; from then
    on what goes wrong with the record costs the record, not the training.

    Parameters
    ----------
    config
        verl's configuration; the section ``trainer.v1.entropy_lab`` holds `RecordSettings`.

    Raises
    ------
    ParameterError, UnknownNameError
        A setting of the record or a parameter of the estimator is unknown or out of range.
    """

    base_mode: ClassVar[str]
    """verl's own trainer mode below this one."""
    our_names: ClassVar[Mapping[str, str]]
    """Registered name of an estimator -> name in our registry."""
    own_keys: ClassVar[frozenset[str]]
    """verl's own keys of the section ``algorithm``."""

    # verl's own, by the names that the methods below use.
    config: Any
    tokenizer: Any
    actor_rollout_wg: Any
    global_steps: int
    total_training_steps: int
    parameter_sync_step: int

    def __init__(self, config: Any) -> None:
        self._settings = RecordSettings.of(config.trainer.v1.get(SECTION))
        name = str(config.algorithm.adv_estimator)
        ours = self.our_names.get(name)
        self._modulation: Modulation | None = advantage_of(ours, config.algorithm, self.own_keys) if ours else None
        self._reads_entropies = needs_entropies(self._modulation)
        _require_fitting(config, self._modulation)
        # verl asks in many places whether the mode is "sync"; the name of ours would count as asynchronous.
        config.trainer.v1.trainer_mode = self.base_mode
        super().__init__(config)  # type: ignore[call-arg]
        self._recorder: Recorder | None = None
        self._columns: Columns | None = None
        self._updates = 0

    # --- the course of a training --------------------------------------------------------------------------------

    def on_init_end(self) -> None:
        """Begin the record, or go on with it, before the first rollout."""
        if not self.config.trainer.get("val_only", False):
            self._open_record()
        super().on_init_end()  # type: ignore[misc]

    def _shutdown_dump_executor(self) -> None:
        super()._shutdown_dump_executor()  # type: ignore[misc]
        if self._recorder is not None:
            self._recorder.close()

    def _save_checkpoint(self) -> None:
        super()._save_checkpoint()  # type: ignore[misc]
        if self._modulation is not None:
            saved = {"updates": self._updates, "advantage": self._modulation.state()}
            folder = Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"
            (folder / _CHECKPOINT).write_text(json.dumps(saved), encoding="utf-8")

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()  # type: ignore[misc]
        self._updates = self.global_steps * self.parameter_sync_step
        if self._modulation is not None and self.global_steps:
            file = self._checkpoint_folder() / _CHECKPOINT
            if file.exists():
                saved = json.loads(file.read_text(encoding="utf-8"))
                self._updates = saved["updates"]
                self._modulation.restore(saved["advantage"])

    def _checkpoint_folder(self) -> Path:
        """Find the checkpoint that verl has just loaded."""
        trainer = self.config.trainer
        if trainer.resume_mode == "resume_path":
            return Path(trainer.resume_from_path)
        return Path(trainer.default_local_dir) / f"global_step_{self.global_steps}"

    # --- advantages ----------------------------------------------------------------------------------------------

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        if self._modulation is None:
            return super()._compute_advantage(batch, metrics)  # type: ignore[misc]
        outputs = Outputs.of(batch.keys, batch.tags)
        entropy_BT, mean = self._entropies(batch, outputs) if self._reads_entropies else (None, math.nan)
        steps = self.total_training_steps * self.parameter_sync_step
        estimator = self._modulation.at(self._updates, steps, mean)
        self._updates += 1
        metrics.update({f"{SECTION}/{name}": value for name, value in self._modulation.values().items()})
        with telling(Update(estimator, outputs.final_B, outputs.padding_B, entropy_BT)):
            return super()._compute_advantage(batch, metrics)  # type: ignore[misc]

    def _entropies(self, batch: Any, outputs: Outputs) -> tuple[Tensor, float]:
        """Give the entropies as verl pads its arrays, and their mean over the tokens that the policy wrote."""
        data = _fetch(batch.keys, batch.partition_id, ("entropy", "response_mask"))
        entropy_BT = data["entropy"].to_padded_tensor(0.0).double().clamp(min=0.0)
        mask_BT = data["response_mask"].to_padded_tensor(0) != 0
        mask_BT &= torch.from_numpy(~outputs.padding_B)[:, None]
        return entropy_BT, float(entropy_BT[mask_BT].mean()) if mask_BT.any() else 0.0

    # --- the record ----------------------------------------------------------------------------------------------

    def _update_actor(self, batch: Any, metrics: dict[str, Any]) -> Any:
        batch = super()._update_actor(batch, metrics)  # type: ignore[misc]
        every = self._settings.logp_after_every
        # Here the rollout engine still sleeps: after verl's step it would take the memory.
        if self._recorder is not None and every and (self.global_steps - 1) % every == 0:
            try:
                self._take_logp_after(batch)
            except Exception as error:  # whatever it is, the training goes on
                what = f"step {self.global_steps - 1} has no logp_after ({type(error).__name__}: {error})"
                warnings.warn(f"{self._recorder.path}: {what}", RunWarning, stacklevel=2)
        return batch

    def _take_logp_after(self, batch: Any) -> None:
        """Make a forward pass of the updated policy, as verl made it before the update."""
        import transfer_queue as tq
        from tensordict import TensorDict
        from verl.workers.utils.padding import response_from_nested

        asked = {"calculate_entropy": False, "compute_loss": False}
        batch.extra_info.update({**asked, "temperature": self.config.actor_rollout_ref.rollout.temperature})
        self.actor_rollout_wg.compute_log_prob(batch)
        data = _fetch(batch.keys, batch.partition_id, ("log_probs", "response_mask"))
        after = response_from_nested(data["log_probs"], data["response_mask"])
        fields = TensorDict({LOGP_AFTER: after}, batch_size=len(batch.keys))
        tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)

    def _compute_metrics(self, batch: Any, metrics: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        super()._compute_metrics(batch, metrics, *args, **kwargs)  # type: ignore[misc]
        if self._recorder is None or self._columns is None:
            return
        began, step = time.perf_counter(), self.global_steps - 1
        try:
            keys = Outputs.of(batch.keys, batch.tags).rollouts
            columns = self._columns.of(_fetch(keys, batch.partition_id, FIELDS))
            epoch = metrics["training/epoch"]
            self._recorder.step(step, metrics=as_metrics(metrics), epoch=epoch, **columns)
        except Exception as error:  # whatever it is, the training goes on
            self._recorder.lose(step, error)
        metrics[f"timing_s/{SECTION}"] = time.perf_counter() - began

    def _open_record(self) -> None:
        """Begin the run, or go on with it from the checkpoint's step."""
        from omegaconf import OmegaConf

        config, settings = self.config, self._settings
        path = Path(settings.record_to or Path(config.trainer.default_local_dir) / "entropy-lab")
        about = {"group_size": config.actor_rollout_ref.rollout.n, "seed": config.data.get("seed")}
        about |= {"model": str(config.actor_rollout_ref.model.path), "tokens": settings.tokens, "texts": settings.texts}
        about |= {"name": settings.name, "task": settings.task, "setting": settings.setting}
        about |= {"config": OmegaConf.to_container(config, resolve=True), "rank": 0, "world_size": 1}
        about |= {"resume": True, "last_step": self.global_steps - 1} if self.global_steps else {}
        self._recorder = Recorder(path, method=self._method(), **about)
        self._columns = Columns(settings, self.tokenizer, int(config.data.max_response_length))

    def _method(self) -> dict[str, Any]:
        if self._modulation is None:
            algorithm = self.config.algorithm
            params = {"norm_adv_by_std_in_grpo": bool(algorithm.get("norm_adv_by_std_in_grpo", True))}
            return {"name": f"verl_{algorithm.adv_estimator}", "params": params, "label": str(algorithm.adv_estimator)}
        its = self._modulation
        return {"name": its.name, "params": dict(its.params), "label": its.label, "formula": its.formula}


def _fetch(keys: Sequence[str], partition_id: str, fields: Sequence[str]) -> Any:
    import transfer_queue as tq

    return tq.kv_batch_get(keys=list(keys), partition_id=partition_id, select_fields=list(fields))


def _require_fitting(config: Any, modulation: Modulation | None) -> None:
    if modulation is None:
        return
    modulation.initial(np.zeros((1, int(config.actor_rollout_ref.rollout.n))))  # a k above the group size shows now
    correction = config.algorithm.get("rollout_correction")
    if needs_entropies(modulation) and correction and correction.get("bypass_mode", False):
        wrong = f"is true beside {modulation.name}, which reads entropies"
        raise ParameterError("algorithm.rollout_correction.bypass_mode", wrong, "false: verl then takes them")
