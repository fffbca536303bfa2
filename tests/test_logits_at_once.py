"""Few logits are made at once and many block by block: in either type, how a batch is cut changes no number."""

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3Config

from entropy_lab.rl import logprobs
from entropy_lab.rl.logprobs import token_scores
from entropy_lab.rl.precision import compute_in
from entropy_lab.rl.sequences import Sequences

torch.set_num_threads(1)
CONFIG = Qwen3Config(
    vocab_size=300,
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    intermediate_size=32,
)


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def model(request):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = AutoModelForCausalLM.from_config(CONFIG).train(False)
    with torch.no_grad():
        made.get_output_embeddings().weight.mul_(20)  # logits as large as a trained model's, where rounding shows
    compute_in(made, request.param)
    return made


def test_scores_and_gradients_are_those_of_blocks(model, monkeypatch):
    draw = torch.Generator().manual_seed(0)
    prompts, responses = (torch.randint(300, (4, n), generator=draw).tolist() for n in (5, 9))
    found = []
    for few in (2**20, 0):
        monkeypatch.setattr(logprobs, "_FEW_LOGITS", few)
        model.zero_grad()
        scores = token_scores(model, Sequences.join(prompts, responses), temperature=0.7)
        (scores.logp_BT.sum() + 0.1 * scores.entropy_BT.sum()).backward()
        found.append((*scores, *(each.grad.clone() for each in model.parameters())))
    assert float(found[0][0].detach().min()) < -5
    for index, (at_once, in_blocks) in enumerate(zip(*found, strict=True)):
        rounding = 1e-4 if index < 2 or model.compute_dtype is torch.float32 else 2e-2 * float(in_blocks.abs().max())
        torch.testing.assert_close(at_once, in_blocks, atol=rounding, rtol=1e-3)
