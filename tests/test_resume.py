"""A run that was stopped goes on as if it never had been: to the bit, at every instant, each step once."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from entropy_lab import recipes
from entropy_lab.cli import main
from entropy_lab.configuration import difference, saved
from entropy_lab.errors import OutputError, ParameterError
from entropy_lab.files import alone
from entropy_lab.rl.checkpoint import Checkpoint
from entropy_lab.rl.policy import PolicySettings
from entropy_lab.writer import RunWriter, finished_updates
from tests.short_runs import metrics

torch.set_num_threads(1)
GRPO = recipes.load("trainers", "grpo")
SIZES = {"hidden": 32, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 16, "feed_forward": 32}
SETTINGS = {
    "warm_start_steps": 40,
    "steps": 5,
    "train_prompts": 8,
    "prompts_per_step": 4,
    "group_size": 4,
    "mini_batches": 2,
    "lr": 3e-3,
    "entropy_coef": 0.1,  # a gradient in every step: so small a policy solves nothing
    "eval_every": 2,
    "eval_problems": 2,
    "eval_samples": 1,
    "checkpoint_every": 2,
}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENTROPY_LAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def config(out, **changes):
    return GRPO.Config(out=Path(out), model=PolicySettings(**SIZES), **(SETTINGS | changes))


def contents(run):
    """Everything in a run but times: bytes of every Parquet file, metrics, weights, moments and controllers."""
    found = {str(file.relative_to(run)): file.read_bytes() for file in run.rglob("*.parquet")}
    rows = [{name: value for name, value in row.items() if not name.startswith("time")} for row in metrics(run)]
    about = json.loads((run / "run.json").read_text())
    found |= {"metrics": rows, "about": {**about, "created": None, "name": None}}
    (file,) = (run / "checkpoints").iterdir()
    last = Checkpoint.load(file)
    tensors = {f"{of}/{name}": value for of in ("weights", "moments") for name, value in getattr(last, of).items()}
    found |= {name: value.numpy().tobytes() for name, value in tensors.items()}
    return found | {"step": last.step, "controllers": last.controllers}


class Stopped(BaseException):
    """Nothing in the trainer may catch it: it stands for SIGKILL."""


def stop(monkeypatch, owner, method, step, *, when):
    """Let a run die right before or after a method is called for a step."""
    real = getattr(owner, method)

    def dies(self, *given):
        now = self.step if owner is Checkpoint else given[0]["step"] if method == "write_metrics" else given[0]
        if now == step and when == "before":
            raise Stopped
        done = real(self, *given)
        if now == step:
            raise Stopped
        return done

    monkeypatch.setattr(owner, method, dies)


def stopped(out, monkeypatch, owner, method, step, when="after", **changes):
    with monkeypatch.context() as patch:
        stop(patch, owner, method, step, when=when)
        with pytest.raises(Stopped):
            GRPO.main(config(out, **changes))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Runs that were never stopped, by method."""
    folder = tmp_path_factory.mktemp("whole")
    return {
        name: contents(GRPO.main(config(folder / name, advantage=name, checkpoint_every=5)))
        for name in ("grpo", "entropy_target")
    }


# Checkpoints come after steps 1, 3 and 4, validation passes after 0, 2 and 4.
INSTANTS = [
    ("grpo", RunWriter, "write_rollouts", 0, "before"),  # nothing but run.json
    ("grpo", RunWriter, "write_metrics", 1, "after"),  # no checkpoint yet
    ("grpo", RunWriter, "write_rollouts", 2, "after"),
    ("grpo", RunWriter, "write_evals", 2, "after"),
    ("entropy_target", RunWriter, "write_metrics", 2, "after"),
    ("entropy_target", Checkpoint, "save", 3, "before"),  # all of step 3 is there but its checkpoint
    ("entropy_target", Checkpoint, "save", 3, "after"),
    ("entropy_target", RunWriter, "write_metrics", 4, "after"),  # only the last checkpoint is missing
]


@pytest.mark.parametrize(("advantage", "owner", "method", "step", "when"), INSTANTS)
def test_a_run_stopped_at_any_instant_ends_as_one_never_stopped(
    whole, tmp_path, monkeypatch, advantage, owner, method, step, when
):
    run = tmp_path / advantage
    stopped(run, monkeypatch, owner, method, step, when, advantage=advantage)
    GRPO.main(config(run, advantage=advantage, resume=True))
    assert contents(run) == whole[advantage]
    assert finished_updates(run) == 5
    times = [row["time"] for row in metrics(run)]
    assert times == sorted(times)


def test_there_is_something_to_restore(whole):
    """Else the comparisons would prove nothing: the policy, the moments and the controller move in every run."""
    (state,) = whole["entropy_target"]["controllers"].values()
    assert state["beta_pos"] != state["beta_neg"]
    for run in whole.values():
        losses = [row["loss"] for row in run["metrics"]]
        assert len(set(losses)) == len(losses)
        assert all(row["grad_norm"] > 0 for row in run["metrics"])


def test_a_run_stopped_again_and_again_gets_there_and_loses_no_finished_step(whole, tmp_path, monkeypatch):
    run = tmp_path / "grpo"
    stopped(run, monkeypatch, RunWriter, "write_rollouts", 1, checkpoint_every=1)
    for step in (2, 4):
        latest_finished = run / "rollouts" / f"step-{finished_updates(run) - 1:06d}.parquet"
        written = latest_finished.stat().st_mtime_ns
        stopped(run, monkeypatch, RunWriter, "write_evals", step, checkpoint_every=1, resume=True)
        assert finished_updates(run) == step
        assert latest_finished.stat().st_mtime_ns == written
    GRPO.main(config(run, checkpoint_every=3, resume=True))  # how often may change: it makes no other run
    assert contents(run) == whole["grpo"]


KILLED = """
import os, signal, sys
from entropy_lab.cli import main
n_synced = 0
def die_in_the_third_checkpoint():
    global n_synced
    n_synced += 1
    if n_synced == 3:
        os.kill(os.getpid(), signal.SIGKILL)
os.sync = die_in_the_third_checkpoint
main(sys.argv[1:])
"""


def test_a_killed_process_goes_on_from_the_command_line(whole, tmp_path):
    run = tmp_path / "grpo"
    words = [f"--{name.replace('_', '-')}={value}" for name, value in (SETTINGS | {"checkpoint_every": 1}).items()]
    words += [f"--model.{name.replace('_', '-')}={value}" for name, value in SIZES.items()]
    command = ["train", "grpo", "--out", str(run), *words]
    killed = subprocess.run([sys.executable, "-c", KILLED, *command], stdout=subprocess.DEVNULL)
    assert killed.returncode == -signal.SIGKILL
    left = {file.name.partition(".safetensors")[0] for file in (run / "checkpoints").iterdir()}
    assert left == {"step-000001", ".step-000002"}
    assert finished_updates(run) == 3
    main([*command, "--resume"])
    assert contents(run) == whole["grpo"]


def touched(run):
    files = [file for file in run.rglob("*") if file.is_file() and file.name != ".lock"]  # opened anew by every start
    return {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


def test_a_complete_run_says_so_and_is_left_alone(tmp_path, capsys):
    run = GRPO.main(config(tmp_path / "run", steps=1, resume=True))  # on nothing it begins
    before = touched(run)
    capsys.readouterr()
    for every in (2, 0):
        GRPO.main(config(run, steps=1, resume=True, checkpoint_every=every))
        assert "run: 1 of 1 updates are done" in capsys.readouterr().out
    assert touched(run) == before
    without = GRPO.main(config(tmp_path / "without", steps=1, checkpoint_every=0))
    assert not (without / "checkpoints").exists()
    GRPO.main(config(without, steps=1, resume=True))
    assert "without: 1 of 1 updates are done" in capsys.readouterr().out


def test_other_settings_are_refused_by_name(tmp_path):
    run = GRPO.main(config(tmp_path / "run", steps=1))
    for changes, said in (
        ({"lr": 1e-4}, "lr 0.003, this says 0.0001"),
        ({"steps": 9}, "steps 1, this says 9"),
        ({"micro_batch": 8}, "micro_batch 64"),
        ({"advantage_params": {"ddof": 1}}, "advantage_params"),
    ):
        with pytest.raises(ParameterError, match=said):
            GRPO.main(config(run, **({"steps": 1} | changes), resume=True))
    with pytest.raises(OutputError, match="not empty"):
        GRPO.main(config(run, steps=1))


def test_a_place_without_a_run_to_go_on_with(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("kept")
    with pytest.raises(OutputError, match="not empty"):
        GRPO.main(config(tmp_path / "mine", resume=True))
    run = tmp_path / "run"
    stopped(run, monkeypatch, RunWriter, "write_rollouts", 1, checkpoint_every=0)
    with pytest.raises(OutputError, match="1 finished updates and no checkpoint"):
        GRPO.main(config(run, checkpoint_every=0, resume=True))
    assert len(list((run / "rollouts").iterdir())) == 2
    with alone(run), pytest.raises(OutputError, match="another process"):
        GRPO.main(config(run, resume=True))


def test_what_a_killed_start_left_is_no_obstacle(tmp_path):
    (tmp_path / ".run.json.0a1b2c3d.tmp").write_text('{"form')
    assert GRPO.prepare(config(tmp_path, resume=True)).config.out == tmp_path
    writer = RunWriter(tmp_path, method={"name": "grpo", "params": {}})
    for folder in ("rollouts", "evals"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / ".step-000000.parquet.0a1b2c3d.tmp").write_bytes(b"PAR1")
    (tmp_path / "rollouts" / ".mine").write_text("kept")
    RunWriter.resume(writer.path, after=-1)
    assert {file.name for file in tmp_path.rglob("*") if file.is_file()} == {"run.json", ".mine"}


def test_settings_are_compared_as_run_json_has_them(tmp_path):
    settings = config(tmp_path, advantage_params={"ddof": 1}, lr=3)
    made = json.loads(json.dumps(saved(settings)))
    assert not {"out", "resume", "checkpoint_every"} & set(made)
    assert difference(made, replace(settings, out=tmp_path / "moved", resume=True, checkpoint_every=7)) is None
    assert difference(made, replace(settings, advantage_params={})) == ("advantage_params", {"ddof": 1}, {})
    assert difference(made | {"gone": 1}, settings) == ("gone", 1, None)
