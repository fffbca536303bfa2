"""The normalisation with a gradient of its own."""

import pytest
import torch
from torch import nn
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from entropy_lab.rl.norm import use_closed_norm


@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 8), (2, 3, 4, 16)])
def test_values_and_gradients_are_those_of_transformers(shape):
    generator = torch.Generator().manual_seed(0)
    theirs = Qwen3RMSNorm(shape[-1], eps=1e-3)
    with torch.no_grad():
        theirs.weight.uniform_(-1, 2, generator=generator)
    ours = Qwen3RMSNorm(shape[-1], eps=1e-3)
    ours.load_state_dict(theirs.state_dict())
    use_closed_norm(nn.Sequential(ours))
    x, gradient = (torch.randn(shape, generator=generator) for _ in range(2))
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    for norm, at in zip((ours, theirs), inputs, strict=True):
        norm(at).backward(gradient)
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)


def test_other_precisions_stay_as_they_are():
    norm = Qwen3RMSNorm(8)
    x = torch.randn(3, 8).bfloat16()
    before = norm(x)
    use_closed_norm(nn.Sequential(norm))
    assert torch.equal(norm(x), before)
