"""Settings that the trainers over other frameworks have in common, under the names of trainers/grpo.py."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from entropy_lab import advantages
from entropy_lab.errors import ParameterError
from entropy_lab.rl.policy import PolicySettings
from entropy_lab.rl.ranges import Count, CountOrNone, NotNegative, Positive, require_in_range
from entropy_lab.rl.vllm_options import VllmOptions


@dataclass(kw_only=True)
class LaunchSettings:
    """Settings of a run that another framework makes; a trainer's configuration inherits them.

    Presets and studies name them as they name those of trainers/grpo.py. The aggregation and the engine are not among
    them: each framework has names of its own.

    Examples
    --------
    >>> LaunchSettings(advantage="asym_grpo", model=PolicySettings(path="Qwen/Qwen3-4B")).modulation().name
    'asym_grpo'
    """

    resume: bool = False
    """Go on from the framework's latest checkpoint."""
    dry_run: bool = False
    """Print the composed configuration and the commands, and start nothing."""
    vllm: VllmOptions = field(default_factory=VllmOptions)
    """Of what samples on the GPUs that train: gpu_memory_utilization is used."""
    checkpoint_every: CountOrNone = 0
    """Updates between checkpoints; 0 for none."""
    advantage: str = "grpo"
    """Advantage estimator of ours, or one that changes during training."""
    advantage_params: dict[str, int | float | str] = field(default_factory=dict)
    """Parameters of the estimator as pairs: beta_pos 0.9 beta_neg 0.4."""
    clip_low: float = 0.2
    """Width of the clip range of the probability ratio below 1."""
    clip_high: float = 0.2
    """Width of the clip range above 1; 0.28 is Clip-higher."""
    kl_coef: NotNegative = 0.0
    """Weight of the divergence from the base policy."""
    entropy_coef: NotNegative = 0.0
    """Weight of an entropy bonus."""
    task: str = "math"
    """Task to train on: a name, or the path of your own (./mine.py)."""
    task_params: dict[str, int | float | str] = field(default_factory=dict)
    """Parameters of the task as pairs."""
    model: PolicySettings = field(default_factory=PolicySettings)
    """The policy: path, prompt, dtype and gradient_checkpointing are used."""
    train_prompts: Count = 1024
    """Different training prompts."""
    data_seed: CountOrNone = 0
    """Seed that draws them."""
    steps: Count = 80
    """Policy updates: batches of rollouts."""
    prompts_per_step: Count = 64
    """Prompts of an update."""
    group_size: Count = 8
    """Rollouts of each prompt."""
    mini_batches: Count = 4
    """Optimizer steps of a pass over an update's rollouts."""
    ppo_epochs: Count = 1
    """Passes over an update's rollouts."""
    lr: NotNegative = 1e-6
    """Learning rate of AdamW."""
    lr_rise: CountOrNone = 0
    """Updates over which it rises linearly."""
    max_grad_norm: Positive = 1.0
    """Gradients with a larger norm are scaled down to it."""
    temperature: Positive = 1.0
    """Sampling temperature."""
    max_new_tokens: Count = 2048
    """Length limit of a response."""
    increments_every: CountOrNone = 1
    """Updates between those after which the log-probabilities of their rollouts are taken again; 0 for never."""
    seed: CountOrNone = 0
    """Seed of order and sampling."""

    def modulation(self) -> advantages.Modulation:
        """Give the advantages.

        Raises
        ------
        ParameterError, UnknownNameError
            There is no such estimator, or its parameters are out of range.
        """
        return advantages.modulation(self.advantage, **self.advantage_params)

    def require_fitting(self) -> None:
        """Refuse settings that are out of range or do not fit together, as far as no framework is concerned.

        Raises
        ------
        ParameterError, UnknownNameError
            Which setting, its value and what is allowed.
        """
        require_in_range(self)
        self.modulation().initial(np.zeros((1, self.group_size)))
        if not self.model.path:
            allowed = "a pretrained model: small ones are trained by trainers/grpo.py"
            raise ParameterError("model.path", "is empty", allowed)
