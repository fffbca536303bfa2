"""Train a policy on a verifiable task by policy gradient, and record everything the analyses read.

One loop: rollout -> advantages -> update -> log. Which advantages is a name; this file knows none of them.
Left out on purpose: a value network, sampling while training, more than one device. A validation pass belongs to an
update; the base policy is measured by one update with ``--lr 0``. With ``--checkpoint-every N`` a run that was stopped
goes on with ``--resume``, equal to the bit.

``python trainers/grpo.py --out runs/grpo`` or ``entropy-lab train grpo --out runs/grpo``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from entropy_lab import advantages
from entropy_lab.advantages import Modulation
from entropy_lab.advantages.parameters import Choice
from entropy_lab.configuration import saved
from entropy_lab.errors import ParameterError
from entropy_lab.files import alone
from entropy_lab.rl.advantage import advantages_of
from entropy_lab.rl.checkpoint import Checkpoint, Controller
from entropy_lab.rl.engine import RolloutEngine
from entropy_lab.rl.engines import ENGINES, open_engine, require_engine
from entropy_lab.rl.evaluation import Columns, evaluate
from entropy_lab.rl.logprobs import TokenScores, score
from entropy_lab.rl.loss_settings import LossSettings
from entropy_lab.rl.material import Material
from entropy_lab.rl.memory import Workload
from entropy_lab.rl.policy import Policy, PolicySettings, make_policy, short_enough
from entropy_lab.rl.progress import StopWatch, TrainingProgress
from entropy_lab.rl.randomness import Purpose, mini_batches, prompt_order, torch_generator
from entropy_lab.rl.ranges import Count, CountOrNone, NotNegative, Positive, require_in_range
from entropy_lab.rl.record import Batch, rollout_columns, step_metrics, update_metrics
from entropy_lab.rl.resume import BEGINNING, Start, find_start, require_startable
from entropy_lab.rl.sinks import accuracies, open_sinks, require_sinks
from entropy_lab.rl.tokens import Tokens
from entropy_lab.rl.update import LossStatistics, Objective, accumulate_gradients, clip_gradients
from entropy_lab.rl.vllm_options import VllmOptions
from entropy_lab.rl.warm_start import WarmStart
from entropy_lab.studies.command_line import from_command_line
from entropy_lab.tasks import Problem, Task, demonstrated
from entropy_lab.tasks import get as get_task
from entropy_lab.writer import RunWriter


@dataclass
class Config(LossSettings):
    """Settings of a training run; all that make a difference to it are saved with it."""

    out: Path
    """Directory of the run; must be empty or not exist, unless it is gone on with."""
    resume: bool = False
    """Go on from the latest checkpoint in out, with the same settings; begin where there is no run."""
    checkpoint_every: CountOrNone = 0
    """Updates between checkpoints; there is one after the last update too; 0 for none."""
    advantage: str = "grpo"
    """Advantage estimator, or one that changes during training."""
    advantage_params: dict[str, int | float | str] = field(default_factory=dict)
    """Parameters of the estimator as pairs: beta_pos 0.9 beta_neg 0.4."""
    label: str = ""
    """Name of the method in figures; empty for the estimator's own."""
    setting: str = ""
    """Name of what methods are compared on, a row of panels in figures; empty for the model's."""
    task: str = "countdown"
    """Task to train on: a name, or the path of your own (./mine.py)."""
    task_params: dict[str, int | float | str] = field(default_factory=dict)
    """Parameters of the task as pairs: train math_train.jsonl held_out math500.jsonl,aime24.jsonl."""
    model: PolicySettings = field(default_factory=PolicySettings)
    """The policy."""
    warm_start_steps: int = 450
    """Supervised steps before the training of a model made in code; their weights are kept and used again."""
    warm_start_seed: CountOrNone = 0
    """Seed of that base policy."""
    steps: Count = 80
    """Policy updates."""
    train_prompts: Count = 1024
    """Different training prompts; a pass over them is an epoch, and leaves out what does not fill an update."""
    prompt_tokens: CountOrNone = 0
    """Most tokens of a training prompt; problems with longer ones are left out; 0 for no limit."""
    data_seed: CountOrNone = 0
    """Seed that draws the training prompts, so that runs that differ in seed share them."""
    prompts_per_step: Count = 64
    """Prompts sampled for an update."""
    group_size: Count = 8
    """Rollouts of each prompt."""
    mini_batches: Count = 4
    """Gradient steps of a pass over an update's rollouts, each on its share of the prompts."""
    ppo_epochs: Count = 1
    """Passes over an update's rollouts."""
    micro_batch: Count = 64
    """Most rollouts of one forward and backward pass; changes memory and speed only."""
    micro_tokens: CountOrNone = 0
    """Most tokens of one such pass, prompts and padding included; 0 for no limit."""
    rollout_batch: Count = 512
    """Most responses that are sampled side by side, for memory and speed; with another number other ones are drawn."""
    lr: NotNegative = 1e-4
    """Learning rate of AdamW, after the rise; with 0 the run measures the base policy."""
    lr_rise: CountOrNone = 5
    """Updates over which the learning rate rises linearly."""
    max_grad_norm: Positive = 1.0
    """Gradients with a larger norm are scaled down to it."""
    engine: Annotated[str, Choice(*ENGINES)] = "transformers"
    """What samples: transformers (embedded) or vllm (the extra of that name)."""
    vllm: VllmOptions = field(default_factory=VllmOptions)
    """Memory and limits of vLLM."""
    old_logp: Annotated[str, Choice("trainer", "sampler")] = "trainer"
    """Who tells log-probabilities and entropies before the update: trainer (a pass of its own) or sampler (faster)."""
    increments_every: Count = 1
    """Updates between those after which the log-probabilities of their rollouts are taken again."""
    temperature: Positive = 1.0
    """Sampling temperature, in training and for sampled validation answers."""
    max_new_tokens: Count = 26
    """Length limit of a response."""
    eval_every: CountOrNone = 10
    """Updates between validation passes; there is one after the first and one after the last update too; 0 for none."""
    eval_problems: Count = 200
    """Most problems of a benchmark."""
    eval_samples: CountOrNone = 4
    """Sampled answers to each validation problem, beside the greedy one."""
    eval_samples_every: CountOrNone = 1
    """Passes after multiples of this many updates sample answers, beside the last pass; 0 for that one only."""
    seed: CountOrNone = 0
    """Seed of prompt order and sampling; equal settings give equal runs on one machine."""
    log_to: tuple[str, ...] = ()
    """Where numbers go beside metrics.jsonl: tensorboard, wandb, trackio."""
    threads: Count = 1
    """Processor threads of PyTorch, for the whole process."""


def main(config: Config) -> Path:
    """Train, and write the run.

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
        When settings do not fit together, or not to the run to go on with, before anything is written.
    OutputError
        When the run or the warm-started weights cannot be written.
    """
    setup = prepare(config)
    torch.set_num_threads(config.threads)
    base = WarmStart(steps=config.warm_start_steps, seed=config.warm_start_seed)
    with alone(config.out), TrainingProgress() as progress:
        start = find_start(config)
        if start.begun:
            progress.say(f"{config.out}: {start.done} of {config.steps} updates are done")
        if start.done == config.steps:
            return config.out
        load = partial(Workload.of, config, held_out=sum(map(len, setup.benchmarks.values())))
        policy = make_policy(config.model, setup.task, base, progress, setup.asked, config.max_new_tokens, load)
        writer = RunWriter.resume(config.out, after=start.done - 1) if start.begun else new_writer(setup, policy)
        train(setup, policy, writer, progress, start)
    return config.out


def train(
    setup: Setup, policy: Policy, writer: RunWriter, progress: TrainingProgress, start: Start = BEGINNING
) -> None:
    """Run the loop: rollout -> advantages -> update -> log."""
    config, model, began, shown = setup.config, policy.model, time.perf_counter(), dict[str, float]()
    optimizer: Optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, betas=(0.9, 0.99), weight_decay=0.0)
    reference, bonus = deepcopy(model) if config.kl_coef else None, config.adaptive_bonus()
    controllers: dict[str, Controller] = {"advantage": setup.modulation}
    if bonus:
        controllers["entropy_coef"] = bonus
    began -= start.restore(model, optimizer, controllers)
    with (
        open_engine(config.engine, policy, config.rollout_batch, config.vllm) as engine,
        open_sinks(config.log_to, writer.path) as sinks,
    ):
        for step in range(start.done, config.steps):
            watch = StopWatch()
            batch = rollout(setup, policy.tokens, engine, step)
            watch.lap("time_rollout")
            before = old_scores(config, model, batch)
            base_BT = scored(config, reference, batch).logp_BT if reference is not None else None
            watch.lap("time_logp")
            metrics, validated = step_metrics(batch, before), dict[str, float]()
            estimator = setup.modulation.at(step, config.steps, metrics["entropy"])
            advantage = advantages_of(estimator, batch.rewards, before.entropy_BT, batch.sequences.mask_BT)
            coef = bonus.at(metrics["entropy"]) if bonus else config.entropy_coef
            objective = replace(setup.objective, entropy_coef=coef)
            updated = update(config, model, optimizer, step, objective, Material(batch, before, advantage, base_BT))
            engine.update_weights(model)
            watch.lap("time_update")
            after = scored(config, model, batch) if step % config.increments_every == 0 else None
            watch.lap("time_logp")
            writer.write_rollouts(step, rollout_columns(batch, before, after, advantage.rollout_B))
            watch.lap("time_write")
            if config.eval_every and (step % config.eval_every == 0 or step + 1 == config.steps):
                answers = validate(setup, policy.tokens, engine, step)
                writer.write_evals(step, answers)
                validated = accuracies(answers)
                shown["greedy"] = validated["validation/greedy"]
                watch.lap("time_eval")
            metrics |= updated | setup.modulation.values() | (bonus.values() if bonus else {})
            row = {"step": step, "epoch": batch.epoch, "time": time.perf_counter() - began, **metrics, **watch.laps}
            writer.write_metrics(row)
            sinks.log(step, row | validated)
            # Written last: a step is behind a checkpoint only when all of it is recorded.
            if (every := config.checkpoint_every) and ((step + 1) % every == 0 or step + 1 == config.steps):
                Checkpoint.of(step, time.perf_counter() - began, model, optimizer, controllers).save(writer.path)
            shown |= {name: metrics[name] for name in ("entropy", "reward", "all_solved", "none_solved")}
            progress.show("training", step + 1, config.steps, shown)


@dataclass(frozen=True)
class Setup:
    """What the settings name."""

    config: Config
    task: Task
    modulation: Modulation
    objective: Objective
    problems: list[Problem]
    benchmarks: dict[str, list[Problem]]

    @property
    def asked(self) -> Iterator[Problem]:
        """All problems of the run."""
        return chain(self.problems, *self.benchmarks.values())


def new_writer(setup: Setup, policy: Policy) -> RunWriter:
    """Begin the run's record: what it is."""
    config = setup.config
    base = {"name": "base", "params": {}, "label": config.label or "base policy"}
    return RunWriter(
        config.out,
        method=config.method(setup.modulation, config.label) if config.lr else base,
        group_size=config.group_size,
        seed=config.seed,
        model=policy.name,
        task=setup.task.name,
        setting=config.setting or None,
        config=saved(config),
    )


def prepare(config: Config) -> Setup:
    """Look up what the settings name, and refuse settings that do not fit together."""
    require_startable(config)
    require_in_range(config)
    require_sinks(config.log_to)
    require_engine(config.engine)
    if (n_prompts := config.prompts_per_step) % config.mini_batches:
        raise ParameterError("prompts_per_step", f"is {n_prompts}", f"a multiple of mini_batches {config.mini_batches}")
    if config.train_prompts < n_prompts:
        raise ParameterError("train_prompts", f"is {config.train_prompts}", f"prompts_per_step {n_prompts} or more")
    task = get_task(config.task, **config.task_params)
    if not config.model.path:
        demonstrated(task)
    modulation = advantages.modulation(config.advantage, **config.advantage_params)
    modulation.initial(np.zeros((1, config.group_size)))  # a k above the group size shows now, before the warm start
    objective = config.objective(modulation.aggregation, config.max_new_tokens, config.temperature)
    problems = task.problems(np.random.default_rng(config.data_seed), config.train_prompts)
    problems = short_enough(config.model, task, problems, config.prompt_tokens, n_prompts)
    benchmarks = task.benchmarks(config.eval_problems) if config.eval_every else {}
    return Setup(config, task, modulation, objective, problems, benchmarks)


def rollout(setup: Setup, tokens: Tokens, engine: RolloutEngine, step: int) -> Batch:
    """Sample the step's prompts and verify the responses."""
    config, size = setup.config, setup.config.prompts_per_step
    epoch, part = divmod(step, len(setup.problems) // size)
    order = prompt_order(config.seed, epoch, len(setup.problems))
    asked = [setup.problems[i] for i in order[part * size : (part + 1) * size]]
    rollouts = engine.generate(
        [tokens.encode(problem.prompt) for problem in asked],
        config.group_size,
        temperature=config.temperature,
        max_new_tokens=config.max_new_tokens,
        generator=torch_generator(config.seed, Purpose.SAMPLING, step),
    )
    return Batch.verified(epoch, setup.task, tokens, asked, rollouts)


def old_scores(config: Config, model: nn.Module, batch: Batch) -> TokenScores:
    """Log-probabilities and entropies of the policy that sampled."""
    entropy_BT = batch.rollouts.entropy_BT
    if config.old_logp == "trainer" or entropy_BT is None:  # vLLM tells no entropies
        return scored(config, model, batch)
    return TokenScores(batch.rollouts.logp_BT, entropy_BT)


def scored(config: Config, model: nn.Module, batch: Batch) -> TokenScores:
    """Log-probabilities and entropies of a policy as it is."""
    return score(model, batch.sequences, config.temperature, config.micro_batch, config.micro_tokens)


def update(
    config: Config, model: nn.Module, optimizer: Optimizer, step: int, objective: Objective, material: Material
) -> dict[str, float]:
    """Take one gradient step on each mini-batch; the numbers are means over them, but for the extremes."""
    optimizer.param_groups[0]["lr"] = config.lr * min(1.0, (step + 1) / max(1, config.lr_rise))
    taken, norms = list[LossStatistics](), list[float]()
    model.train(config.model.gradient_checkpointing)  # done in training mode only; no model has dropout here
    for prompts_p in mini_batches(config.seed, step, config.prompts_per_step, config.mini_batches, config.ppo_epochs):
        mini = material.of_prompts(prompts_p)
        rng = np.random.default_rng([config.seed, Purpose.CLIP_COV, step, len(taken)])
        optimizer.zero_grad()
        taken.append(accumulate_gradients(model, mini, objective, config.micro_batch, rng, config.micro_tokens))
        norms.append(clip_gradients(model, config.max_grad_norm))
        optimizer.step()
    model.train(False)
    return {**update_metrics(taken, norms, objective), "lr": optimizer.param_groups[0]["lr"]}


def validate(setup: Setup, tokens: Tokens, engine: RolloutEngine, step: int) -> Columns:
    """Answer the held-out problems."""
    every = setup.config.eval_samples_every
    sampled = step + 1 == setup.config.steps or (every > 0 and step % every == 0)
    return evaluate(
        engine,
        tokens,
        setup.task,
        setup.benchmarks,
        n_samples=setup.config.eval_samples if sampled else 0,
        temperature=setup.config.temperature,
        max_new_tokens=setup.config.max_new_tokens,
        generator=torch_generator(setup.config.seed, Purpose.VALIDATION, step),
    )


if __name__ == "__main__":
    main(from_command_line(Config))
