"""Time whole training steps, rollout to last gradient step, of our trainer beside TRL's GRPOTrainer.

Both train the same small Qwen3 from the same weights on the same prompts, with the same group size, mini-batches,
clip range, learning rate and number of tokens: no response ends before the length limit. Each takes its turn in one
process with one thread, so that a ratio is of the same minutes of the same machine. Ours records the run as always
(rollouts with token columns, log-probabilities after the update); with ``--bare`` it takes those every 1,000 updates.

TRL lives in an environment of its own: ``make bench-train-step``. On a GPU: ``--device cuda``.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from datasets import Dataset
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

import entropy_lab as el
from entropy_lab import recipes
from entropy_lab.rl.model import ModelSizes, build_model
from entropy_lab.rl.policy import Policy
from entropy_lab.rl.progress import TrainingProgress
from entropy_lab.rl.tokens import VocabularyTokens
from entropy_lab.tasks.countdown import Countdown
from entropy_lab.writer import RunWriter

GRPO: Final = recipes.load("trainers", "grpo")
TASK: Final = Countdown()
NEVER: Final = -1
"""A token id that nothing samples: no response ends."""


def model(sizes: ModelSizes) -> Qwen3ForCausalLM:
    """Make the policy, from the same random weights every time."""
    return build_model(sizes, TASK.vocabulary.size, seed=0)


def tokenizer() -> PreTrainedTokenizerFast:
    """Give the task's characters with the same ids, as TRL wants a tokenizer."""
    letters = ["<pad>", "<eos>", *TASK.vocabulary.characters]
    made = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate(letters)}, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    made.decoder = decoders.Fuse()
    about = {"eos_token": "<eos>", "pad_token": "<pad>", "padding_side": "left"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **about)  # type: ignore[no-untyped-call]


def ours(case: argparse.Namespace, steps: int) -> tuple[list[float], dict[str, float]]:
    """Train; seconds of each update, and of its parts in the mean."""
    with tempfile.TemporaryDirectory() as folder:
        config = GRPO.Config(
            out=Path(folder) / "run",
            steps=steps,
            train_prompts=case.prompts,
            prompts_per_step=case.prompts,
            group_size=case.group_size,
            mini_batches=case.mini_batches,
            micro_batch=case.micro_batch,
            rollout_batch=case.rollout_batch,
            max_new_tokens=case.tokens,
            advantage="reinforce",
            eval_every=0,
            increments_every=1000 if case.bare else 1,
            old_logp=case.old_logp,
        )
        setup = GRPO.prepare(config)
        # Random rewards, as TRL gets: what a verifier costs is not the matter here.
        setup = replace(setup, task=_RandomVerdicts())
        tokens = VocabularyTokens(TASK.vocabulary)
        tokens.stop_ids = (NEVER,)
        policy = Policy(model(case.sizes).to(case.device), tokens, "tiny", 0)
        writer = RunWriter(config.out, method={"name": "reinforce", "params": {}})
        GRPO.train(setup, policy, writer, TrainingProgress())
        rows = el.open_run(config.out).metrics()
        assert rows["mean_length"].to_list() == [case.tokens] * steps
        ends = [0.0, *rows["time"].to_list()]
        parts = {name: float(rows[name][1:].to_numpy().mean()) for name in rows.columns if name.startswith("time_")}
        return list(np.diff(ends)), parts


class _RandomVerdicts(Countdown):
    """The task with verdicts by the last letter of the answer: quick, and of both kinds in a group."""

    def verify(self, problem: Any, completion: str, *, truncated: bool = False) -> bool:  # noqa: ANN401
        return completion[-1:] in "01234567"


class _Clock(TrainerCallback):
    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.perf_counter())

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.perf_counter())


def trls(case: argparse.Namespace, steps: int) -> tuple[list[float], dict[str, float]]:
    """Seconds of as many optimizer steps as one of our updates has, with one generation for all of them."""
    rollouts = case.prompts * case.group_size
    clock = _Clock()
    prompts = [problem.prompt for problem in TASK.problems(np.random.default_rng(0), case.prompts)]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = GRPOConfig(
            output_dir=folder,
            per_device_train_batch_size=rollouts // case.mini_batches,
            steps_per_generation=case.mini_batches,
            gradient_accumulation_steps=1,
            num_generations=case.group_size,
            max_completion_length=case.tokens,
            max_steps=steps * case.mini_batches,
            learning_rate=1e-4,
            beta=0.0,
            temperature=1.0,
            generation_kwargs={"min_new_tokens": case.tokens},
            logging_steps=10_000,
            save_strategy="no",
            report_to=[],
            use_cpu=case.device == "cpu",
            bf16=False,
            disable_tqdm=True,
            dataloader_pin_memory=False,
            gradient_checkpointing=False,
        )
        trainer = GRPOTrainer(
            model=model(case.sizes),
            processing_class=tokenizer(),
            reward_funcs=lambda completions, **_: [float(text[-1:] in "01234567") for text in completions],
            args=arguments,
            train_dataset=Dataset.from_dict({"prompt": prompts}),
            callbacks=[clock],
        )
        trainer.train()
    ends = clock.ends[:: case.mini_batches]
    return list(np.diff(ends)), {}


def measure(case: argparse.Namespace) -> dict[str, Any]:
    """Let both take turns, and compare them pair by pair."""
    contenders: dict[str, Callable[[argparse.Namespace, int], tuple[list[float], dict[str, float]]]] = {
        "entropy-lab": ours,
        "TRL": trls,
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    parts: dict[str, float] = {}
    for pair in range(case.pairs):
        for name, run in contenders.items() if pair % 2 else reversed(contenders.items()):
            took, of = run(case, case.steps + 1)
            seconds[name].append(statistics.median(took[1:]))  # the first one warms up
            parts |= of
            print(f"pair {pair}: {name} {seconds[name][-1]:.2f} s a step", flush=True)
    ratios = [trl / our for our, trl in zip(*seconds.values(), strict=True)]
    tokens = case.prompts * case.group_size * case.tokens
    return {
        "tokens_per_step": tokens,
        "tokens_per_second": {name: [round(tokens / each) for each in values] for name, values in seconds.items()},
        "ratio": [round(each, 2) for each in ratios],
        "ratio_median": round(statistics.median(ratios), 2),
        "our_parts_seconds": {name: round(value, 3) for name, value in parts.items()},
    }


def main() -> None:
    """Measure and print one JSON object last."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=14)
    parser.add_argument("--mini-batches", type=int, default=4)
    parser.add_argument("--micro-batch", type=int, default=256)
    parser.add_argument("--rollout-batch", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--old-logp", choices=("trainer", "sampler"), default="trainer")
    parser.add_argument("--bare", action="store_true", help="no log-probabilities after the update")
    parser.add_argument("--device", default="cpu")
    case = parser.parse_args()
    case.sizes = ModelSizes()
    torch.set_num_threads(1)
    found = measure(case)
    import trl

    about = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__, "trl": trl.__version__}
    print(json.dumps(about | {"case": {k: v for k, v in vars(case).items() if k != "sizes"}} | found, indent=1))


if __name__ == "__main__":
    main()
