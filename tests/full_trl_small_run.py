"""A training of TRL that takes seconds on a processor, and what tests compare it with.

Started as a program, it is one process of such a training on several.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from trl import GRPOConfig, GRPOTrainer

from entropy_lab.integrations.trl import EntropyLabGRPOTrainer
from entropy_lab.integrations.trl_rollouts import ROW
from entropy_lab.tasks.countdown import Countdown

torch.set_num_threads(1)

IGNORED_WARNINGS = ("DeprecationWarning", "FutureWarning", "UserWarning", "ResourceWarning")
"""Of TRL and what it stands on."""

TASK = Countdown()

LETTERS = ["<pad>", "<eos>", *TASK.vocabulary.characters]

GROUP, PROMPTS, LIMIT, TEMPERATURE = 4, 4, 7, 0.9

GOOD = tuple(LETTERS[2:9])
"""An answer is right when its last letter is one of these."""


def tokenizer():
    made = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate(LETTERS)}, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>", pad_token="<pad>", padding_side="left")


def model():
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    special = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None, "tie_word_embeddings": True}
    torch.manual_seed(0)
    made = Qwen3ForCausalLM(Qwen3Config(vocab_size=len(LETTERS), head_dim=16, intermediate_size=32, **sizes, **special))
    with torch.no_grad():  # fresh weights are nearly uniform: sharpen them, so that anything wrong would show
        for parameter in made.parameters():
            parameter.mul_(3.0 if parameter.dim() == 2 else 1.0)
    return made


def right(ids):
    """The reward, from tokens alone."""
    told = [i for i in ids if i > 1]
    return float(bool(told) and LETTERS[told[-1]] in GOOD)


def ends_well(completion_ids, **_):
    return [right(ids) for ids in completion_ids]


def short(completion_ids, **_):
    return [0.0 if len(ids) == LIMIT else 0.5 for ids in completion_ids]


def data(n=64):
    return Dataset.from_dict({"prompt": [each.prompt for each in TASK.problems(np.random.default_rng(0), n)]})


def settings(out, **changes):
    passes = changes.get("steps_per_generation") or changes.get("gradient_accumulation_steps", 1)
    given = {
        "output_dir": str(out),
        "per_device_train_batch_size": GROUP * PROMPTS // passes,
        "num_generations": GROUP,
        "max_completion_length": LIMIT,
        "max_steps": 4,
        "learning_rate": 1e-2,
        "temperature": TEMPERATURE,
        "beta": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "gradient_checkpointing": False,
    }
    return GRPOConfig(**{**given, **changes})


class Watched(EntropyLabGRPOTrainer):
    """Notes what enters the loss."""

    def __init__(self, *args, **kwargs):
        self.seen = []
        super().__init__(*args, **kwargs)

    def _compute_loss(self, model, inputs):
        if self.model.training:
            mask = inputs["completion_mask"].bool()
            keys = [
                (tuple(prompt[inside].tolist()), tuple(ids[kept].tolist()))
                for prompt, inside, ids, kept in zip(
                    inputs["prompt_ids"], inputs["prompt_mask"].bool(), inputs["completion_ids"], mask, strict=True
                )
            ]
            generation = self._generations - len(self._waiting.drawn) + self._drawn_place(inputs)
            self.seen.append((generation, self.state.global_step + 1, keys, inputs["advantages"].clone()))
        return super()._compute_loss(model, inputs)

    def _drawn_place(self, inputs):
        first = int(inputs[ROW].min())
        return max(i for i, drawn in enumerate(self._waiting.drawn) if drawn.first_row <= first)


def trained(out, watch=Watched, reward=ends_well, **changes):
    ours = ("advantage", "advantage_params", "logp_after_every", "recorder", "correct", "record_to")
    own = {name: changes.pop(name) for name in ours if name in changes}
    further = {name: changes.pop(name) for name in ("callbacks", "eval_dataset", "rollout_func") if name in changes}
    policy = model()
    if changes.get("beta"):  # TRL loads the reference policy from where the policy was
        policy.save_pretrained(Path(out) / "base")
        policy = str(Path(out) / "base")
    trainer = watch(
        model=policy,
        processing_class=tokenizer(),
        reward_funcs=reward,
        args=settings(out, **changes),
        train_dataset=data(),
        **({} if watch is GRPOTrainer else {"advantage": "asym_grpo", **own}),
        **further,
    )
    trainer.train(resume_from_checkpoint=changes.get("resume_from_checkpoint"))
    return trainer


def rows_of(run):
    return run.scan().collect()


def closed_form(reward_G, beta_pos=0.9, beta_neg=0.4):
    p = np.mean(reward_G)
    if p in (0.0, 1.0):
        return np.zeros(len(reward_G))
    return np.where(np.array(reward_G) == 1, ((1 - p) / p) ** beta_pos, -((p / (1 - p)) ** beta_neg))


def first_logged(trainer, name):
    return {line["step"]: line[name] for line in trainer.state.log_history if name in line}


if __name__ == "__main__":  # one process of test_two_processes_write_one_run
    done = trained(
        sys.argv[1],
        max_steps=2,
        num_generations=2 * GROUP,
        logp_after_every=1,
        generation_kwargs={"min_new_tokens": LIMIT},
    )
    if done.accelerator.is_main_process:
        (Path(sys.argv[1]) / "state.json").write_text(json.dumps(done.state.log_history))
    done.accelerator.end_training()  # a process that leaves its group's threads behind may be aborted
