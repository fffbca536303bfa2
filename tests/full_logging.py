"""Runs that are killed, interrupted and gone on with, read back by the packages that they were logged to.

``make test-logging``: in an environment of its own, with the real packages and without a network.
"""

import json
import math
import os
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import numpy as np
import pytest

from entropy_lab.errors import OutputError
from entropy_lab.rl.sinks import SINKS, LoggedRun, accuracies, open_sinks
from entropy_lab.rl.sinks.sink import numbers
from entropy_lab.run import open_run
from entropy_lab.writer import RunWriter

EVERY = 4  # steps between the checkpoints of the trainer below


def train(path, names, steps, stop_at, how):
    """What a trainer does, with numbers that follow from the step; stopped in the middle of a step."""
    run, checkpoint = Path(path), Path(path).with_suffix(".checkpoint")
    done = int(checkpoint.read_text()) if checkpoint.exists() else 0
    if (run / "run.json").exists():
        writer = RunWriter.resume(run, after=done - 1)
    else:
        method = {"name": "grpo", "params": {}, "label": "GRPO"}
        config = {"lr": 1e-4, "log": ["a"], "model": {"layers": 2, "path": None}, "resume": False}
        writer = RunWriter(run, method=method, setting="Countdown", config=config)
    with open_sinks(names, run) as sinks:
        for step in range(done, steps):
            rng = np.random.default_rng(step)
            row = {"step": step, "epoch": 0, "time": 0.1 * step, "entropy": rng.random(), "n_tokens": int(1e7) + step}
            row["loss"] = math.nan if step % 5 == 1 else -rng.random()
            writer.write_metrics(row)
            validated = {}
            if step % 3 == 0:
                answers = {
                    "benchmark": ["aime 24"] * 4 + ["e"] * 4,
                    "problem_id": ["1", "2", "1", "2"] * 2,
                    "sample": [0] * 8,
                    "greedy": [True, True, False, False] * 2,
                    "correct": (rng.random(8) < 0.5).tolist(),
                }
                writer.write_evals(step, answers)
                validated = accuracies(answers)
            if step == stop_at and how == "kill before":
                os.kill(os.getpid(), signal.SIGKILL)
            sinks.log(step, row | validated)
            if step == stop_at:
                if how == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                if how == "interrupt":
                    os.kill(os.getpid(), signal.SIGINT)
                if how == "error":
                    raise RuntimeError("out of memory")
            if (step + 1) % EVERY == 0:
                checkpoint.write_text(str(step + 1))


def recorded(path):
    """Step -> every number that a sink was to get, from the run's own files."""
    run = open_run(path)
    validated = {frame["step"][0]: accuracies(frame) for frame in run.evals()}
    return {row["step"]: numbers(row) | validated.get(row["step"], {}) for row in run.metrics().iter_rows(named=True)}


def told_of(path):
    return LoggedRun.of(open_run(path))


def from_tensorboard(path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(path / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    [config] = events.Tensors("config/text_summary")
    assert f'"group": "{told_of(path).group}"' in config.tensor_proto.string_val[0].decode()
    rows = {}
    for tag in events.Tags()["scalars"]:
        for event in events.Scalars(tag):
            assert tag not in rows.setdefault(event.step, {}), f"{tag} twice at {event.step}"
            rows[event.step][tag] = event.value
    return rows


def wandb_records(file):
    """Records of a .wandb file: LevelDB's log format, blocks of 32 KiB, after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, parts = file.read_bytes(), 7, b""
    assert data[:4] in (b":W&B", b"")  # empty where a process was killed at once
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        if left < 7 or kind == 0:
            at += left
            continue
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def from_wandb(path):
    rows, ids, told = {}, set(), told_of(path)
    for file in sorted(path.glob("wandb/offline-run-*/*.wandb")):
        for record in wandb_records(file):
            if record.HasField("run"):
                ids.add(record.run.run_id)
                assert (record.run.display_name, record.run.run_group) == (told.name, told.group)
                assert record.run.project == "entropy-lab"
            if record.HasField("history"):
                items = {item.key or ".".join(item.nested_key): item for item in record.history.item}
                step = record.history.step.num
                assert step not in rows, f"step {step} twice"
                rows[step] = {k: json.loads(v.value_json) for k, v in items.items() if not k.startswith("_")}
    assert len(ids) == 1
    return rows


def from_trackio(path):
    import trackio

    name = json.loads((path / "sinks.json").read_text())["trackio"]["name"]
    [run] = [run for run in trackio.Api().runs("entropy-lab") if run.name == name]
    told = told_of(path)
    assert (run.config["_Group"], run.config["method"]) == (told.group, told.config["method"])
    [database] = Path(os.environ["TRACKIO_DIR"]).glob("*.db")
    rows = {}
    for step, values in sqlite3.connect(database).execute(
        "select step, metrics from metrics where run_id = ?", (run.id,)
    ):
        assert step not in rows, f"step {step} twice"
        rows[step] = json.loads(values)
    return rows


READERS = {"tensorboard": from_tensorboard, "wandb": from_wandb, "trackio": from_trackio}


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory):
    """Everything stays on this machine: trackio reads its folder once, when it is imported."""
    folder = tmp_path_factory.mktemp("trackio")
    values = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "TRACKIO_DIR": str(folder), "HF_HUB_OFFLINE": "1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        yield


def start(path, names, steps, stop_at=-1, how=""):
    words = [sys.executable, __file__, str(path), ",".join(names), str(steps), str(stop_at), how]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)


def assert_same(found, expected, name):
    assert sorted(found) == sorted(expected)
    for step, values in expected.items():
        if name == "tensorboard":  # event files hold float32
            values = {tag: float(np.float32(value)) for tag, value in values.items()}
        assert found[step] == values, step


def untimed(rows):
    return {
        step: {name: value for name, value in values.items() if not name.startswith("train/time")}
        for step, values in rows.items()
    }


def test_every_sink_has_a_reader():
    assert set(READERS) == set(SINKS)


def test_an_undisturbed_run_is_the_record_in_every_sink(tmp_path):
    done = start(tmp_path / "whole", SINKS, 10)
    assert done.returncode == 0, done.stderr
    expected = recorded(tmp_path / "whole")
    assert len(expected) == 10
    for name, read in READERS.items():
        assert_same(read(tmp_path / "whole"), expected, name)


ENDS = {"error": 1, "interrupt": -signal.SIGINT, "kill": -signal.SIGKILL, "kill before": -signal.SIGKILL}


@pytest.mark.parametrize("how", ENDS)
def test_a_run_that_was_stopped_and_gone_on_with_is_there_once(tmp_path, how):
    path = tmp_path / how.replace(" ", "-")
    for stop_at in (6, 9):  # the checkpoints are behind steps 3 and 7: 4 to 6 and 8 to 9 are made again
        stopped = start(path, SINKS, 12, stop_at, how)
        assert stopped.returncode == ENDS[how], stopped.stderr
    done = start(path, SINKS, 12)
    assert done.returncode == 0, done.stderr
    expected = recorded(path)
    assert sorted(expected) == list(range(12))
    for name, read in READERS.items():
        assert_same(read(path), expected, name)


def test_a_sink_that_is_asked_for_later_gets_the_run_from_its_beginning(tmp_path):
    assert start(tmp_path / "later", [], 12, 6, "kill").returncode == -signal.SIGKILL
    assert start(tmp_path / "later", SINKS, 12).returncode == 0
    for name, read in READERS.items():
        assert_same(read(tmp_path / "later"), recorded(tmp_path / "later"), name)


def test_the_trainer_itself_interrupted_and_resumed(tmp_path):
    sizes = {"hidden": 32, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 16, "feed_forward": 32}
    small = {"warm_start_steps": 2, "train_prompts": 8, "prompts_per_step": 4, "group_size": 2, "mini_batches": 2}
    often = {"steps": 12, "checkpoint_every": 5, "eval_every": 3, "eval_problems": 4, "eval_samples": 2}
    settings = {**small, **often, **{f"model.{name}": size for name, size in sizes.items()}}
    run = tmp_path / "trained"
    words = [sys.executable, "-m", "entropy_lab.cli", "train", "grpo", "--out", str(run), "--log-to", *SINKS]
    words += [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    environment = {**os.environ, "ENTROPY_LAB_CACHE": str(tmp_path / "cache")}
    metrics = run / "metrics.jsonl"
    with subprocess.Popen(words, env=environment) as first:
        while first.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") >= 7):
            time.sleep(0.01)
        first.send_signal(signal.SIGINT)
        assert first.wait(timeout=120) == 130
    done = subprocess.run([*words, "--resume"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = recorded(run)
    assert sorted(expected) == list(range(12))
    assert {"validation/greedy", "validation/avg_at_2"} <= expected[3].keys()
    assert_same(from_tensorboard(run), expected, "tensorboard")
    for name in ("wandb", "trackio"):  # what was made again is there as it was the first time: equal but for times
        assert_same(untimed(READERS[name](run)), untimed(expected), name)


def test_two_runs_of_one_name_stay_apart(tmp_path):
    for place in ("a", "b"):
        assert start(tmp_path / place / "same", ["trackio"], 3).returncode == 0
    assert start(tmp_path / "a" / "same", ["trackio"], 6).returncode == 0
    assert len(from_trackio(tmp_path / "a" / "same")) == 6
    assert len(from_trackio(tmp_path / "b" / "same")) == 3


def test_tensorboard_itself_shows_every_step_once(tmp_path):
    """TensorBoard's server reads event files with a reader of its own, in Rust."""
    start(tmp_path / "shown", ["tensorboard"], 12, 6, "kill")
    start(tmp_path / "shown", ["tensorboard"], 12)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    words = ["--logdir", str(tmp_path), "--port", str(port), "--reload_interval", "1"]
    address = f"http://localhost:{port}/data/plugin/scalars/scalars?tag={quote('train/entropy')}&run="
    words = [sys.executable, "-m", "tensorboard.main", *words]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as server:
        for _ in range(120):
            try:
                with urlopen(address + quote("shown/tensorboard", safe="")) as answer:
                    shown = json.load(answer)
            except OSError:  # not up yet, or has not read the run yet
                shown = []
            if len(shown) == 12:
                break
            time.sleep(0.5)
        server.terminate()
    expected = recorded(tmp_path / "shown")
    assert [(step, np.float32(value)) for _, step, value in shown] == [
        (step, np.float32(values["train/entropy"])) for step, values in expected.items()
    ]


def test_what_cannot_start_is_one_line(tmp_path, monkeypatch):
    writer = RunWriter(tmp_path / "run", method={"name": "grpo", "params": {}})
    (writer.path / "tensorboard").write_text("a file where the folder should be")
    with pytest.raises(OutputError, match=r"log_to tensorboard: cannot be started"):
        open_sinks(["tensorboard"], writer.path)
    monkeypatch.setenv("WANDB_MODE", "nonsense")
    with pytest.raises(OutputError, match=r"log_to wandb: cannot be started.*Hint: wandb login"):
        open_sinks(["wandb"], writer.path)


if __name__ == "__main__":
    place, listed, n_steps, stop, manner = sys.argv[1:]
    train(place, [name for name in listed.split(",") if name], int(n_steps), int(stop), manner)
