"""Prompts that are read once for several responses: the same values and gradients, fewer tokens."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from entropy_lab.rl import hidden_states
from entropy_lab.rl.hidden_states import response_states, shares_prompts
from entropy_lab.rl.micro_batches import Extent, Row, micro_batches, prompts_apart
from entropy_lab.rl.model import ModelSizes, build_model
from entropy_lab.rl.sequences import Sequences

SMALL = {"vocab_size": 20, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
MODELS = {
    "qwen3": lambda: build_model(ModelSizes(hidden=32, layers=2, feed_forward=48, head_dim=8), 20, seed=0),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SMALL, num_key_value_heads=2)).eval(),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=20, n_positions=64, n_embd=32, n_layer=2, n_head=4, resid_pdrop=0, embd_pdrop=0)
    ).eval(),
}


def rows(rng, n_prompts, group_size, longest=9):
    prompts = [rng.integers(2, 20, rng.integers(1, 12)).tolist() for _ in range(n_prompts)]
    asked = [prompt for prompt in prompts for _ in range(group_size)]
    return Sequences.join(asked, [rng.integers(2, 20, rng.integers(0, longest)).tolist() for _ in asked])


def values_and_gradients(model, sequences, weight_ND):
    model.zero_grad()
    states_ND = response_states(model, sequences)
    (states_ND * weight_ND).sum().backward()
    return states_ND.detach(), {
        name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None
    }


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("seed", [0, 1])
def test_reading_prompts_once_changes_neither_values_nor_gradients(name, seed, monkeypatch):
    torch.manual_seed(seed)
    model, sequences = MODELS[name](), rows(np.random.default_rng(seed), 3, 5)
    assert shares_prompts(model)
    assert prompts_apart(sequences)
    weight_ND = torch.randn(int(sequences.n_tokens_B.sum()), 32)
    states_ND, gradients = values_and_gradients(model, sequences, weight_ND)
    monkeypatch.setattr(hidden_states, "prompts_apart", lambda sequences: False)
    expected_ND, expected = values_and_gradients(model, sequences, weight_ND)
    torch.testing.assert_close(states_ND, expected_ND, atol=1e-5, rtol=1e-4)
    assert gradients.keys() == expected.keys()
    for parameter, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[parameter], atol=2e-4, rtol=2e-4, msg=parameter)


@pytest.mark.parametrize("longest", [1, 2])
def test_responses_of_at_most_one_token_need_their_prompts_only(longest):
    model, sequences = MODELS["qwen3"](), rows(np.random.default_rng(5), 4, 6, longest)
    n_rows = int((sequences.n_tokens_B > 0).sum())
    assert response_states(model, sequences).shape == (n_rows, 32)


def test_windows_and_recomputed_activations_are_read_at_once():
    windowed = MistralForCausalLM(MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=4))
    assert not shares_prompts(windowed)
    model = MODELS["qwen3"]()
    for module in model.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = True
    assert shares_prompts(model)  # scoring recomputes nothing
    model.train()
    assert not shares_prompts(model)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10**6),
    st.integers(1, 5),
    st.integers(1, 6),
    st.integers(1, 9),
    st.sampled_from([0, 1, 20, 60]),
    st.booleans(),
)
def test_every_row_is_in_one_batch_within_its_limits(seed, n_prompts, group_size, size, tokens, shared):
    sequences = rows(np.random.default_rng(seed), n_prompts, group_size)
    index_B = torch.arange(n_prompts * group_size).flip(0)
    batches = micro_batches(sequences, index_B, size, tokens, shared=shared)
    assert sorted(torch.cat(batches).tolist()) == sorted(index_B.tolist())
    for batch in batches:
        assert len(batch) <= size
        extent = Extent(shared)
        for b in batch.tolist():
            extent.add(Row(int(sequences.n_prompt_B[b]), int(sequences.n_tokens_B[b]), int(sequences.prompt_B[b])))
        assert not tokens or len(batch) == 1 or extent.tokens <= tokens


def test_long_prompts_keep_their_groups_together():
    responses = [[2] * length for length in (1, 9, 5, 3)] * 8
    asked = [[group + 2] * 40 for group in range(8) for _ in range(4)]
    sequences = Sequences.join(asked, responses)
    batches = micro_batches(sequences, torch.arange(32), 4, shared=True)
    assert all(len(sequences.prompt_B[batch].unique()) == 1 for batch in batches)
