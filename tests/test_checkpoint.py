"""Checkpoints: back to the bit, one at a time, and no damage goes unnoticed."""

import os
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from entropy_lab.advantages import modulation
from entropy_lab.errors import OutputError, ParameterError, RunFormatError
from entropy_lab.rl.checkpoint import Checkpoint, latest
from entropy_lab.run import RunWarning

torch.set_num_threads(1)


def trained(n_steps=2, size=3):
    """A network, half of whose layers ever had a gradient, and its optimizer."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(size, 2), torch.nn.Linear(2, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(n_steps):
        optimizer.zero_grad()
        model[0](torch.ones(size)).sum().backward()
        optimizer.step()
    return model, optimizer


def checkpoint(step=3, controller="entropy_target"):
    controllers = {"advantage": modulation(controller)}
    controllers["advantage"].at(0, 9, 0.1)
    return Checkpoint.of(step, 0.1 + 0.2, *trained(), controllers)


def test_a_checkpoint_comes_back_to_the_bit(tmp_path):
    model, optimizer = trained()
    controller = modulation("entropy_target")
    controller.at(0, 9, 1 / 3)
    kept = Checkpoint.of(3, 0.1 + 0.2, model, optimizer, {"advantage": controller})
    kept.save(tmp_path)
    found = latest(tmp_path)
    assert (found.step, found.seconds) == (3, 0.1 + 0.2)
    fresh, its = trained(n_steps=0)
    again = modulation("entropy_target")
    found.restore(fresh, its, {"advantage": again})
    assert again.state() == controller.state()
    for one, other in zip(model.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(one, other)
    assert [set(its.state[each]) for each in fresh.parameters()] == [{"step", "exp_avg", "exp_avg_sq"}] * 2 + [
        set()
    ] * 2
    for net, its_optimizer in ((model, optimizer), (fresh, its)):
        its_optimizer.zero_grad()
        net(torch.ones(3)).pow(2).sum().backward()
        its_optimizer.step()
    assert all(torch.equal(*both) for both in zip(model.parameters(), fresh.parameters(), strict=True))


def test_only_the_latest_stays_and_only_once_it_is_whole(tmp_path, monkeypatch):
    first = checkpoint(3).save(tmp_path)
    (tmp_path / "checkpoints" / ".step-000005.safetensors.0a1b2c3d.tmp").write_bytes(b"half")
    (tmp_path / "checkpoints" / "notes.txt").write_text("kept")

    def no_space(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "sync", no_space)
        with pytest.raises(OutputError, match="No space left"):
            checkpoint(5).save(tmp_path)
    assert latest(tmp_path).step == 3
    second = checkpoint(1_000_000).save(tmp_path)
    assert not first.exists()
    assert {file.name for file in second.parent.iterdir()} == {"step-1000000.safetensors", "notes.txt"}


def test_a_damaged_checkpoint_gives_one_line_and_the_one_before_is_used(tmp_path):
    older = checkpoint(3).save(tmp_path)
    whole = older.read_bytes()
    newer = older.with_name("step-000010.safetensors")
    newer.write_bytes(whole[: len(whole) // 2])
    with pytest.warns(RunWarning, match=r"step-000010.safetensors: cannot be read .* from step-000003") as told:
        assert latest(tmp_path).step == 3
    assert len(told) == 1
    older.unlink()
    with pytest.raises(RunFormatError, match=r"step-000010.safetensors: cannot be read"):
        latest(tmp_path)
    save_file({"weight": torch.zeros(2)}, newer)
    with pytest.raises(RunFormatError, match="is not a checkpoint"):
        latest(tmp_path)
    newer.unlink()
    assert latest(tmp_path) is None


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return checkpoint().save(tmp_path_factory.mktemp("file"))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_no_changed_byte_goes_unnoticed(file, data):
    sound = file.read_bytes()
    place = data.draw(st.integers(0, len(sound) - 1))
    changed = bytearray(sound)
    changed[place] ^= data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as folder:
        damaged = Path(folder) / "step-000003.safetensors"
        damaged.write_bytes(changed)
        try:
            found = Checkpoint.load(damaged)
        except RunFormatError:
            return
        kept = Checkpoint.load(file)  # a byte that says nothing, such as white space
        assert (found.step, found.seconds, found.controllers) == (kept.step, kept.seconds, kept.controllers)
        for of in ("weights", "moments"):
            assert all(torch.equal(getattr(found, of)[name], value) for name, value in getattr(kept, of).items())


def test_a_checkpoint_of_something_else_is_refused():
    model, optimizer = trained(size=4)
    with pytest.raises(ParameterError, match=r"other parameters than the run: 0.weight; those"):
        checkpoint().restore(model, optimizer, {"advantage": modulation("entropy_target")})
    controllers = {"advantage": modulation("entropy_target"), "bonus": modulation("grpo")}
    with pytest.raises(ParameterError, match="other controllers than the run: bonus"):
        checkpoint().restore(*trained(), controllers)
    with pytest.raises(ParameterError, match="grpo: the state to restore holds"):
        checkpoint().restore(*trained(), {"advantage": modulation("grpo")})
