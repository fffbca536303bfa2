"""A writer goes on with a run: each step once, whatever was under way; what cannot be placed is not thrown away."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import entropy_lab as el
from entropy_lab.errors import RunFormatError, RunNotFoundError
from entropy_lab.run import RunWarning
from entropy_lab.writer import RunWriter


def steps_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def write(writer, step, *, evals):
    key = {"prompt_id": ["a", "a"], "group_id": [0, 0], "sample": [0, 1]}
    writer.write_rollouts(step, {**key, "reward": [1.0, 0.0], "correct": [True, False]})
    if evals:
        writer.write_evals(step, {"benchmark": ["b"], "problem_id": ["p"], "sample": [0], "correct": [True]})
    writer.write_metrics({"step": step, "reward": 0.5})


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_going_on_never_leaves_a_step_twice(data):
    """Whatever update a run is cut back to, and whatever of the one under way was written when it was killed."""
    n_steps = data.draw(st.integers(0, 4))
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        writer = RunWriter(run, method={"name": "grpo", "params": {}})
        for step in range(n_steps + 1):
            write(writer, step, evals=step % 2 == 0)
        lines = (run / "metrics.jsonl").read_bytes()
        last = lines[:-1].rfind(b"\n") + 1
        (run / "metrics.jsonl").write_bytes(lines[: data.draw(st.integers(last, len(lines)))])
        if data.draw(st.booleans()):
            (run / "metrics.jsonl").write_bytes(lines[:last])
            (run / "evals" / f"step-{n_steps:06d}.parquet").unlink(missing_ok=True)
        after = data.draw(st.integers(-1, n_steps - 1))
        kept = {file: file.stat().st_mtime_ns for file in run.rglob("*.parquet") if int(file.stem[5:]) <= after}
        writer = RunWriter.resume(run, after=after)
        assert sorted(kept) == sorted(run.rglob("*.parquet"))
        for step in range(after + 1, n_steps + 1):
            write(writer, step, evals=step % 2 == 0)
        assert (run / "metrics.jsonl").read_bytes() == lines
        assert [each.step for each in el.open_run(run).step_files] == list(range(n_steps + 1))
        assert [each.step for each in el.open_run(run).eval_files] == list(range(0, n_steps + 1, 2))
        assert {file: file.stat().st_mtime_ns for file in kept} == kept


def test_a_last_line_without_its_line_break_gets_it_back(tmp_path):
    writer = RunWriter(tmp_path / "run", method={"name": "grpo", "params": {}})
    (writer.path / "metrics.jsonl").write_text('{"step": 0}\n{"step": 1}')
    RunWriter.resume(writer.path, after=1).write_metrics({"step": 2})
    assert [row["step"] for row in steps_of(writer.path)] == [0, 1, 2]


@pytest.mark.parametrize("line", ["[0]", "{", '{"reward": 1}', '{"step": "1"}'])
def test_a_line_that_cannot_be_placed_is_not_thrown_away(tmp_path, line):
    writer = RunWriter(tmp_path / "run", method={"name": "grpo", "params": {}})
    text = f'{{"step": 0}}\n{line}\n{{"step": 2}}\n'
    (writer.path / "metrics.jsonl").write_text(text)
    with pytest.raises(RunFormatError, match="line 2 is not a JSON object with a step"):
        RunWriter.resume(writer.path, after=0)
    assert (writer.path / "metrics.jsonl").read_text() == text


def test_what_is_no_run_is_not_gone_on_with(tmp_path):
    with pytest.raises(RunNotFoundError):
        RunWriter.resume(tmp_path, after=0)
    writer = RunWriter(tmp_path / "run", method={"name": "grpo", "params": {}})
    about = json.loads((writer.path / "run.json").read_text())
    (writer.path / "run.json").write_text(json.dumps(about | {"version": 2}))
    with pytest.raises(RunFormatError, match="version is 2"):
        RunWriter.resume(writer.path, after=0)


def test_other_software_is_told(tmp_path):
    writer = RunWriter(tmp_path / "run", method={"name": "grpo", "params": {}})
    about = json.loads((writer.path / "run.json").read_text())
    about["software"]["numpy"] = "1.0"
    (writer.path / "run.json").write_text(json.dumps(about))
    with pytest.warns(RunWarning, match=f"numpy 1.0 -> {np.__version__}"):
        RunWriter.resume(writer.path, after=0)
