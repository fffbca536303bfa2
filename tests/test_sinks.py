"""Sinks: fed once per update whatever happens to them, and told what they lack when a run goes on."""

import sys
import tomllib
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entropy_lab.errors import MissingExtraError, OutputError, ParameterError, RunFormatError, UnknownNameError
from entropy_lab.rl.sinks import LoggedRun, Sinks, accuracies, open_sinks, opening, require_sinks
from entropy_lab.rl.sinks.note import FILE, read_note, write_note
from entropy_lab.rl.sinks.sink import numbers
from entropy_lab.run import RunWarning, open_run
from entropy_lab.writer import RunWriter


class Memory:
    """A sink that keeps what it gets, and fails where it is told to."""

    def __init__(self, last=-1, fails=()):
        self.last, self.fails = last, fails
        self.got, self.closed = [], []

    def log(self, step, values):
        if step in self.fails:
            raise ConnectionError("the server is gone")
        self.got.append((step, dict(values)))

    def close(self, failed):
        self.closed.append(failed)
        if "close" in self.fails:
            raise ConnectionError("still gone")


def test_a_sink_that_fails_is_spoken_of_once_and_stops_nothing():
    broken, sound = Memory(fails={1, 2, "close"}), Memory()
    both = Sinks({"broken": broken, "sound": sound})

    def train():
        with both as sinks:
            for step in range(4):
                sinks.log(step, {"loss": step})

    with pytest.warns(RunWarning, match=r"log_to broken: failed.*server is gone") as told:
        train()
    assert len(told) == 1
    assert [step for step, _ in broken.got] == [0, 3]
    assert sound.got == [(step, {"train/loss": step}) for step in range(4)]
    assert broken.closed == sound.closed == [False]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ParameterError("lr", "is 1")])
def test_sinks_are_closed_however_a_run_ends(error):
    first, second = Memory(fails={"close"}), Memory()
    with (
        pytest.raises(error if isinstance(error, type) else type(error)),
        pytest.warns(RunWarning, match="still gone"),
        Sinks({"first": first, "second": second}),
    ):
        raise error
    assert first.closed == second.closed == [True]


@given(st.integers(-1, 6), st.lists(st.integers(0, 6)))
def test_no_update_is_handed_over_twice(last, steps):
    sink = Memory(last)
    with Sinks({"memory": sink}) as sinks:
        for step in steps:
            sinks.log(step, {})
    got = [step for step, _ in sink.got]
    assert got == sorted(set(got))
    assert all(step > last for step in got)
    assert set(got) >= {step for i, step in enumerate(steps) if step > max([last, *steps[:i]])}


def test_only_finite_numbers_are_handed_over():
    metrics = {"step": 7, "a": np.float32(0.5), "b": np.int64(2), "c": float("inf"), "d": None, "e": "x", "f/g": 1}
    assert numbers(metrics) == {"train/a": 0.5, "train/b": 2, "f/g": 1}


answers = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from("123"), st.booleans(), st.sampled_from([True, False, None]))
)


@given(answers)
def test_accuracies_are_means_over_problems_then_benchmarks(rows):
    names = ("benchmark", "problem_id", "greedy", "correct")
    found = accuracies({name: [row[i] for row in rows] for i, name in enumerate(names)})
    expected = {}
    for greedy in (True, False):
        means = {}
        for benchmark in {row[0] for row in rows if row[2] == greedy}:
            those = sorted((row for row in rows if row[0] == benchmark and row[2] == greedy), key=lambda row: row[1])
            its = [[row[3] is True for row in group] for _, group in groupby(those, key=lambda row: row[1])]
            means[benchmark] = np.mean([np.mean(problem) for problem in its])
        sizes = [sum(r[:3] == row[:3] for r in rows) for row in rows if row[2] == greedy]
        how = "greedy" if greedy else f"avg_at_{max(sizes, default=0)}"
        expected |= {f"validation/{benchmark}/{how}": mean for benchmark, mean in means.items()}
        if means:
            expected[f"validation/{how}"] = np.mean(list(means.values()))
    assert found == pytest.approx(expected)


@pytest.fixture
def run(tmp_path):
    method = {"name": "grpo", "params": {}, "label": "GRPO"}
    writer = RunWriter(
        tmp_path / "run", method=method, setting="Countdown", config={"lr": 1e-4, "model": {"layers": 2}}
    )
    for step in range(5):
        writer.write_metrics({"step": step, "entropy": 1 / (step + 1), "loss": None if step == 2 else 0.1 * step})
        if step % 3 == 0:
            verdicts = {"benchmark": ["e", "e"], "problem_id": ["1", "2"], "sample": [0, 0], "greedy": [True, True]}
            writer.write_evals(step, {**verdicts, "correct": [True, step == 3]})
    return writer.path


@pytest.fixture
def memory(monkeypatch):
    """Sinks by the names of modules that are there, made in the order in which they are asked for."""
    made = []

    def make(name, run):
        if name == "csv":
            raise ConnectionError("no such server")
        made.append(Memory(last=2 if name == "wave" else -1))
        return made[-1]

    monkeypatch.setattr(opening, "SINKS", {"json": ("", ""), "wave": ("", ""), "csv": ("", "")})
    monkeypatch.setattr(opening, "_made", make)
    return made


def test_a_sink_is_told_what_it_lacks_of_the_record(run, memory):
    with open_sinks(["json", "wave", "json"], run) as sinks:
        sinks.log(5, {"step": 5, "entropy": 0.125})
    whole, later = (sink.got for sink in memory)
    assert [step for step, _ in whole] == list(range(6))
    assert later == whole[3:]
    assert whole[2] == (2, {"train/entropy": 1 / 3})
    assert whole[3][1] == pytest.approx(
        {"train/entropy": 0.25, "train/loss": 0.3, "validation/e/greedy": 1.0, "validation/greedy": 1.0}
    )


def test_a_sink_that_cannot_start_is_an_error_and_closes_the_others(run, memory):
    with pytest.raises(OutputError, match=r"log_to csv: cannot be started.*no such server"):
        open_sinks(["json", "csv"], run)
    assert [sink.closed for sink in memory] == [[True]]


def test_what_a_sink_is_told_of_a_run(run):
    told = LoggedRun.of(open_run(run))
    assert (told.path, told.name, told.group) == (run, "run", "Countdown / GRPO")
    assert told.config == {"lr": 1e-4, "model": {"layers": 2}, "method": "GRPO"}


@pytest.mark.parametrize("name", list(opening.SINKS))
def test_a_package_that_is_missing_is_named_with_its_extra(name, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=rf"{name} is not installed.*entropy-lab\[{name}\]"):
        require_sinks([name])
    with pytest.raises(UnknownNameError, match="there is no 'aim'"):
        open_sinks(["aim"], tmp_path)


def test_every_sink_has_its_extra():
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    assert set(opening.SINKS) <= set(project["optional-dependencies"])


def test_notes_are_kept_apart_and_broken_ones_refused(tmp_path):
    write_note(tmp_path, "wandb", {"id": "a"})
    write_note(tmp_path, "trackio", {"name": "run"})
    write_note(tmp_path, "wandb", {"id": "b"})
    assert read_note(tmp_path, "wandb") == {"id": "b"}
    assert read_note(tmp_path, "trackio") == {"name": "run"}
    for broken in ("{", "[]", '{"wandb": 1}'):
        (tmp_path / FILE).write_text(broken)
        with pytest.raises(RunFormatError, match="remove it"):
            read_note(tmp_path, "wandb")
