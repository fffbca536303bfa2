"""Bad input gives one line and exit code 2, writes nothing and loses nothing; --skip-invalid analyses the rest."""

import json
import resource
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from entropy_lab.cli import main

N_GROUPS, G = 6, 4


def step_frame(step):
    rng = np.random.default_rng(step)
    n = N_GROUPS * G
    correct = rng.random(n) < 0.5
    columns = {
        "step": np.full(n, step, np.int32),
        "epoch": np.zeros(n, np.int32),
        "prompt_id": [f"q{i // G}" for i in range(n)],
        "group_id": np.repeat(np.arange(N_GROUPS), G),
        "sample": np.tile(np.arange(G, dtype=np.int32), N_GROUPS),
        "reward": correct.astype(np.float32),
        "correct": correct,
        "advantage": rng.normal(size=n).astype(np.float32),
        "n_tokens": rng.integers(1, 9, n).astype(np.int32),
        "logp": -rng.random(n).astype(np.float32),
        "logp_after": -rng.random(n).astype(np.float32),
        "entropy": rng.random(n).astype(np.float32),
    }
    return pl.DataFrame(columns)


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    (folder / "rollouts").mkdir(parents=True)
    info = {"format": "entropy-lab/run", "version": 1, "name": "r", "method": {"name": "grpo", "params": {}}}
    (folder / "run.json").write_text(json.dumps(info))
    for step in range(3):
        step_frame(step).write_parquet(folder / "rollouts" / f"step-{step:06d}.parquet")
    return folder


def change(run, edit, step=1):
    file = run / "rollouts" / f"step-{step:06d}.parquet"
    edit(step_frame(step)).write_parquet(file)


def put(column, row, value):
    return lambda frame: frame.with_columns(
        pl.when(pl.int_range(pl.len()) == row).then(pl.lit(value, frame[column].dtype)).otherwise(column).alias(column)
    )


def truncate(run):
    file = run / "rollouts" / "step-000001.parquet"
    file.write_bytes(file.read_bytes()[:-40])


def edit_info(**changes):
    def edit(run):
        info = json.loads((run / "run.json").read_text()) | changes
        (run / "run.json").write_text(json.dumps(info))

    return edit


def remove_files(run):
    for file in (run / "rollouts").iterdir():
        file.unlink()


BAD_ROWS = {
    "a NaN log-probability": (put("logp", 5, float("nan")), "logp", "nan"),
    "a positive log-probability": (put("logp", 5, 0.5), "logp", "0.5"),
    "an infinite log-probability": (put("logp_after", 5, float("-inf")), "logp_after", "-inf"),
    "a NaN advantage": (put("advantage", 5, float("nan")), "advantage", "nan"),
    "a negative entropy": (put("entropy", 5, -1.0), "entropy", "-1.0"),
    "a negative length": (put("n_tokens", 5, -1), "n_tokens", "-1"),
    "a null reward": (put("reward", 5, None), "reward", "null"),
    "another step's row": (put("step", 5, 7), "step", "7"),
    "a repeated key": (lambda frame: pl.concat([frame, frame[5:6]]), "group_id", "repeats"),
}
BAD_FILES = {
    "a truncated file": (truncate, "step-000001.parquet", "cannot be read"),
    "an empty file": (
        lambda run: (run / "rollouts/step-000001.parquet").write_bytes(b""),
        "step-000001.parquet",
        "read",
    ),
    "a wrong dtype": (
        lambda run: change(run, lambda frame: frame.with_columns(pl.col("logp").cast(pl.String))),
        "column logp",
        "String",
    ),
    "a number for a verdict": (
        lambda run: change(run, lambda frame: frame.with_columns(pl.col("correct").cast(pl.Int8))),
        "column correct",
        "Boolean",
    ),
    "a missing required column": (
        lambda run: change(run, lambda frame: frame.drop("correct")),
        "step-000001.parquet",
        "required column correct is missing",
    ),
}


def empty_files(run):
    for step in range(3):
        change(run, lambda frame: frame.clear(), step)


BAD_RUNS = {
    "files without rows": (empty_files, "run", "3 files without rows"),
    "no rollouts": (remove_files, "run", "no rollouts"),
    "run.json that is not JSON": (lambda run: (run / "run.json").write_text("{"), "run.json", "not JSON"),
    "run.json that is a list": (lambda run: (run / "run.json").write_text("[]"), "run.json", "list"),
    "no run.json": (lambda run: (run / "run.json").unlink(), "run", "no run.json"),
    "an unknown version": (edit_info(version=99), "run.json", "supported: 1"),
    "another format": (edit_info(format="verl"), "run.json", "verl"),
    "one step in two files": (
        lambda run: (run / "rollouts/step-1.parquet").write_bytes((run / "rollouts/step-000001.parquet").read_bytes()),
        "step-1.parquet",
        "step 1",
    ),
    "a metrics line that is not JSON": (
        lambda run: (run / "metrics.jsonl").write_text('{"step": 0}\n{"st\n{"step": 2}\n'),
        "metrics.jsonl",
        "line 2",
    ),
}


def refused(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    output = capsys.readouterr()
    assert stop.value.code == 2
    assert output.out == ""
    assert output.err.count("\n") == 1, output.err
    assert output.err.startswith("entropy-lab: ")
    assert "Traceback" not in output.err
    return output.err


def contents(folder):
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(("edit", "where", "what"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_bad_row_is_refused_and_named(run, capsys, edit, where, what):
    change(run, edit)
    before = contents(run)
    line = refused(capsys, "analyze", run)
    assert "step-000001.parquet" in line
    assert where in line
    assert what in line
    assert contents(run) == before


@pytest.mark.parametrize(("edit", "where", "what"), (BAD_FILES | BAD_RUNS).values(), ids=BAD_FILES | BAD_RUNS)
def test_a_bad_file_is_refused_and_named(run, capsys, edit, where, what):
    edit(run)
    before = contents(run)
    line = refused(capsys, "analyze", run)
    assert where in line
    assert what in line
    assert contents(run) == before


@pytest.mark.parametrize("command", ["analyze", "check", "figures"])
def test_a_missing_directory_is_refused(tmp_path, capsys, command):
    line = refused(capsys, command, tmp_path / "nowhere")
    assert "does not exist" in line
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(("edit", "where", "what"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_skip_invalid_leaves_out_the_rows_and_equals_a_run_without_them(run, tmp_path, capsys, edit, where, what):
    change(run, edit)
    main(["analyze", str(run), "--json", "--skip-invalid", "--no-figures", "--out", str(tmp_path / "a")])
    summary = json.loads(capsys.readouterr().out)
    assert [item["rows"] for item in summary["left_out"]] == [1]
    assert "step-000001.parquet" in summary["left_out"][0]["file"]
    # The only difference to the sound run is row 5, or for a repeated row nothing.
    repeated = what == "repeats"
    change(run, lambda frame: frame if repeated else frame.filter(pl.int_range(pl.len()) != 5))
    main(["analyze", str(run), "--json", "--no-figures", "--out", str(tmp_path / "b")])
    for file in (tmp_path / "a" / "analysis").iterdir():
        assert pl.read_parquet(file).equals(pl.read_parquet(tmp_path / "b" / "analysis" / file.name)), file.name


@pytest.mark.parametrize(("edit", "where", "what"), BAD_FILES.values(), ids=BAD_FILES)
def test_skip_invalid_leaves_out_whole_files(run, tmp_path, capsys, edit, where, what):
    edit(run)
    main(["analyze", str(run), "--json", "--skip-invalid", "--no-figures", "--out", str(tmp_path / "a")])
    summary = json.loads(capsys.readouterr().out)
    assert len(summary["left_out"]) == 1
    assert what in summary["left_out"][0]["why"]
    assert pl.read_parquet(tmp_path / "a/analysis/training.parquet")["step"].to_list() == [0, 2]
    assert summary["steps"] == {"first": 0, "last": 2, "n": 2}


def test_several_faults_of_one_file_are_each_counted_once(run, tmp_path, capsys):
    def spoil(frame):
        return put("entropy", 9, -1.0)(put("entropy", 5, -1.0)(put("logp", 5, 0.5)(frame)))

    change(run, spoil)
    main(["analyze", str(run), "--json", "--skip-invalid", "--no-figures", "--out", str(tmp_path / "a")])
    left_out = json.loads(capsys.readouterr().out)["left_out"]
    assert sorted((item["rows"], item["why"].split()[0]) for item in left_out) == [(1, "entropy"), (1, "logp")]


def test_rows_that_share_a_key_and_differ_are_all_left_out(run, tmp_path, capsys):
    change(run, lambda frame: pl.concat([frame, frame[5:6].with_columns(reward=pl.lit(0.5, pl.Float32))]))
    main(["analyze", str(run), "--json", "--skip-invalid", "--no-figures", "--out", str(tmp_path / "a")])
    assert json.loads(capsys.readouterr().out)["left_out"][0]["rows"] == 2


def test_a_torn_last_metrics_line_is_a_warning(run, tmp_path, capsys):
    (run / "metrics.jsonl").write_text('{"step": 0, "clip_fraction_low": 0.25}\n{"step": 1, "cl')
    main(["analyze", str(run), "training", "--no-figures", "--out", str(tmp_path)])
    assert "line 2 is cut off" in capsys.readouterr().err
    assert pl.read_parquet(tmp_path / "analysis/training.parquet")["clip_fraction_low"].to_list() == [0.25, None, None]


def test_an_unwritable_run_asks_for_out(run, tmp_path, capsys):
    (run / "analysis").write_text("a file where the folder should be")
    line = refused(capsys, "analyze", run)
    assert "--out" in line
    main(["analyze", str(run), "--no-figures", "--out", str(tmp_path / "elsewhere")])
    assert (tmp_path / "elsewhere/analysis/entropy.parquet").exists()


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(run, capsys):
    before, (soft, hard) = contents(run), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))  # no file may grow beyond 64 bytes
    try:
        line = refused(capsys, "analyze", run, "--no-figures")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot be written (File too large)" in line
    assert "--out" in line
    assert contents(run) == before


def test_a_read_only_run_is_refused_and_left_alone(run, tmp_path, capsys):
    before = contents(run)
    run.chmod(0o555)
    try:
        line = refused(capsys, "analyze", run)
        assert "read-only" in line
        assert "--out" in line
        main(["analyze", str(run), "--no-figures", "--out", str(tmp_path / "elsewhere")])
    finally:
        run.chmod(0o755)
    assert contents(run) == before


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["covarianc"], "did you mean covariance?"),
        (["./nothing.py"], "does not exist"),
        (["--param", "covariance.first_step=3"], "first_steps"),
        (["--param", "first_steps=3"], "ANALYSIS.NAME=VALUE"),
        (["--param", "covariance.ddof=3"], "0 or 1"),
        (["--param", "solve_rates.by=week"], "epoch"),
        (["--param", "covariance.first_steps=x"], "int | null"),
        (["--param", "entropy.n_boot=1.5"], "entropy.n_boot: is 1.5; int"),
        (["--param", "entropy.n_boot=0"], "1 or more"),
        (["--param", "entropy.n_boot=-1"], "1 or more"),
        (["--param", "covariance.n_boot=-1"], "1 or more"),
        (["--param", "covariance.confidence=1"], "between 0 and 1"),
        (["--param", "covariance.bins=true"], "int | null"),
        (["validation"], "evals.benchmark"),
    ],
)
def test_bad_words_are_refused(run, capsys, words, what):
    assert what in refused(capsys, "analyze", run, *words)


def test_check_lists_every_fault_and_exits_with_2(run, capsys):
    change(run, put("logp", 5, 0.5))
    change(run, put("entropy", 3, -1.0), step=2)
    with pytest.raises(SystemExit) as stop:
        main(["check", str(run)])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert "logp is 0.5" in error
    assert "entropy is -1.0" in error


def test_a_refusal_from_a_shell_has_no_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "entropy_lab.cli", "analyze", str(tmp_path / "nowhere")], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
