"""The monitor says at every step what a diagnosis of the run as it is would say, and tells of it what stands."""

import json
import warnings

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import entropy_lab as el
from entropy_lab.amending import amend_info
from entropy_lab.cli import Watch
from entropy_lab.diagnosis.finding import Finding
from entropy_lab.diagnosis.observed import metric_series
from entropy_lab.errors import ParameterError, RunFormatError, RunNotFoundError
from entropy_lab.monitoring import growing
from entropy_lab.monitoring.growing import MetricLines
from entropy_lab.monitoring.monitor import CONFIRM, Monitor
from entropy_lab.monitoring.standing import Standing
from entropy_lab.readers import Options
from entropy_lab.run import Run, RunWarning

N_GROUPS, GROUP_SIZE = 6, 4


def columns(step, rng):
    """Rollouts of a run whose entropy collapses; some columns are there at some steps only."""
    n = N_GROUPS * GROUP_SIZE
    correct = rng.random(n) < 0.4
    n_tokens = rng.integers(3, 9, n)
    entropy = 0.5 * np.exp(-max(step - 8, 0) / 4) * rng.uniform(0.9, 1.1, n)
    logp = -entropy * n_tokens * rng.uniform(0.9, 1.1, n)
    advantage = el.advantages.get("grpo")(correct.reshape(N_GROUPS, GROUP_SIZE).astype(float)).ravel()
    given = {
        "prompt_id": np.repeat([f"p{i}" for i in range(N_GROUPS)], GROUP_SIZE),
        "group_id": np.repeat(np.arange(N_GROUPS), GROUP_SIZE),
        "sample": np.tile(np.arange(GROUP_SIZE), N_GROUPS),
        "reward": correct.astype(float),
        "correct": correct,
        "advantage": advantage,
        "n_tokens": n_tokens,
        "logp": logp,
        "entropy": entropy,
        "token_logp": [[value / k] * k for value, k in zip(logp, n_tokens.tolist(), strict=True)],
    }
    if step % 3 == 2:
        given["logp_after"] = logp - 0.01
    if step >= 5:
        given["sampler_logp"] = logp * 0.8
    return given


def verdicts(rng):
    n = 8
    ids = {"benchmark": ["a"] * n, "problem_id": [f"v{i}" for i in range(n)], "sample": [0] * n}
    return {**ids, "greedy": [True] * 4 + [False] * 4, "temperature": [1.0] * n, "correct": rng.random(n) < 0.5}


def record(writer, step, rng):
    writer.write_rollouts(step, columns(step, rng))
    if step % 4 == 0:
        writer.write_evals(step, verdicts(rng))
    row = {"step": step, "time": 30.0 * step, "clip_fraction_low": 0.2, "clip_fraction_high": 0.1 * rng.random()}
    writer.write_metrics(row)


@pytest.fixture
def writer(tmp_path):
    return el.RunWriter(tmp_path / "run", method={"name": "grpo", "params": {}}, config={"steps": 24})


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def told(diagnosis):
    return json.dumps(diagnosis.as_dict())


def test_at_every_step_it_says_what_a_diagnosis_says(writer, rng, monkeypatch):
    read = []

    def counted(run, folds):
        read.extend(file.step for file in run.step_files)
        return run_folds(run, folds)

    run_folds = growing.run_folds
    monkeypatch.setattr(growing, "run_folds", counted)
    monitor = Monitor(writer.path, confirm=3)
    assert monitor.update() == ()
    assert monitor.diagnosis is None
    names = []
    for step in range(24):
        record(writer, step, rng)
        assert not monitor.complete
        names += [finding.name for finding in monitor.update()]
        assert monitor.update() == ()
        if step % 3 == 0 or step > 20:
            assert told(monitor.diagnosis) == told(el.diagnose(writer.path))
    assert read == list(range(24))
    assert {"collapse", "clipping", "mismatch"} <= set(names)
    assert {f.name for f in (*monitor.findings, *monitor.unconfirmed)} == {f.name for f in monitor.diagnosis.findings}
    assert (monitor.n_steps, monitor.pace, monitor.complete) == (24, pytest.approx(2.0), True)


def test_what_is_written_again_or_taken_away_is_read_again(writer, rng):
    monitor = Monitor(writer.path)
    for step in range(10):
        record(writer, step, rng)
        monitor.update()
    kept = pl.read_parquet(writer.path / "rollouts" / "step-000003.parquet")
    kept.with_columns(pl.col("logp") * 2).write_parquet(writer.path / "rollouts" / "step-000003.parquet")
    monitor.update()
    assert told(monitor.diagnosis) == told(el.diagnose(writer.path))
    writer = el.RunWriter.resume(writer.path, after=4)
    monitor.update()
    assert monitor.diagnosis.steps == (0, 4)
    for step in range(5, 12):
        record(writer, step, rng)
    monitor.update()
    assert told(monitor.diagnosis) == told(el.diagnose(writer.path))
    amend_info(writer.path, method={"name": "reinforce", "params": {}})
    monitor.update()
    assert told(monitor.diagnosis) == told(el.diagnose(writer.path))


ROWS = [
    {"step": 0, "entropy": 0.5, "x": "ä"},
    {"step": 1, "entropy": None, "reward": 1},
    {"step": 1, "reward": 0.5},
    {"entropy": 3},
    {"step": 4, "entropy": 1, "time": 2.0},
]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 200), max_size=8), st.booleans())
def test_lines_that_arrive_in_pieces_are_those_of_the_whole_file(tmp_path_factory, cuts, newline):
    folder = tmp_path_factory.mktemp("lines")
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
    data = data if newline else data[:-1]
    lines, run = MetricLines(folder / "metrics.jsonl"), Run(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunWarning)
        for end in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
            (folder / "metrics.jsonl").write_bytes(data[:end])
            lines.read(run)
            ours, whole = (metric_series(frame) for frame in (lines.frame(), run.metrics()))
            assert ours.keys() == whole.keys()
            for name, one in ours.items():
                assert (one.steps.tolist(), one.values.tolist()) == (
                    whole[name].steps.tolist(),
                    whole[name].values.tolist(),
                )


def test_a_broken_line_is_refused_or_left_out_as_of_a_whole_file(writer):
    lines = writer.path / "metrics.jsonl"
    lines.write_text('{"step": 0, "entropy": 0.5}\n{"step": 1, "entr\n')
    monitor = Monitor(writer.path)
    monitor.update()  # a last line may be cut off
    assert len(monitor.series["entropy"]) == 1
    lines.write_text(lines.read_text() + '{"step": 2, "entropy": 0.4}\n')
    with pytest.warns(RunWarning, match="line 2 is not a JSON object"):
        assert monitor.update() == ()
    with pytest.raises(RunFormatError, match="line 2"):
        Monitor(writer.path).update()
    lenient = Monitor(writer.path, options=Options(skip_invalid=True))
    lenient.update()
    opened = el.open_run(writer.path, skip_invalid=True)
    assert lenient.diagnosis.left_out == el.diagnose(opened).left_out != ()


def test_a_damaged_file_costs_the_look_and_not_the_training(writer, rng):
    monitor, strict = Monitor(writer.path), Monitor(writer.path, on_error="raise")
    for step in range(3):
        record(writer, step, rng)
    monitor.update()
    strict.update()
    file = writer.path / "rollouts" / "step-000001.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[:200])
    with pytest.warns(RunWarning, match="not diagnosed this time"):
        assert monitor.update() == ()
    assert monitor.update() == ()  # said once
    with pytest.raises(RunFormatError):
        strict.update()
    file.write_bytes(whole)
    record(writer, 3, rng)
    for one in (monitor, strict):
        one.update()
        assert told(one.diagnosis) == told(el.diagnose(writer.path))


def test_a_recorder_and_its_monitor_share_a_loop(tmp_path):
    with el.Recorder(tmp_path / "run", method="grpo", group_size=2) as recorder:
        monitor = el.Monitor(recorder.path, confirm=0)
        found = []
        for _ in range(9):
            recorder.step(
                prompts=["1+1="] * 2, rewards=[1.0, 0.0], advantages=[1.0, 0.5], logps=[[-0.1], [-0.5]], n_tokens=[1, 1]
            )
            found += [finding.name for finding in monitor.update()]
    assert {"non_centred", "duplicated_rows"} <= set(found)


def test_another_frameworks_run_is_imported_when_it_has_changed_and_not_too_often(tmp_path):
    folder = tmp_path / "foreign"
    folder.mkdir()
    log = folder / "log.csv"
    log.write_text("step,entropy,reward\n0,0.5,0.1\n1,0.5,0.1\n")
    said = []
    monitor = Monitor(folder, options=Options(format="table"), say=said.append)
    monitor.update()
    assert told(monitor.diagnosis) == told(el.diagnose(folder))
    with log.open("a") as stream:
        stream.write("2,0.4,0.2\n")
    monitor.update()
    assert monitor.n_steps == 2  # the last import was only just made
    monitor.update(now=True)
    assert (monitor.n_steps, monitor.pace is None) == (3, False)
    assert told(monitor.diagnosis) == told(el.diagnose(folder))
    assert [file.name for file in folder.iterdir()] == ["log.csv"]
    assert sum("taken for" in line for line in said) == 1
    assert not any("/run" in line for line in said)


def test_a_baseline_makes_notes(writer, rng):
    for step in range(24):
        record(writer, step, rng)
    monitor = Monitor(writer.path, baseline=writer.path)
    assert {finding.severity for finding in monitor.update()} == {"note"}


@pytest.mark.parametrize(("words", "error"), [({"confirm": -1}, ParameterError), ({"on_error": "no"}, ParameterError)])
def test_parameters_are_checked(writer, words, error):
    with pytest.raises(error):
        Monitor(writer.path, **words)


def test_no_run_is_refused(tmp_path):
    with pytest.raises(RunNotFoundError):
        Monitor(tmp_path / "nowhere")


def test_the_commands_default_is_the_monitors():
    assert Watch("run").confirm == CONFIRM


def finding(severity="warning"):
    return Finding("collapse", "", severity, "", None, (), "", "", (), ())


@settings(max_examples=200, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 4))
def test_a_finding_is_told_and_withdrawn_when_it_has_stood_or_been_gone(seen, confirm):
    standing, told_at, is_told = Standing(confirm), [], False
    for look, present in enumerate(seen):
        new = standing.see([finding()] if present else [], look + 1)
        recent = seen[max(0, look - confirm) : look + 1]
        stood = look == 0 or (look >= confirm and all(recent))
        if present and stood and not is_told:
            is_told = True
            told_at.append(look)
            assert len(new) == 1
        else:
            assert new == ()
        gone = is_told and look >= confirm and not any(recent)
        is_told = is_told and not gone
        assert standing.withdrawn == (("collapse",) if gone else ())
        assert bool(standing.told) == is_told


def test_a_finding_that_gets_worse_is_told_again():
    standing = Standing(confirm=0)
    severities = ["note", "note", "critical", "warning", "critical"]
    assert [len(standing.see([finding(one)], n)) for n, one in enumerate(severities)] == [1, 0, 1, 0, 0]
