"""Gradients are clipped by their norm; one that is not finite ends the run before it reaches a weight or checkpoint."""

import pytest
import torch
from torch import nn

from entropy_lab.errors import ParameterError
from entropy_lab.rl.checkpoint import latest
from entropy_lab.rl.update import clip_gradients
from tests.short_runs import GRPO, config


def with_gradients(*values):
    model = nn.ParameterList([nn.Parameter(torch.zeros(2)) for _ in values])
    for parameter, value in zip(model, values, strict=True):
        parameter.grad = None if value is None else torch.tensor(value)
    return model


def test_the_norm_is_that_of_all_parameters_together():
    model = with_gradients([3.0, 0.0], None, [0.0, -4.0])
    assert clip_gradients(model, max_norm=10.0) == pytest.approx(5)
    assert model[2].grad.tolist() == [0, -4]
    assert clip_gradients(model, max_norm=2.5) == pytest.approx(5)
    assert model[0].grad.tolist() == pytest.approx([1.5, 0], rel=1e-5)
    assert clip_gradients(with_gradients(None), max_norm=1.0) == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(value):
    with pytest.raises(ParameterError, match=r"gradient: has the norm (nan|inf); a finite number"):
        clip_gradients(with_gradients([1.0, 1.0], [value, 0.0]), max_norm=1.0)


def test_a_run_that_diverges_ends_at_the_gradient_with_its_last_checkpoint(tmp_path):
    settings = {"entropy_coef": 0.1, "mini_batches": 4, "increments_every": 100, "checkpoint_every": 1}
    diverging = config(tmp_path / "run", lr=1e18, lr_rise=0, **settings)
    with pytest.raises(ParameterError, match="gradient: has the norm nan"):
        GRPO.main(diverging)
    assert latest(tmp_path / "run") is None
