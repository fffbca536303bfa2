"""Train with verl on one node or on several, with our estimators, tasks and record; settings as in the paper's presets.

Make the data where the task's extra is installed, then train where verl is: ``trainers/verl_grpo.py --preset
qwen3-4b-math --out runs/qwen3-4b --only data``, then the same without ``--only``; ``--dry-run`` prints what verl's
Hydra composes, and starts nothing. Needs the extra ``verl`` and a rollout engine (vLLM).
Left out on purpose: sampled validation; verl validates greedily, on every benchmark of the task.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np

from entropy_lab.advantages.parameters import Choice
from entropy_lab.errors import ParameterError
from entropy_lab.integrations.launch_settings import LaunchSettings
from entropy_lab.integrations.verl_data import data_files, write_data
from entropy_lab.integrations.verl_names import words_of
from entropy_lab.rl.ranges import Count, CountOrNone
from entropy_lab.studies.command_line import from_command_line
from entropy_lab.tasks import Task
from entropy_lab.tasks import get as get_task

AGGREGATIONS: Final = ("token-mean", "seq-mean-token-mean", "seq-mean-token-sum-norm")
"""Loss aggregations, which verl names as we do."""


@dataclass
class Config(LaunchSettings):
    """Settings of a training run: those of trainers/grpo.py that verl has, and how it is spread over GPUs."""

    out: Path
    """Directory of the run; verl's checkpoints, data and logs go beside it, to OUT-verl."""
    only: Annotated[str, Choice("", "data")] = ""
    """data: make the data files and stop."""
    nodes: Count = 1
    """Machines; on several, Ray runs on all of them before this starts on one."""
    gpus: Count = 4
    """GPUs of each machine: they sample and train in turn."""
    engine: Annotated[str, Choice("vllm", "sglang")] = "vllm"
    """What samples."""
    micro_tokens: Count = 16384
    """Most tokens of one forward and backward pass on a GPU; changes memory and speed only."""
    prompt_tokens: Count = 1024
    """Longest prompt; problems with a longer one are left out."""
    aggregation: Annotated[str, Choice("auto", *AGGREGATIONS)] = "auto"
    """How token losses become one; auto is the estimator's."""
    eval_every: CountOrNone = 0
    """Updates between validation passes, greedy; 0 for none."""
    eval_problems: Count = 1000
    """Most problems of a benchmark."""
    texts: bool = False
    """Record prompts, completions and answers."""
    LEFT_OUT = ("eval_samples", "eval_samples_every")
    """Settings of a preset that have no use here: validation is greedy."""


def main(config: Config) -> Path:
    """Compose verl's configuration; print it, make the data, or train.

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
        verl is not installed, or of another release than the one tested; or what the task needs is missing.
    """
    require_fitting(config)
    if config.only == "data":
        make_data(config, get_task(config.task, **config.task_params))
        return config.out
    words = overrides(config)
    composed = compose(words)
    if config.dry_run:
        from omegaconf import OmegaConf

        shown = {"commands": commands(config, words), "verl": OmegaConf.to_container(composed, resolve=True)}
        print(json.dumps(shown, indent=2))  # noqa: T201 - what was asked for
        return config.out
    if not data_files(_beside(config) / "data")[0].exists():
        make_data(config, get_task(config.task, **config.task_params))
        composed = compose(overrides(config))  # now with the files of the benchmarks
    train(composed)
    return config.out


def require_fitting(config: Config) -> None:
    """Refuse settings that do not fit together."""
    config.require_fitting()
    if config.prompts_per_step % config.mini_batches:
        wrong = f"is {config.prompts_per_step} with mini_batches {config.mini_batches}"
        raise ParameterError("prompts_per_step", wrong, "a multiple of mini_batches")
    rollouts, gpus = config.prompts_per_step * config.group_size // config.mini_batches, config.nodes * config.gpus
    if rollouts % gpus:
        wrong = f"× group_size ÷ mini_batches is {rollouts} rollouts, on {gpus} GPUs"
        raise ParameterError("prompts_per_step", wrong, "a multiple of nodes × gpus")
    if config.task != "math" and not config.task.endswith(".py"):
        get_task(config.task, **config.task_params)


def overrides(config: Config) -> list[str]:
    """Give the words of verl's command line."""
    sections = (of_algorithm(config), of_data(config), of_actor(config), of_rollout(config), of_trainer(config))
    return [f"{name}={_word(value)}" for section in sections for name, value in section.items()]


def of_algorithm(config: Config) -> dict[str, Any]:
    """Name the advantage with its parameters; the reward has no divergence in it."""
    return {**words_of(config.advantage, config.advantage_params), "algorithm.use_kl_in_reward": False}


def of_data(config: Config) -> dict[str, Any]:
    """Files, batch and length limits; and what verifies."""
    train, held_out = data_files(_beside(config) / "data")
    reward = "reward.custom_reward_function"
    verifier = {} if config.task == "math" else {"task": config.task, **config.task_params}
    thinking = {"+data.apply_chat_template_kwargs.enable_thinking": False} if config.model.prompt != "plain" else {}
    return {
        "data.train_files": train,
        "data.val_files": held_out or [train],
        "data.train_batch_size": config.prompts_per_step,
        "data.max_prompt_length": config.prompt_tokens,
        "data.max_response_length": config.max_new_tokens,
        "data.filter_overlong_prompts": True,
        "data.truncation": "error",
        "data.seed": config.seed,
        **thinking,
        f"{reward}.path": "pkg://entropy_lab.integrations.verl_reward",
        f"{reward}.name": "compute_score",
        **{f"+{reward}.reward_kwargs.{name}": value for name, value in verifier.items()},
    }


def of_actor(config: Config) -> dict[str, Any]:
    """Policy, loss and optimizer."""
    aggregation = config.modulation().aggregation if config.aggregation == "auto" else config.aggregation
    policy, actor = "actor_rollout_ref.model", "actor_rollout_ref.actor"
    return {
        f"{policy}.path": config.model.path,
        f"{policy}.enable_gradient_checkpointing": config.model.gradient_checkpointing,
        f"{actor}.fsdp_config.dtype": config.model.dtype,
        f"{actor}.ppo_mini_batch_size": config.prompts_per_step // config.mini_batches,
        f"{actor}.ppo_epochs": config.ppo_epochs,
        f"{actor}.use_dynamic_bsz": True,
        f"{actor}.ppo_max_token_len_per_gpu": max(config.micro_tokens, config.prompt_tokens + config.max_new_tokens),
        f"{actor}.loss_agg_mode": aggregation,
        f"{actor}.loss_scale_factor": config.max_new_tokens if aggregation == "seq-mean-token-sum-norm" else None,
        f"{actor}.clip_ratio": config.clip_low,
        f"{actor}.clip_ratio_low": config.clip_low,
        f"{actor}.clip_ratio_high": config.clip_high,
        f"{actor}.use_kl_loss": config.kl_coef > 0,
        f"{actor}.kl_loss_coef": config.kl_coef,
        f"{actor}.entropy_coeff": config.entropy_coef,
        f"{actor}.grad_clip": config.max_grad_norm,
        f"{actor}.optim.lr": config.lr,
        f"{actor}.optim.lr_warmup_steps": config.lr_rise,
        f"{actor}.data_loader_seed": config.seed,
    }


def of_rollout(config: Config) -> dict[str, Any]:
    """Choose what samples, and how; validation is greedy."""
    rollout = "actor_rollout_ref.rollout"
    return {
        f"{rollout}.name": config.engine,
        f"{rollout}.n": config.group_size,
        f"{rollout}.temperature": config.temperature,
        f"{rollout}.top_p": 1.0,
        f"{rollout}.top_k": -1,
        f"{rollout}.tensor_model_parallel_size": 1,
        f"{rollout}.gpu_memory_utilization": config.vllm.gpu_memory_utilization,
        f"{rollout}.calculate_log_probs": True,
        f"{rollout}.seed": config.seed,
        f"{rollout}.val_kwargs.do_sample": False,
        f"{rollout}.val_kwargs.temperature": 0,
        f"{rollout}.val_kwargs.n": 1,
    }


def of_trainer(config: Config) -> dict[str, Any]:
    """GPUs, length of the run, validation, checkpoints and the record."""
    beside, record = _beside(config), "trainer.v1.entropy_lab"
    return {
        "trainer.nnodes": config.nodes,
        "trainer.n_gpus_per_node": config.gpus,
        "trainer.total_training_steps": config.steps,
        "trainer.total_epochs": config.steps,  # more than enough: the number of steps decides
        "trainer.test_freq": config.eval_every or -1,
        "trainer.val_before_train": config.eval_every > 0,
        "trainer.validation_data_dir": beside / "validation" if config.eval_every else None,
        "trainer.save_freq": config.checkpoint_every or -1,
        "trainer.resume_mode": "auto" if config.resume else "disable",
        "trainer.default_local_dir": beside / "checkpoints",
        "trainer.project_name": "entropy-lab",
        "trainer.experiment_name": config.out.name,
        "trainer.logger": ["console", "file"],
        "trainer.v1.trainer_mode": "entropy_lab",
        f"+{record}.record_to": config.out.absolute(),
        f"+{record}.texts": config.texts,
        f"+{record}.prompt_id": "problem",
        f"+{record}.logp_after_every": config.increments_every,
        f"+{record}.task": config.task,
    }


def commands(config: Config, words: Sequence[str]) -> dict[str, str]:
    """Give the lines that make the data and start the run."""
    here = f"python trainers/verl_grpo.py --preset PRESET --out {config.out} --gpus {config.gpus}"
    ray = "ray start --head (on the first node), ray start --address=FIRST:6379 (on the others)"
    return {
        "data": f"{here} --only data",
        "one node": here,
        "several nodes": f"{ray}, then on the first: {here} --nodes {max(config.nodes, 2)}",
        "the same by verl's own command": f"python -m verl.trainer.main_ppo {' '.join(words)}",
        "validation as a table": f"entropy-lab import {_beside(config)} --format verl --out {config.out}-validation",
    }


def make_data(config: Config, task: Task) -> None:
    """Write the training problems, and every benchmark where there is validation."""
    asked = task.problems(np.random.default_rng(config.data_seed), config.train_prompts)
    held_out = task.benchmarks(config.eval_problems) if config.eval_every else {}
    write_data(_beside(config) / "data", task.name, asked, held_out, config.model.prompt)


def compose(words: Sequence[str]) -> Any:  # noqa: ANN401 - OmegaConf's
    """Let verl's Hydra compose its configuration, as its entry point does."""
    from entropy_lab.integrations.verl_releases import SUPPORTED

    SUPPORTED.require()
    import verl
    from hydra import compose, initialize_config_dir

    folder = Path(verl.__file__).parent / "trainer" / "config"
    with initialize_config_dir(config_dir=str(folder), version_base=None):
        return compose("ppo_trainer", overrides=list(words))


def train(composed: Any) -> None:  # noqa: ANN401
    """Start verl, as its entry point does."""
    from verl.trainer.main_ppo import TaskRunnerV1, run_ppo
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import validate_config

    needs = {"use_reference_policy": need_reference_policy(composed), "use_critic": need_critic(composed)}
    validate_config(config=composed, **needs)
    run_ppo(composed, task_runner_class=TaskRunnerV1)


def _beside(config: Config) -> Path:
    return config.out.absolute().with_name(f"{config.out.name}-verl")


def _word(value: object) -> str:
    """Write a value as Hydra reads it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(_word, value))}]"
    return f"'{value}'" if isinstance(value, Path | str) else str(value)


if __name__ == "__main__":
    main(from_command_line(Config, about=__doc__))
