"""What our record and our estimators add to TRL's GRPOTrainer, by overriding its private methods."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from transformers import TrainerCallback

from entropy_lab.advantages import Modulation
from entropy_lab.advantages import modulation as named_modulation
from entropy_lab.errors import ParameterError
from entropy_lab.integrations.entropy_need import needs_entropies
from entropy_lab.integrations.trl_advantages import for_loss, log_instead, of_all
from entropy_lab.integrations.trl_numbers import StepNumbers
from entropy_lab.integrations.trl_releases import require_tested
from entropy_lab.integrations.trl_rollouts import ROW, Heard, Scores, Waiting, sums_or_none, token_mask
from entropy_lab.recording.recorder import Recorder
from entropy_lab.run import open_run

_VISION: Final = (
    "pixel_values",
    "image_grid_thw",
    "num_images",
    "pixel_attention_mask",
    "spatial_shapes",
    "num_tiles",
    "image_sizes",
    "token_type_ids",
    "mm_token_type_ids",
    "image_position_ids",
)
_CHECKPOINT: Final = "entropy_lab.json"


class RecorderMixin:
    """What `EntropyLabGRPOTrainer` adds to TRL's GRPOTrainer; all other arguments are TRL's own.

    A step of the record is what one batch of rollouts does to the policy: it closes at the first optimizer step that
    leaves no rollout unused. So each rollout is recorded once, in whole groups, however TRL shuffles, splits,
    accumulates or repeats them (``steps_per_generation``, ``gradient_accumulation_steps``, ``num_iterations``).
    Log-probabilities and entropies are those of the policy that sampled. Evaluations are not recorded.

    Parameters
    ----------
    *args
        As of GRPOTrainer.
    advantage
        Name of an estimator or of one that changes during training; None leaves TRL's advantages.
    advantage_params
        Its parameters.
    record_to
        Directory of the run; default ``entropy-lab`` in ``output_dir``.
    correct
        Name of the reward function whose values 0 and 1 are the verdicts; default: the reward, while it is 0 or 1.
    prompt_id
        Column of the data set that names prompts, the same in every step and run; default: a hash of the prompt.
    logp_after_every
        Take the log-probabilities under the updated policy after every k-th step (one forward pass over its rollouts);
        0 for never.
    recorder
        Further arguments of `Recorder`: ``tokens``, ``texts``, ``name``, ``task``, ``setting``, ``timeout``, …
    **kwargs
        As of GRPOTrainer.

    Raises
    ------
    MissingExtraError
        See `require_tested`.
    ParameterError, UnknownNameError
        There is no such estimator or reward function, or the trainer's settings do not go with it.
    """

    # TRL's own, by the names that the methods below use.
    model: Any
    args: Any
    accelerator: Any
    state: Any
    optimizer: Any
    processing_class: Any
    num_generations: int
    num_iterations: int
    reward_func_names: list[str]
    reward_weights: Tensor
    _step: int
    _metrics: Any
    _logs: Any

    def __init__(
        self,
        *args: Any,
        advantage: str | None = None,
        advantage_params: Mapping[str, Any] | None = None,
        record_to: str | Path | None = None,
        correct: str | None = None,
        prompt_id: str | None = None,
        logp_after_every: int = 0,
        recorder: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        require_tested()
        if advantage is None and advantage_params:
            raise ParameterError("advantage_params", f"is {dict(advantage_params)}", "an advantage beside it")
        if logp_after_every < 0:
            raise ParameterError("logp_after_every", f"is {logp_after_every}", "0 or more")
        self._modulation = named_modulation(advantage, **(advantage_params or {})) if advantage else None
        self._record_to, self._recorder_settings = record_to, dict(recorder or {})
        self._correct, self._prompt_id, self._logp_after_every = correct, prompt_id, logp_after_every
        self._recorder: Recorder | None = None
        self._waiting, self._numbers = Waiting(), StepNumbers()
        self._heard: Heard | None = None
        self._loss_scores: Scores | None = None
        self._generations = self._updates_before = 0
        self._rate = math.nan
        super().__init__(*args, **kwargs)
        self._require_fitting()
        self.add_callback(_Hooks(self))  # type: ignore[attr-defined]

    def _require_fitting(self) -> None:
        names = self.reward_func_names
        if self._correct is not None and self._correct not in names:
            raise ParameterError("correct", f"is {self._correct!r}", f"a reward function: {', '.join(names)}")
        if hasattr(self, "compute_liger_loss") and self.args.use_liger_kernel:
            wrong = "is on: TRL's fused loss tells no entropies"
            raise ParameterError("use_liger_kernel", wrong, "False with this release of TRL")
        if self._modulation is None:
            return
        if getattr(self.args, "multi_objective_aggregation", "sum_then_normalize") != "sum_then_normalize":
            wrong = f"is {self.args.multi_objective_aggregation!r} beside advantage={self._modulation.name!r}"
            raise ParameterError("multi_objective_aggregation", wrong, "'sum_then_normalize': one reward a rollout")
        self._modulation.initial(np.zeros((1, self.num_generations)))  # a k above the group size shows now

    # --- what TRL computes, on its way ---------------------------------------------------------------------------

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Any:
        rewards_NF = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)  # type: ignore[misc]
        if self._heard is not None:
            self._heard.inputs = list(inputs)
            self._heard.prompts, self._heard.completions = list(prompts), list(completions)
            self._heard.completion_ids, self._heard.rewards_NF = list(completion_ids_list), rewards_NF
        return rewards_NF

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        if self._heard is not None and model is self.model:
            kwargs["compute_entropy"] = True
        found = super()._get_per_token_logps_and_entropies(model, *args, **kwargs)  # type: ignore[misc]
        if found[1] is not None:
            self._loss_scores = (found[0], found[1])
            if self._heard is not None:
                self._heard.scores.append(self._loss_scores)
        return found

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        if not self.model.training:
            return super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        self._heard = heard = Heard()
        try:
            output = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        finally:
            self._heard = None
        scores = heard.scores_of(output.get("old_per_token_logps"))
        if scores is None and needs_entropies(self._modulation):
            scores = self._scored(output, entropies=True)[:2]
        reward_N, scorable_N = self._rewards(heard)
        if self._modulation is not None:
            self._put_advantages(output, self._modulation, reward_N, scorable_N, scores)
        about = self._about(heard, output, reward_N)
        output[ROW] = self._waiting.add(dict(output), about, scorable_N[self._own(len(heard.prompts))], scores)
        self._generations += 1
        return output

    def _compute_loss(self, model: Any, inputs: Any) -> Any:
        self._loss_scores = None
        loss = super()._compute_loss(model, inputs)  # type: ignore[misc]
        if self.model.training and ROW in inputs and self._loss_scores is not None:
            self._waiting.measure(inputs[ROW], self._loss_scores, self.state.global_step + 1)
        self._loss_scores = None
        return loss

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Make TRL's forward and backward pass, and keep what it measures."""
        before = self._numbers.lengths(self._metrics["train"])
        loss = super().training_step(*args, **kwargs)  # type: ignore[misc]
        self._numbers.take(self._metrics["train"], before, float(loss))
        self._rate = self.optimizer.param_groups[0]["lr"]
        return loss

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        norm = super()._get_grad_norm(*args, **kwargs)  # type: ignore[misc]
        if norm is not None:
            self._numbers.note("grad_norm", float(norm))
        return norm

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
        file = Path(checkpoint or "") / _CHECKPOINT
        if checkpoint is not None and file.exists():
            saved = json.loads(file.read_text(encoding="utf-8"))
            self._generations = saved["generations"]
            if self._modulation is not None:
                self._modulation.restore(saved["advantage"])

    # --- advantages ----------------------------------------------------------------------------------------------

    def _rewards(self, heard: Heard) -> tuple[Tensor, Tensor]:
        """Give the rewards of all processes' rollouts, and which of them any reward function could tell."""
        weighted_NF = heard.rewards_NF * self.reward_weights.to(heard.rewards_NF.device)
        return weighted_NF.nansum(1), ~heard.rewards_NF.isnan().all(1)

    def _put_advantages(
        self,
        output: dict[str, Any],
        modulation: Modulation,
        reward_N: Tensor,
        scorable_N: Tensor,
        scores: Scores | None,
    ) -> None:
        """Put our advantages in the place of TRL's, in what the loss gets and in what is logged."""
        estimator = modulation.at(self._generations, self._all_generations, self._mean_entropy(output, scores))
        advantage_N = of_all(estimator, reward_N, scorable_N, self.num_generations)
        log_instead(self._logs["advantages"], advantage_N)
        own_B = advantage_N[self._own(len(output["completion_ids"]))]
        found = for_loss(estimator, own_B, scores[1] if scores else None, token_mask(output))
        output["advantages"] = found.to(output["advantages"])

    def _mean_entropy(self, output: Mapping[str, Tensor], scores: Scores | None) -> float:
        """Give the mean over response tokens of all processes; NaN where no estimator reads it."""
        if scores is None or not needs_entropies(self._modulation):
            return math.nan
        mask_BT = token_mask(output)
        sums = torch.stack([(scores[1] * mask_BT).sum().double(), mask_BT.sum().double()])
        total, count = self.accelerator.gather(sums).view(-1, 2).sum(0).tolist()
        return float(total / max(count, 1.0))

    def _scored(self, inputs: Mapping[str, Any], *, entropies: bool) -> Any:
        """Make a forward pass of the policy as it is now over this process's rollouts: log-probabilities come first."""
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
        attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
        further = {name: inputs[name] for name in _VISION if inputs.get(name) is not None}
        width, at_once = inputs["completion_ids"].size(1), self.args.per_device_train_batch_size
        with torch.no_grad():
            return self._get_per_token_logps_and_entropies(
                self.model, ids, attention, width, batch_size=at_once, compute_entropy=entropies, **further
            )

    # --- the record ----------------------------------------------------------------------------------------------

    @property
    def _passes(self) -> int:
        """Forward and backward passes of this process that use up a generation."""
        passes: int = self.args.steps_per_generation * self.num_iterations
        return passes

    @property
    def _all_generations(self) -> int:
        all_passes = int(self.state.max_steps) * int(self.args.gradient_accumulation_steps)
        return math.ceil(all_passes / self._passes)

    def _own(self, n: int) -> slice:
        """Give the place of this process's n rollouts among all."""
        first = self.accelerator.process_index * n
        return slice(first, first + n)

    def _about(self, heard: Heard, output: Mapping[str, Tensor], reward_N: Tensor) -> dict[str, Any]:
        """Lay out what is known of this process's rollouts without a forward pass."""
        own = self._own(len(heard.prompts))
        ends = {getattr(self.processing_class, "tokenizer", self.processing_class).pad_token_id}
        ends |= {*_ids(self, "eos_token_ids"), *_ids(self, "eos_token_id")}
        about: dict[str, Any] = {
            "rewards": reward_N[own].tolist(),
            "prompts": heard.prompts,
            "completions": heard.completions,
            "groups": [f"{self._generations}.{row // self.num_generations}" for row in range(own.start, own.stop)],
            "truncated": [bool(ids) and ids[-1] not in ends for ids in heard.completion_ids],
            "epoch": int((self.state.epoch or 0.0) + 1e-9),
            **heard.verdicts(self.reward_func_names, own, self._correct),
        }
        if self._prompt_id is not None:
            about["prompt_ids"] = [each[self._prompt_id] for each in heard.inputs]
        if "sampling_per_token_logps" in output:
            about["sampler_logps"] = sums_or_none(output["sampling_per_token_logps"].cpu(), token_mask(output).cpu())
        return about

    def _open_record(self) -> None:
        """Begin the run, or go on with it from the checkpoint's step."""
        path = Path(self._record_to or Path(self.args.output_dir) / "entropy-lab")
        done = self.state.global_step
        place = {"rank": self.accelerator.process_index, "world_size": self.accelerator.num_processes}
        model = getattr(getattr(self.accelerator.unwrap_model(self.model), "config", None), "_name_or_path", "")
        about: dict[str, Any] = {"group_size": self.num_generations, "seed": self.args.seed, "model": model or None}
        about |= {"config": self.args.to_sanitized_dict(), **place, **self._recorder_settings}
        about |= {"resume": True, "last_step": _last_before(path, done)} if done else {}
        self._recorder = Recorder(path, method=self._method(), **about)
        self._waiting, self._numbers, self._updates_before = Waiting(), StepNumbers(), done

    def _method(self) -> dict[str, Any]:
        if self._modulation is None:
            params = {"scale_rewards": str(self.args.scale_rewards), "loss_type": self.args.loss_type}
            return {"name": "trl_grpo", "params": params, "label": "TRL's GRPO"}
        its = self._modulation
        return {"name": its.name, "params": dict(its.params), "label": its.label, "formula": its.formula}

    def _after_optimizer_step(self) -> None:
        if self._step % self._passes == 0:
            self._close_step()

    def _close_step(self) -> None:
        """Record the rollouts that have been used up, and forget them."""
        if self._recorder is None or not self._waiting.drawn:
            return
        updates, tokens = self.state.global_step - self._updates_before, self._recorder_settings.get("tokens", True)
        measure = self._logp_after_every and self._recorder.next_step % self._logp_after_every == 0
        for drawn in self._waiting.drawn:
            # All processes take part in the forward pass, whether theirs are recorded or not.
            after_BT = self._scored(drawn.inputs, entropies=False)[0].float().clamp(max=0.0).cpu() if measure else None
            if drawn.kept_B.any():
                self._recorder.add(**drawn.columns(tokens=tokens))
                if after_BT is not None:
                    self._recorder.after(after_BT[drawn.kept_B], drawn.mask_BT.cpu()[drawn.kept_B])
        numbers = self._numbers.of_step(updates)
        if "entropy" in numbers:
            numbers["entropy_in_loss"] = numbers.pop("entropy")
        further = self._modulation.values() if self._modulation is not None else {}
        numbers |= {"trainer_step": self.state.global_step, "lr": self._rate, **further}
        self._recorder.step(metrics=numbers)
        self._waiting, self._updates_before = Waiting(), self.state.global_step

    def _close_record(self) -> None:
        self._close_step()
        if self._recorder is not None:
            self._recorder.close()

    def _save_state(self) -> None:
        """Keep with a checkpoint what advantages that change have come to."""
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        if self.state.is_world_process_zero and folder.is_dir():
            state = self._modulation.state() if self._modulation is not None else {}
            saved = {"generations": self._generations, "advantage": state}
            (folder / _CHECKPOINT).write_text(json.dumps(saved), encoding="utf-8")


class _Hooks(TrainerCallback):
    """The moments of a training at which the record is opened, goes on and is closed."""

    def __init__(self, trainer: RecorderMixin) -> None:
        self._trainer = trainer

    def on_train_begin(self, *_: object, **__: object) -> None:
        self._trainer._open_record()

    def on_step_end(self, *_: object, **__: object) -> None:
        self._trainer._after_optimizer_step()

    def on_save(self, *_: object, **__: object) -> None:
        self._trainer._save_state()

    def on_train_end(self, *_: object, **__: object) -> None:
        self._trainer._close_record()


def _last_before(path: Path, update: int) -> int:
    """Find the last recorded step that a checkpoint of an optimizer step has behind it; -1 for none."""
    if not (path / "run.json").exists():
        return -1
    metrics = open_run(path).metrics()
    if "trainer_step" not in metrics.columns:
        return -1
    steps = metrics.filter(metrics["trainer_step"] <= update)["step"].to_list()
    return int(max(steps, default=-1))


def _ids(trainer: object, name: str) -> list[int]:
    found = getattr(trainer, name, None)
    return [] if found is None else list(found) if isinstance(found, list | tuple | set) else [int(found)]
