"""Any causal language model: loaded from a directory, asked through its template, trained; against transformers."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from entropy_lab import recipes
from entropy_lab.errors import ParameterError, UnknownNameError
from entropy_lab.rl.logprobs import score, token_scores
from entropy_lab.rl.micro_batches import micro_batches
from entropy_lab.rl.policy import PolicySettings, make_policy
from entropy_lab.rl.precision import compute_in
from entropy_lab.rl.pretrained import load_pretrained, load_tokenizer, stop_ids_of
from entropy_lab.rl.progress import TrainingProgress
from entropy_lab.rl.sequences import Sequences
from entropy_lab.rl.tokens import BOXED, ChatTokens
from entropy_lab.rl.transformers_engine import TransformersEngine
from entropy_lab.rl.update import MiniBatch, Objective, accumulate_gradients
from entropy_lab.rl.warm_start import WarmStart
from entropy_lab.tasks import get
from tests.short_runs import metrics

torch.set_num_threads(1)
GRPO = recipes.load("trainers", "grpo")
CHARACTERS = [*"0123456789+-*=:, ", "\n", *"abcdefghijklmnopqrstuvwxyzPW.{}\\<>|/"]
SPECIAL = ["<pad>", "<eos>", "<turn>"]
TEMPLATE = (
    "{% for m in messages %}<turn>{{ m.role }}\n{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant\n"
    "{% if enable_thinking is false %}<think></think>{% endif %}{% endif %}"
)
SMALL = {"vocab_size": len(SPECIAL) + len(CHARACTERS), "eos_token_id": 1, "pad_token_id": 0, "bos_token_id": None}
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 256}  # and its default dropout of 0.1
KINDS = {
    "qwen3": lambda: Qwen3ForCausalLM(
        Qwen3Config(**SMALL, **SIZES, num_key_value_heads=1, head_dim=8, tie_word_embeddings=True)
    ),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SMALL, **SIZES, tie_word_embeddings=False)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**SMALL, **GPT2)),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Directories as `save_pretrained` leaves them, by architecture."""
    words = {token: i for i, token in enumerate([*SPECIAL, *CHARACTERS])}
    letters = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    letters.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=letters, eos_token="<eos>", pad_token="<pad>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    tokenizer.chat_template = TEMPLATE
    folder = tmp_path_factory.mktemp("models")
    for name, make in KINDS.items():
        torch.manual_seed(0)
        model = make()
        model.generation_config.eos_token_id = [1, 2]
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


def config(out, path, **changes):
    policy = {"path": str(path), "prompt": "plain"} | changes.pop("model", {})
    tiny = GRPO.Config(
        out=Path(out),
        model=PolicySettings(**policy),
        steps=2,
        train_prompts=8,
        prompts_per_step=4,
        mini_batches=2,
        group_size=4,
        max_new_tokens=8,
        lr=3e-3,
        advantage="reinforce",
        eval_every=0,
    )
    return replace(tiny, **changes)


def sequences(rng, n=8):
    prompts = [rng.integers(3, 20, rng.integers(2, 9)).tolist() for _ in range(n)]
    return Sequences.join(prompts, [[*rng.integers(3, 20, rng.integers(1, 7)).tolist(), 1] for _ in range(n)])


def batch(seed=0):
    rng = np.random.default_rng(seed)
    made = sequences(rng)
    mask_BT = made.mask_BT
    advantage_BT = torch.from_numpy(rng.normal(size=mask_BT.shape)).float() * mask_BT
    old_BT = torch.from_numpy(rng.normal(-3.9, 0.1, mask_BT.shape)).float() * mask_BT
    return MiniBatch(made, old_BT, advantage_BT, torch.ones(len(mask_BT), dtype=torch.bool))


def gradients(model, **how):
    model.zero_grad()
    accumulate_gradients(model, batch(), Objective("token-mean", 8, entropy_coef=0.1), **how)
    return torch.cat([each.grad.flatten() for each in model.parameters()])


@pytest.mark.parametrize("kind", KINDS)
def test_log_probabilities_and_entropies_are_those_of_the_models_own_logits(saved, kind):
    model, made = load_pretrained(str(saved / kind)), sequences(np.random.default_rng(0))
    found = score(model, made, 0.7)
    for row in range(len(made.ids_BS)):
        start, n = int(made.n_prompt_B[row]), int(made.n_tokens_B[row])
        ids = made.ids_BS[row : row + 1, : start + n]
        with torch.no_grad():
            spread = (model(ids).logits[0, start - 1 : -1].double() / 0.7).log_softmax(-1)
        logp = spread[torch.arange(n), ids[0, start:]]
        np.testing.assert_allclose(found.logp_BT[row, :n], logp, atol=2e-6)
        np.testing.assert_allclose(found.entropy_BT[row, :n], -(spread.exp() * spread).sum(-1), atol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_trains_and_records_itself(saved, tmp_path, kind):
    run = GRPO.main(config(tmp_path / "run", saved / kind))
    frame = pl.concat([pl.read_parquet(file) for file in sorted((run / "rollouts").iterdir())])
    assert frame.height == 2 * 4 * 4
    np.testing.assert_allclose(frame["logp"], frame["sampler_logp"], atol=1e-4)
    assert (frame["logp"] - frame["logp_after"]).abs().max() > 1e-3
    ends = frame.with_columns(last=pl.col("token_ids").list.last())
    assert ends.filter(~pl.col("truncated"))["last"].is_in([1, 2]).all()
    assert ends.filter(pl.col("truncated"))["n_tokens"].eq(8).all()
    assert kind in json.loads((run / "run.json").read_text())["model"]


def test_dropout_is_off_even_in_training_mode(saved):
    model, made = load_pretrained(str(saved / "gpt2")).train(True), sequences(np.random.default_rng(0))
    assert torch.equal(score(model, made, 1.0).logp_BT, score(model, made, 1.0).logp_BT)


def test_a_response_ends_at_any_of_the_models_stop_tokens(saved):
    model = load_pretrained(str(saved / "qwen3"))
    assert stop_ids_of(model) == (1, 2)
    drawn = TransformersEngine(model, stop_ids=(1, 2)).generate(
        [[5, 6], [7]], 64, temperature=1.0, max_new_tokens=30, generator=torch.Generator().manual_seed(0)
    )
    last = {row[-1] for row, cut in zip(drawn.responses(), drawn.truncated_B, strict=True) if not cut}
    assert last == {1, 2}
    assert all(not {1, 2} & set(row[:-1]) for row in drawn.responses())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", [{"micro_batch": 1}, {"micro_tokens": 1}, {"micro_tokens": 30}])
def test_micro_batches_have_the_gradient_of_the_whole(saved, kind, how):
    model = load_pretrained(str(saved / kind))
    whole = gradients(model, micro_batch=8)
    torch.testing.assert_close(gradients(model, **how), whole, atol=1e-5 * float(whole.abs().max()), rtol=1e-5)


def test_a_token_budget_is_kept_where_rows_allow():
    made = sequences(np.random.default_rng(3), n=50)
    length_B = made.n_prompt_B + made.n_tokens_B
    parts = list(micro_batches(made, torch.arange(50), size=8, tokens=40))
    assert sorted(torch.cat(parts).tolist()) == list(range(50))
    assert all(len(part) == 1 or len(part) * int(length_B[part].max()) <= 40 for part in parts)
    assert max(map(len, parts)) <= 8
    assert len(parts) < 50


def test_gradient_checkpointing_changes_no_gradient(saved):
    model = load_pretrained(str(saved / "qwen3"))
    whole = gradients(model)
    settings = PolicySettings(path=str(saved / "qwen3"), gradient_checkpointing=True)
    again = make_policy(settings, get("countdown"), WarmStart(), TrainingProgress(), (), 8).model
    calls = []
    again.model.layers[0].input_layernorm.register_forward_hook(lambda *_: calls.append(1))
    torch.testing.assert_close(gradients(again.train(True)), whole, atol=1e-7, rtol=1e-5)
    assert len(calls) == 2  # forward, and once more in the backward pass


def test_bfloat16_multiplies_in_bfloat16_and_keeps_float32_weights(saved, tmp_path):
    exact, rounded = (load_pretrained(str(saved / "qwen3"), dtype) for dtype in ("float32", "bfloat16"))
    made = sequences(np.random.default_rng(0))
    difference = (score(rounded, made, 1.0).logp_BT - score(exact, made, 1.0).logp_BT).abs()
    assert 1e-5 < float(difference.max()) < 0.05
    slope = torch.nn.functional.cosine_similarity(gradients(rounded), gradients(exact), dim=0)
    assert float(slope) > 0.999
    assert {each.dtype for each in rounded.parameters()} == {torch.float32}
    assert token_scores(rounded, made, 1.0).logp_BT.dtype == torch.float32
    settings = {"dtype": "bfloat16", "gradient_checkpointing": True}
    run = GRPO.main(config(tmp_path / "run", saved / "qwen3", model=settings, micro_tokens=64))
    assert all(np.isfinite(row["loss"]) for row in metrics(run))


def test_prompts_follow_the_chat_template_without_thinking(saved):
    tokenizer = load_tokenizer(str(saved / "qwen3"))
    user, answer = "<turn>user\n1+1", "<turn>assistant\n<think></think>"
    assert ChatTokens(tokenizer, "plain").text("1+1") == "1+1"
    assert ChatTokens(tokenizer, "chat").text("1+1") == user + answer
    assert ChatTokens(tokenizer, "chat-boxed").text("1+1") == f"{user}\n{BOXED}{answer}"
    assert ChatTokens(tokenizer, "system-boxed").text("1+1") == f"<turn>system\n{BOXED}{user}{answer}"
    tokens = ChatTokens(tokenizer, "chat", (2, 1))
    assert tokens.stop_ids == (2, 1)
    assert tokens.encode("1+1")[0] == 2
    assert tokens.decode([4, 2, 1]) == "1"


def test_problems_from_a_file_are_trained_on_with_a_template(saved, tmp_path):
    pytest.importorskip("math_verify")
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(f'{{"problem": "what is {i} + 1", "answer": "{i + 1}"}}\n' for i in range(8)))
    settings = {"task": "math", "task_params": {"train": str(file), "workers": 1}, "model": {"prompt": "chat-boxed"}}
    run = GRPO.main(config(tmp_path / "run", saved / "qwen3", **settings))
    frame = pl.read_parquet(run / "rollouts/step-000000.parquet")
    assert frame["prompt"].str.starts_with("what is").all()
    assert frame["correct"].eq(False).all()  # random weights box nothing
    assert all(row["unverified"] == 0 for row in metrics(run))


OPTIONS = {
    "dual_clip": ({"dual_clip": 1.5}, {"clip_fraction_dual"}),
    "clip_cov": ({"clip_cov": 0.1, "ppo_epochs": 2}, {"chosen_fraction"}),
    "kl_cov": ({"kl_cov": 0.1, "choose_by": "old"}, {"chosen_fraction"}),
    "forking": ({"forking_share": 0.2}, set()),
    "kl": ({"kl_coef": 0.1, "kl_estimator": "k2"}, {"reference_kl"}),
    "adaptive": ({"entropy_coef_target": 9.0}, {"entropy_coef"}),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_of_the_loss_is_a_setting(saved, tmp_path, option):
    settings, logged = OPTIONS[option]
    plain, run = (
        GRPO.main(config(tmp_path / name, saved / "qwen3", **more)) for name, more in (("a", {}), ("b", settings))
    )
    first, other = metrics(plain)[-1], metrics(run)[-1]
    assert other.keys() - first.keys() == logged
    assert all(np.isfinite(other[name]) for name in logged)
    about = json.loads((run / "run.json").read_text())["method"]
    assert about["params"] == {name: value for name, value in settings.items() if name in about["params"]} != {}
    assert " + " in about["label"]
    after = [pl.read_parquet(each / "rollouts/step-000001.parquet")["logp_after"].to_list() for each in (plain, run)]
    if option == "adaptive":
        assert [row["entropy_coef"] for row in metrics(run)] == [0, pytest.approx(1e-4)]
    elif option != "dual_clip":  # no ratio is that large here
        assert after[0] != after[1]


def test_the_reference_is_the_base_policy(saved, tmp_path):
    run = GRPO.main(config(tmp_path / "run", saved / "qwen3", kl_coef=0.1, mini_batches=1))
    first, second = metrics(run)
    assert first["reference_kl"] == pytest.approx(0, abs=1e-6)
    assert second["reference_kl"] > 1e-6


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"entropy_coef": 0.1, "entropy_coef_target": 0.5}, "one of them"),
        ({"kl_cov": 0.1, "clip_cov": 0.1}, "KL-Cov clips nothing"),
        ({"forking_share": 0.0}, "above 0"),
        ({"max_new_tokens": 250}, "together at most the model's 256"),
        ({"task": "./nothing.py"}, "does not exist"),
    ],
)
def test_settings_that_do_not_fit_are_refused(saved, tmp_path, settings, says):
    with pytest.raises((ParameterError, UnknownNameError), match=says):
        GRPO.main(config(tmp_path / "run", saved / "gpt2", **settings))
    assert not (tmp_path / "run" / "run.json").exists()


def test_models_and_choices_that_do_not_fit_are_refused(saved, tmp_path):
    with pytest.raises(UnknownNameError, match="cannot be loaded"):
        load_pretrained(str(tmp_path))
    with pytest.raises(ParameterError, match="not here"):
        load_pretrained(str(saved / "qwen3"), device="xpu:7")
    with pytest.raises(ParameterError, match=r"model\.dtype"):
        compute_in(torch.nn.Linear(1, 1), "float16")
    with pytest.raises(ParameterError, match="prompt"):
        PolicySettings(prompt="shout")
    with pytest.raises(ParameterError, match=r"model\.device: is 'cuda', and a model made in code"):
        make_policy(PolicySettings(device="cuda"), get("countdown"), WarmStart(), TrainingProgress(), (), 8)
    bare = load_tokenizer(str(saved / "qwen3"))
    bare.chat_template = None
    with pytest.raises(ParameterError, match="no chat template"):
        ChatTokens(bare, "chat")
    bare.eos_token = None
    with pytest.raises(ParameterError, match="no end-of-sequence"):
        ChatTokens(bare, "plain")
    capped = Gemma2ForCausalLM(
        Gemma2Config(**SMALL, **SIZES, num_key_value_heads=1, head_dim=8, final_logit_softcapping=0.1)
    )
    capped.save_pretrained(tmp_path / "gemma2")
    with pytest.raises(ParameterError, match="Gemma2ForCausalLM"):
        load_pretrained(str(tmp_path / "gemma2"))
