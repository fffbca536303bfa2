"""A run that goes on does not hold the checkpoint it began from: three times the weights, for as long as it trains."""

import gc

import pytest
import torch

from entropy_lab import recipes
from entropy_lab.rl.checkpoint import Checkpoint
from entropy_lab.rl.policy import PolicySettings
from entropy_lab.writer import RunWriter

torch.set_num_threads(1)
GRPO = recipes.load("trainers", "grpo")
SIZES = {"hidden": 16, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 8, "feed_forward": 16}


class Stopped(BaseException):
    """Nothing in the trainer may catch it."""


def test_the_checkpoint_is_gone_when_training_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("ENTROPY_LAB_CACHE", str(tmp_path / "cache"))
    write, alive, stop_at = RunWriter.write_metrics, {}, {1}

    def watched(self, row):
        write(self, row)
        alive[row["step"]] = sum(type(each) is Checkpoint for each in gc.get_objects())
        if row["step"] in stop_at:
            raise Stopped

    monkeypatch.setattr(RunWriter, "write_metrics", watched)
    sizes = {"steps": 3, "train_prompts": 4, "prompts_per_step": 4, "group_size": 2, "mini_batches": 1}
    settings = {**sizes, "eval_every": 0, "warm_start_steps": 0, "entropy_coef": 0.1, "checkpoint_every": 1}
    config = GRPO.Config(out=tmp_path / "run", model=PolicySettings(**SIZES), resume=True, **settings)
    with pytest.raises(Stopped):
        GRPO.main(config)
    stop_at.clear()
    alive.clear()
    GRPO.main(config)
    assert alive == {1: 0, 2: 0}
