"""Foreign input that is damaged, ambiguous or still being written: one clear line, or a warning and the rest."""

import json
import os

import polars as pl
import pytest

import entropy_lab as el
from entropy_lab.cli import main
from entropy_lab.readers import convert, open_any, sink
from tests.foreign_samples import lines, trainer_state, trl_completions, trl_entry, trl_rows, verl_scalars, verl_v1


@pytest.fixture
def dump(tmp_path):
    return verl_v1(tmp_path / "dump", (1, 2, 3))


def refused(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    captured = capsys.readouterr()
    line = captured.err.splitlines()[-1]
    assert stop.value.code == 2
    assert line.startswith("entropy-lab: ")
    assert "Traceback" not in captured.err + captured.out
    return line


def edit(file, change):
    file.write_text(change(file.read_text().splitlines(keepends=True)))


def half_a_line(rows):
    return "".join(rows[:5]) + rows[5][:20] + "\n" + "".join(rows[6:])


def a_list(rows):
    return "".join(rows[:2]) + "[1]\n" + "".join(rows[3:])


def another_step(rows):
    return "".join(rows[:3]) + rows[3].replace('"step": 2', '"step": 3') + "".join(rows[4:])


def no_score(rows):
    return "".join(rows).replace('"score"', '"skore"')


def nan_score(rows):
    return "".join(rows).replace('"score": 1.0', '"score": NaN', 1)


FAULTS = {
    "half a line": (half_a_line, "line 6 is not JSON"),
    "a list": (a_list, "line 3 holds a JSON list"),
    "another step": (another_step, "line 4 is of step 3: rows of several steps are mixed"),
    "no score": (no_score, "line 1 has no score"),
    "a score that is no number": (nan_score, "column reward: is nan in row"),
}


@pytest.mark.parametrize(("change", "what"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_named_with_file_and_line(dump, capsys, change, what):
    edit(dump / "2.jsonl", change)
    line = refused(capsys, "analyze", dump, "--no-figures")
    assert "2.jsonl" in line
    assert what in line
    assert [path.name for path in dump.iterdir() if path.suffix != ".jsonl"] == []


@pytest.mark.parametrize("change", [half_a_line, a_list, nan_score])
def test_skip_invalid_counts_what_it_leaves_out(dump, capsys, change):
    edit(dump / "2.jsonl", change)
    main(["analyze", str(dump), "--no-figures", "--json", "--skip-invalid"])
    captured = capsys.readouterr()
    assert json.loads(captured.out)["steps"]["n"] == 3
    assert "left out 1 row: 2.jsonl" in captured.err
    imported = el.open_run(dump / "entropy-lab").info["imported"]
    assert (imported["rows"], imported["left_out"]) == (35, 1)


def test_a_file_that_is_being_written_is_read_to_its_last_whole_line(dump, capsys):
    file = dump / "3.jsonl"
    file.write_text(file.read_text()[:-30])
    main(["analyze", str(dump), "--no-figures"])
    err = capsys.readouterr().err
    assert "warning: 3.jsonl: line 12, its last, is cut off and left out" in err
    assert "the last step, 3 in the source, has 11 rollouts, the one before 12" in err


def test_an_empty_file_is_said(dump, capsys):
    (dump / "2.jsonl").write_text("")
    main(["check", str(dump)])
    captured = capsys.readouterr()
    assert "warning: 2.jsonl: is empty" in captured.err
    assert "steps missing: 1" in captured.out


def test_nothing_to_read(tmp_path, capsys):
    assert "does not exist" in refused(capsys, "analyze", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "holds nothing that a reader knows (0 files)" in refused(capsys, "analyze", tmp_path / "empty")
    (tmp_path / "empty.jsonl").write_text("")
    assert "empty.jsonl" in refused(capsys, "analyze", tmp_path / "empty.jsonl")
    (tmp_path / "run.log").write_text("step: nothing here\n")
    assert "nothing that a reader knows" in refused(capsys, "analyze", tmp_path / "run.log")
    (tmp_path / "noise.parquet").write_bytes(os.urandom(300))
    assert "noise.parquet: cannot be read" in refused(capsys, "analyze", tmp_path / "noise.parquet")


def test_the_wrong_format_named(dump, capsys):
    assert "Hint: --format verl" in refused(capsys, "analyze", dump, "--format", "trl")
    assert "Hint: --format verl" in refused(capsys, "analyze", dump, "--format", "verll")


def test_two_frameworks_in_one_directory(tmp_path, capsys):
    verl_v1(tmp_path / "a", (1,))
    trl_completions(tmp_path / "b" / "completions", 1, list(trl_rows(1)))
    line = refused(capsys, "analyze", tmp_path)
    assert "holds files of 2 frameworks: verl" in line
    assert "--format verl or --format trl" in line
    main(["import", str(tmp_path), "--format", "trl", "--out", str(tmp_path / "run")])
    assert el.open_run(tmp_path / "run").info["imported"]["format"] == "trl"


def test_several_runs_below_one_directory(tmp_path, capsys):
    for name in ("one", "two"):
        trl_completions(tmp_path / name / "completions", 1, list(trl_rows(1)))
    assert "completions of 2 runs: one/completions, two/completions" in refused(capsys, "analyze", tmp_path)
    for name in ("a", "b"):
        open_any(tmp_path / "one", out=tmp_path / "ours" / name)
    assert "holds 2 runs of entropy-lab (a, b)" in refused(capsys, "analyze", tmp_path / "ours")


def test_a_damaged_trainer_state(tmp_path, capsys):
    file = trainer_state(tmp_path / "trainer_state.json", [trl_entry(1), trl_entry(2)])
    file.write_text(file.read_text()[:-40])
    assert "trainer_state.json: is not JSON" in refused(capsys, "analyze", file)


def test_an_import_is_made_once_and_again_when_the_source_changes(dump, capsys):
    main(["analyze", str(dump), "--no-figures"])
    target = dump / "entropy-lab"
    first = (target / "run.json").stat().st_ino
    main(["analyze", str(dump), "--no-figures"])
    assert (target / "run.json").stat().st_ino == first
    assert "imported before" in capsys.readouterr().err
    verl_v1(dump, (4,))
    main(["analyze", str(dump), "--no-figures"])
    assert [file.step for file in el.open_run(target).step_files] == [0, 1, 2, 3]
    main(["analyze", str(dump), "--no-figures", "--correct-above", "2"])
    assert not el.open_run(target).scan().collect()["correct"].any()


def test_an_interrupted_import_leaves_nothing_that_looks_whole(dump, monkeypatch):
    open_any(dump)
    verl_v1(dump, (4,))
    before = (dump / "entropy-lab" / "run.json").read_bytes()
    real, calls = sink.Sink.rollouts, []

    def stop(self, *args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(self, *args)

    monkeypatch.setattr(sink.Sink, "rollouts", stop)
    with pytest.raises(KeyboardInterrupt):
        open_any(dump)
    assert (dump / "entropy-lab" / "run.json").read_bytes() == before
    assert [path.name for path in dump.iterdir() if path.name.startswith(".")] == []


def test_what_a_killed_import_left_is_removed_and_never_read(dump):
    dead = dump / ".entropy-lab.7fffffff.tmp"
    alive = dump / f".entropy-lab.{os.getppid():08x}.tmp"
    for left in (dead, alive):
        left.mkdir()
        (left / "run.json").write_text("{}")
    run = open_any(dump)
    assert run.scan().collect().height == 36
    assert not dead.exists()
    assert alive.exists()


def test_files_that_change_while_they_are_read(dump, monkeypatch):
    told, real = [], convert._import

    def slow(*args):
        imported = real(*args)
        verl_v1(dump, (4,))
        return imported

    monkeypatch.setattr(convert, "_import", slow)
    open_any(dump, say=told.append)
    assert any("changed while they were read" in line for line in told)
    monkeypatch.undo()
    assert len(open_any(dump).step_files) == 4


def test_a_place_that_holds_something_else_is_left_alone(dump, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("…")
    assert "is not empty" in refused(capsys, "import", dump, "--out", tmp_path / "mine")
    dump.chmod(0o555)
    try:
        line = refused(capsys, "analyze", dump)
    finally:
        dump.chmod(0o755)
    assert "read-only" in line
    assert "--out DIR" in line
    assert "of our own format already" in refused(capsys, "import", open_any(dump).path, "--out", tmp_path / "x")


def test_the_summary_says_how_to_record_what_is_missing(dump, tmp_path, capsys):
    lines(tmp_path / "dump" / "logs" / "run.jsonl", [{"step": s, "data": verl_scalars(s)} for s in (1, 2, 3)])
    main(["analyze", str(dump), "--no-figures", "--json"])
    summary = json.loads(capsys.readouterr().out)
    assert summary["imported"]["format"] == "verl"
    assert summary["logged"]["entropy"] == {"start": 2.0, "end": 2 / 3}
    how = {column: item["how"] for item in summary["record"] for column in item["columns"]}
    assert {"logp", "n_tokens", "advantage"} <= set(how)
    assert "trainer_mode=entropy_lab" in how["logp"]
    assert {"covariance", "entropy"} <= set(summary["skipped"])
    main(["analyze", str(dump), "--no-figures"])
    words = " ".join(capsys.readouterr().out.split())
    assert "imported from verl: V1 rollout dump, FileLogger" in words
    assert "to record" in words


def test_scalars_alone_are_analysed(tmp_path, capsys):
    file = trainer_state(tmp_path / "trainer_state.json", [trl_entry(step) for step in (1, 2, 3)])
    main(["analyze", str(file), "--json", "--no-figures"])
    captured = capsys.readouterr()
    summary = json.loads(captured.out)
    assert summary["logged"]["entropy"] == {"start": 1.5, "end": 0.5}
    assert {"covariance", "training"} <= set(summary["skipped"])
    assert [item["columns"] for item in summary["record"]] == [["rollouts"]]
    assert "log_completions=True" in summary["record"][0]["how"]


def test_extra_columns_have_one_type_in_all_files(tmp_path):
    for step, value in enumerate((1, 2.5, None, "text"), start=1):
        row = {"input": "a", "output": "b", "score": 1.0, "step": step, "extra": value, "both": step % 2 or 0.5}
        lines(tmp_path / f"{step}.jsonl", [row])
    frame = open_any(tmp_path).scan().collect()
    assert frame["extra"].to_list() == ["1", "2.5", None, "text"]
    assert frame["both"].to_list() == [1.0, 0.5, 1.0, 0.5]
    assert frame.schema["both"] == pl.Float64
