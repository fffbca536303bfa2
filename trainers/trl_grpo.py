"""Train with TRL on one node or on many, with our estimators, tasks and record; settings as in the paper's presets.

``accelerate launch --num_processes 8 trainers/trl_grpo.py --preset qwen3-4b-math --out runs/qwen3-4b``; with
``--dry-run --processes 8`` it prints the composed configuration and starts nothing. Needs the extra ``trl``, and vLLM
or ``--engine transformers``.
Left out on purpose: validation. Checkpoints are measured by our own trainer, see ``commands`` in the dry run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np

from entropy_lab.advantages.parameters import Choice
from entropy_lab.configuration import saved
from entropy_lab.errors import ParameterError
from entropy_lab.integrations.launch_settings import LaunchSettings
from entropy_lab.rl.ranges import Count, CountOrNone
from entropy_lab.studies.command_line import from_command_line
from entropy_lab.tasks import Problem, Task, verify_all
from entropy_lab.tasks import get as get_task

LOSSES: Final = {"token-mean": "dapo", "seq-mean-token-mean": "grpo", "seq-mean-token-sum-norm": "dr_grpo"}
"""Our names of loss aggregations and TRL's."""


@dataclass
class Config(LaunchSettings):
    """Settings of a training run: those of trainers/grpo.py that TRL has, and how it is spread over processes."""

    out: Path
    """Directory of the run; TRL's checkpoints go beside it, to OUT-trl."""
    processes: CountOrNone = 0
    """GPUs that train, on all nodes; 0 for what the launcher says."""
    per_device: Count = 4
    """Sequences of one forward and backward pass on a GPU; changes memory and speed only."""
    engine: Annotated[str, Choice("transformers", "vllm", "vllm-server")] = "vllm"
    """What samples: transformers, vLLM on the GPUs that train, or a server (`trl vllm-serve`)."""
    vllm_host: str = "0.0.0.0"
    """Host of the server."""
    aggregation: Annotated[str, Choice("auto", *LOSSES)] = "auto"
    """How token losses become one; auto is the estimator's."""
    LEFT_OUT = ("prompt_tokens", "micro_tokens", "eval_every", "eval_problems", "eval_samples", "eval_samples_every")
    """Settings of a preset that have no use here: TRL counts sequences, and does not validate."""


def main(config: Config) -> Path:
    """Compose TRL's configuration; print it, or train.

    Parameters
    ----------
    config
        Settings of the run.

    Returns
    -------
    Path
        Directory of the run.

    Raises
    ------
    ParameterError, UnknownNameError
        Settings do not fit together.
    MissingExtraError
        TRL is not installed, or of another release than those tested.
    """
    plan = prepare(config)
    if config.dry_run:
        print(json.dumps(plan, indent=2, default=str))  # noqa: T201 - what was asked for
        return config.out
    trainer = make_trainer(config, plan["trl"], get_task(config.task, **config.task_params))
    trainer.train(resume_from_checkpoint=True if config.resume else None)
    trainer.accelerator.end_training()  # a process that leaves its group's threads behind may be aborted
    return config.out


def prepare(config: Config) -> dict[str, Any]:
    """Compose what TRL is given, and refuse settings that do not fit together.

    Parameters
    ----------
    config
        Settings of the run.

    Returns
    -------
    dict
        ``trl``, arguments of GRPOConfig; ``recorder``, ours of the trainer; ``commands``, to start and to validate.
    """
    config.require_fitting()
    processes = config.processes or int(os.environ.get("WORLD_SIZE", "1"))
    aggregation = config.modulation().aggregation if config.aggregation == "auto" else config.aggregation
    if aggregation not in LOSSES:
        raise ParameterError("aggregation", f"is {aggregation!r}", f"one of {', '.join(LOSSES)}")
    trl = {
        **of_optimizer(config),
        **of_batches(config, processes),
        **of_engine(config),
        "loss_type": LOSSES[aggregation],
    }
    return {"trl": trl, "recorder": of_recorder(config), "commands": commands(config, processes)}


def of_batches(config: Config, processes: int) -> dict[str, Any]:
    """Spread an update's rollouts over processes, passes and optimizer steps."""
    rollouts, at_once = config.prompts_per_step * config.group_size, processes * config.per_device
    accumulated, odd = divmod(rollouts, config.mini_batches * at_once)
    if odd or not accumulated:
        wrong = f"× group_size is {rollouts}, on {processes} processes of {config.per_device} sequences"
        allowed = f"a multiple of mini_batches × processes × per_device = {config.mini_batches * at_once}"
        raise ParameterError("prompts_per_step", wrong, allowed, "another --per-device")
    updates = config.mini_batches * config.ppo_epochs
    return {
        "per_device_train_batch_size": config.per_device,
        "gradient_accumulation_steps": accumulated,
        "steps_per_generation": accumulated * config.mini_batches,
        "num_iterations": config.ppo_epochs,
        "num_generations": config.group_size,
        "max_steps": config.steps * updates,
        "warmup_steps": config.lr_rise * updates,
        "save_strategy": "steps" if config.checkpoint_every else "no",
        "save_steps": max(config.checkpoint_every, 1) * updates,
        "logging_steps": 1,
    }


def of_optimizer(config: Config) -> dict[str, Any]:
    """Loss and optimizer, as trainers/grpo.py has them."""
    bonus = {"entropy_coef": config.entropy_coef} if config.entropy_coef else {}
    return {
        "output_dir": f"{config.out}-trl",
        "seed": config.seed,
        "learning_rate": config.lr,
        "lr_scheduler_type": "constant_with_warmup",
        "adam_beta1": 0.9,
        "adam_beta2": 0.99,
        "weight_decay": 0.0,
        "max_grad_norm": config.max_grad_norm,
        "epsilon": config.clip_low,
        "epsilon_high": config.clip_high,
        "beta": config.kl_coef,
        "bf16": config.model.dtype == "bfloat16",
        "gradient_checkpointing": config.model.gradient_checkpointing,
        "model_init_kwargs": {"dtype": "float32"},
        "report_to": [],
        **bonus,
    }


def of_engine(config: Config) -> dict[str, Any]:
    """Choose what samples, and how."""
    engine: dict[str, Any] = {"use_vllm": config.engine != "transformers"}
    if config.engine == "vllm":
        share = config.vllm.gpu_memory_utilization
        engine |= {"vllm_mode": "colocate", "vllm_gpu_memory_utilization": share, "vllm_enable_sleep_mode": True}
    if config.engine == "vllm-server":
        engine |= {"vllm_mode": "server", "vllm_server_host": config.vllm_host}
    sampling = {"temperature": config.temperature, "top_p": 1.0, "max_completion_length": config.max_new_tokens}
    return {**engine, **sampling}


def of_recorder(config: Config) -> dict[str, Any]:
    """Give what our trainer takes beside TRL's arguments."""
    return {
        "advantage": config.advantage,
        "advantage_params": dict(config.advantage_params),
        "record_to": str(config.out),
        "prompt_id": "problem",
        "logp_after_every": config.increments_every,
        "recorder": {"task": config.task, "model": config.model.path},
    }


def commands(config: Config, processes: int) -> dict[str, str]:
    """Give the lines that start the run and that validate a checkpoint of it."""
    where = f"--out {config.out} --preset PRESET"
    launch = f"--num_processes {processes}"
    nodes = f"{launch} --num_machines N --machine_rank I --main_process_ip IP"
    sharded = f"{launch} --use_deepspeed --zero_stage 3"
    lines = {"one node": launch, "several nodes": nodes, "a policy that one GPU does not hold": sharded}
    validation = "entropy-lab train grpo --preset PRESET --lr 0 --steps 1 --eval-every 1"
    return {
        **{name: f"accelerate launch {words} trainers/trl_grpo.py {where}" for name, words in lines.items()},
        "validate a checkpoint": f"{validation} --model {config.out}-trl/checkpoint-N --out {config.out}-validation-N",
    }


def make_trainer(config: Config, arguments: dict[str, Any], task: Task, **instead: Any) -> Any:  # noqa: ANN401
    """Make TRL's trainer with our additions.

    Parameters
    ----------
    config
        Settings of the run.
    arguments
        Of GRPOConfig.
    task
        Brings problems, and verifies.
    **instead
        Arguments of the trainer that go before those made here.
    """
    from entropy_lab.integrations.trl import EntropyLabGRPOTrainer, require_tested

    require_tested()
    from datasets import Dataset
    from trl import GRPOConfig

    from entropy_lab.rl.pretrained import load_tokenizer
    from entropy_lab.rl.tokens import ChatTokens

    for name in arguments:
        if name not in GRPOConfig.__dataclass_fields__:
            raise ParameterError(name, "is not known to the TRL that is installed", "a newer TRL, or the default")
    tokenizer = instead.pop("processing_class", None) or load_tokenizer(config.model.path)
    asked = task.problems(np.random.default_rng(config.data_seed), config.train_prompts)
    texts = ChatTokens(tokenizer, config.model.prompt)
    rows = {"prompt": [texts.text(each.prompt) for each in asked], "problem": [each.id for each in asked]}
    settings = of_recorder(config)
    settings["recorder"]["config"] = saved(config)
    given = {
        "model": config.model.path,
        "processing_class": tokenizer,
        "reward_funcs": reward_of(task, {each.id: each for each in asked}, tokenizer),
        "args": GRPOConfig(**arguments),
        "train_dataset": Dataset.from_dict(rows),
        **settings,
    }
    return EntropyLabGRPOTrainer(**{**given, **instead})


def reward_of(task: Task, problems: dict[str, Problem], tokenizer: Any) -> Callable[..., list[float]]:  # noqa: ANN401
    """Make the reward function: 1 for a completion that the task accepts, else 0."""

    def accepted(
        completions: list[str], completion_ids: list[list[int]], problem: list[str], **_: object
    ) -> list[float]:
        cut = [not ids or ids[-1] != tokenizer.eos_token_id for ids in completion_ids]
        verdicts = verify_all(task, [problems[name] for name in problem], completions, cut)
        return [float(verdict is True) for verdict in verdicts]

    return accepted


if __name__ == "__main__":
    main(from_command_line(Config, about=__doc__))
