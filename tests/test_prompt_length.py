"""Problems with prompts that are too long are left out; what does not fit is refused before weights are read."""

import json

import polars as pl
import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, PreTrainedTokenizerFast

from entropy_lab import recipes
from entropy_lab.errors import ParameterError
from entropy_lab.rl.policy import PolicySettings

torch.set_num_threads(1)
GRPO = recipes.load("trainers", "grpo")
SIZES = {"hidden": 16, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 8, "feed_forward": 16}
TASK = '''
from entropy_lab.tasks import Demonstration, Problem, Vocabulary

class Count:
    """Say how many a's there are."""

    name = "count"
    vocabulary = Vocabulary("a0123456789")

    def problems(self, rng, n):
        return [Problem(str(k), "a" * k, str(k)) for k in 1 + rng.permutation(n)]

    def demonstrations(self, rng, n):
        return [Demonstration(problem, problem.answer) for problem in self.problems(rng, n)]

    def verify(self, problem, completion, *, truncated=False):
        return completion == problem.answer

    def benchmarks(self, size):
        return {"long": [Problem("99", "a" * 99, "99")]}
'''


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ENTROPY_LAB_CACHE", str(tmp_path / "cache"))


def config(tmp_path, **changes):
    (tmp_path / "count.py").write_text(TASK)
    settings = {
        "task": str(tmp_path / "count.py"),
        "model": PolicySettings(**SIZES),
        "warm_start_steps": 0,
        "train_prompts": 12,
        "prompts_per_step": 4,
        "mini_batches": 1,
        "group_size": 2,
        "max_new_tokens": 4,
        "steps": 4,
        "eval_samples": 0,
    }
    return GRPO.Config(out=tmp_path / "run", **(settings | changes))


def test_longer_prompts_are_left_out_of_training_and_epochs_are_of_the_others(tmp_path):
    with pytest.warns(UserWarning, match="left out 3 of 12 training problems: prompts of more than 9 tokens"):
        run = GRPO.main(config(tmp_path, prompt_tokens=9))
    asked = pl.concat([pl.read_parquet(file) for file in sorted((run / "rollouts").iterdir())])
    assert asked["prompt"].str.len_chars().max() <= 9
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [0, 0, 1, 1]
    assert asked.group_by("epoch").agg(pl.col("prompt_id").n_unique())["prompt_id"].to_list() == [8, 8]
    assert pl.read_parquet(run / "evals/step-000000.parquet")["problem_id"].to_list() == ["99"]


def test_a_limit_that_leaves_too_few_is_refused(tmp_path):
    with (
        pytest.warns(UserWarning, match="left out 9"),
        pytest.raises(ParameterError, match="prompt_tokens: is 3, which leaves 3 training problems; prompts_per_step"),
    ):
        GRPO.main(config(tmp_path, prompt_tokens=3))


def test_what_does_not_fit_the_model_is_refused_before_its_weights_are_read(tmp_path):
    letters = Tokenizer(models.WordLevel({"<eos>": 0, "a": 1}, unk_token="<eos>"))
    letters.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    folder = tmp_path / "gpt2"
    PreTrainedTokenizerFast(tokenizer_object=letters, eos_token="<eos>").save_pretrained(folder)
    shape = GPT2Config(vocab_size=2, n_embd=8, n_layer=1, n_head=1, n_positions=64, bos_token_id=0, eos_token_id=0)
    shape.architectures = ["GPT2LMHeadModel"]
    shape.save_pretrained(folder)
    assert not list(folder.glob("*.safetensors"))
    model = PolicySettings(path=str(folder), prompt="plain")
    with pytest.raises(ParameterError, match=r"longest prompt has 99 tokens; .* 64\. Hint: --prompt-tokens N"):
        GRPO.main(config(tmp_path, model=model))
    assert not (tmp_path / "run" / "run.json").exists()
