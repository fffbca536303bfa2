"""The warm start: made once, kept, mended when damaged."""

import threading

import pytest
import torch

from entropy_lab.errors import OutputError
from entropy_lab.rl import warm_start as warm
from entropy_lab.rl.model import ModelSizes
from entropy_lab.tasks.countdown import Countdown

SIZES = ModelSizes(hidden=48, layers=2, heads=3, kv_heads=1, head_dim=16, feed_forward=96)
TASK = Countdown()


def test_warm_start_is_made_once_and_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("ENTROPY_LAB_CACHE", str(tmp_path / "new" / "cache"))
    losses, settings = [], warm.WarmStart(steps=15)

    def make(settings):
        return warm.warm_start(TASK, SIZES, settings, progress=lambda done, total, loss: losses.append((done, loss)))

    first = make(settings).state_dict()
    assert [done for done, _ in losses] == list(range(1, 16))
    assert losses[-1][1] < losses[0][1]
    again = make(settings).state_dict()
    assert len(losses) == 15  # taken from the cache
    assert all(torch.equal(weight, again[name]) for name, weight in first.items())
    other = make(warm.WarmStart(steps=15, seed=1)).state_dict()
    assert len(losses) == 30
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])
    for changed in (warm.WarmStart(steps=14), warm.WarmStart(steps=15, lr=1e-3)):
        assert not torch.equal(first["lm_head.weight"], make(changed).state_dict()["lm_head.weight"])
    assert len(list((tmp_path / "new" / "cache").glob("*.safetensors"))) == 4


@pytest.mark.parametrize(
    "damage", [lambda data: data[:100], lambda data: b"", lambda data: data.replace(b"norm", b"form")]
)
def test_damaged_weights_in_the_cache_are_made_anew(monkeypatch, tmp_path, damage):
    monkeypatch.setenv("ENTROPY_LAB_CACHE", str(tmp_path))
    settings = warm.WarmStart(steps=2)
    first = warm.warm_start(TASK, SIZES, settings).state_dict()
    (file,) = tmp_path.glob("*.safetensors")
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    again = warm.warm_start(TASK, SIZES, settings).state_dict()
    assert all(torch.equal(weight, again[name]) for name, weight in first.items())
    assert file.read_bytes() == whole


def test_runs_that_begin_together_make_the_weights_once(monkeypatch, tmp_path):
    monkeypatch.setenv("ENTROPY_LAB_CACHE", str(tmp_path))
    trained, done = [], []

    def begin():
        settings = warm.WarmStart(steps=3)
        model = warm.warm_start(TASK, SIZES, settings, progress=lambda step, total, loss: trained.append(step))
        done.append(model.state_dict())

    threads = [threading.Thread(target=begin) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert trained == [1, 2, 3]
    assert all(torch.equal(done[0]["lm_head.weight"], each["lm_head.weight"]) for each in done[1:])


def test_a_cache_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ENTROPY_LAB_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="ENTROPY_LAB_CACHE"):
        warm.warm_start(TASK, SIZES, warm.WarmStart(steps=0))


def test_warm_start_learning_rate_rises_and_falls():
    settings = warm.WarmStart(steps=450)
    rates = [settings.lr_at(step) for step in range(450)]
    assert max(rates) == rates[49] == settings.lr
    assert rates[:50] == sorted(rates[:50])
    assert rates[49:] == sorted(rates[49:], reverse=True)
    assert rates[-1] == pytest.approx(0.1 * settings.lr, rel=0.05)
