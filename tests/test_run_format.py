"""What a writer stores a reader finds, whole or not at all."""

import json

import numpy as np
import pandas as pd
import polars as pl
import pytest

import entropy_lab as el
from entropy_lab.errors import OutputError, ParameterError, RunFormatError
from entropy_lab.schema import EVALS, ROLLOUTS
from entropy_lab.validation import polars_dtype, same_kind

KEY = {"prompt_id": ["b", "a", "a", "b"], "group_id": [1, 0, 0, 1], "sample": [0, 0, 1, 1]}
MINIMUM = {**KEY, "reward": [1.0, 0.0, 1.0, 1.0], "correct": [True, False, True, None]}


@pytest.fixture
def writer(tmp_path):
    return el.RunWriter(tmp_path / "run", method={"name": "grpo", "params": {"eps": 0}}, group_size=2, seed=3)


def test_every_column_comes_back_in_its_type(writer):
    values = {
        **MINIMUM,
        "epoch": [0] * 4,
        "advantage": np.array([1, -1, 1, 0], np.float64),
        "n_tokens": np.array([1, 2, 3, 0]),
        **{name: -np.arange(4.0) for name in ("logp", "logp_after", "sampler_logp")},
        "entropy": [0.1, 0.2, 0.3, None],
        "truncated": [False] * 4,
        **{name: list("wxyz") for name in ("source", "prompt", "completion", "answer")},
        "token_ids": [[1], [1, 2], [1, 2, 3], []],
        **{name: [[-1.0], [-1.0, -2.0], [0.0] * 3, []] for name in ("token_logp", "token_logp_after")},
        "token_entropy": [[1.0], [1.0, 2.0], [0.0] * 3, []],
        "extra": ["kept"] * 4,
    }
    frame = pl.read_parquet(writer.write_rollouts(5, values))
    assert frame.columns == [*ROLLOUTS, "extra"]
    assert all(frame.schema[name] == polars_dtype(column.dtype) for name, column in ROLLOUTS.items())
    assert frame["step"].to_list() == [5] * 4
    assert frame["completion"].to_list() == ["x", "y", "w", "z"]  # sorted by group and sample
    assert frame["extra"].to_list() == ["kept"] * 4
    assert frame["token_ids"].to_list()[1] == [1, 2, 3]


def test_group_accuracy_is_over_verified_rollouts(writer):
    frame = pl.read_parquet(writer.write_rollouts(0, MINIMUM))
    assert frame["group_accuracy"].to_list() == [0.5, 0.5, 1.0, 1.0]


@pytest.mark.parametrize(
    "kind", [pl.DataFrame, pd.DataFrame, lambda columns: {k: pl.Series(v) for k, v in columns.items()}]
)
def test_frames_of_any_library_are_taken(writer, kind):
    frame = pl.read_parquet(writer.write_rollouts(0, kind(MINIMUM)))
    assert frame["correct"].to_list() == [False, True, True, None]


@pytest.mark.parametrize("rows", [np.full((4, 3), -1.0, np.float32), list(np.full((4, 3), -1.0, np.float32))])
def test_responses_of_equal_length_are_stored_like_others(writer, rows):
    writer.write_rollouts(0, {**MINIMUM, "token_logp": rows})
    found = el.open_run(writer.path).scan().collect()["token_logp"]
    assert found.dtype == pl.List(pl.Float32)
    assert found.to_list() == [[-1.0] * 3] * 4


@pytest.mark.parametrize("rows", [[[], [], [], []], [None, None, None, None], np.zeros((4, 0))])
def test_a_step_of_empty_responses_is_stored_like_others(writer, rows):
    frame = pl.read_parquet(writer.write_rollouts(0, {**MINIMUM, "n_tokens": [0] * 4, "token_logp": rows}))
    assert frame["token_logp"].dtype == pl.List(pl.Float32)
    assert frame["token_logp"].list.len().fill_null(0).to_list() == [0] * 4


def test_a_scan_of_files_that_differ_in_columns_and_widths_is_one_frame(writer):
    assert el.open_run(writer.path).scan().collect().shape == (0, 0)
    writer.write_rollouts(0, MINIMUM)
    writer.write_rollouts(1, {**MINIMUM, "entropy": [0.1, 0.2, 0.3, None], "extra": [1] * 4})
    file = writer.write_rollouts(2, MINIMUM)
    pl.read_parquet(file).with_columns(pl.col("sample").cast(pl.Int64)).write_parquet(file)
    found = el.open_run(writer.path).scan().sort("step", "group_id", "sample").collect()
    assert found["step"].to_list() == [0] * 4 + [1] * 4 + [2] * 4
    assert found["sample"].to_list() == [0, 1] * 6
    assert found["extra"].to_list() == [None] * 4 + [1] * 4 + [None] * 4
    assert found["entropy"].null_count() == 9


def test_run_json_says_what_the_run_is(writer):
    run = el.open_run(writer.path)
    assert run.info["format"] == "entropy-lab/run"
    assert run.info["version"] == 1
    assert run.method == {"name": "grpo", "params": {"eps": 0}}
    assert run.info["seed"] == 3
    assert run.info["software"]["entropy-lab"] == el.__version__


def test_unknown_keys_of_run_json_are_kept(writer):
    info = json.loads((writer.path / "run.json").read_text()) | {"cluster": "a"}
    (writer.path / "run.json").write_text(json.dumps(info))
    assert el.open_run(writer.path).info["cluster"] == "a"


def test_opening_reads_nothing(writer):
    (writer.path / "run.json").write_text("not JSON")
    run = el.open_run(writer.path)
    with pytest.raises(RunFormatError, match="not JSON"):
        _ = run.info


@pytest.mark.parametrize(
    ("change", "error", "what"),
    [
        ({"reward": None}, RunFormatError, "reward is missing"),
        ({"logp": [0.0, 1.0, 0.0, 0.0]}, RunFormatError, "logp"),
        ({"sample": [0, 0, 0, 1]}, RunFormatError, "repeats"),
        ({"reward": ["a"] * 4}, ParameterError, "cannot be stored"),
        ({"correct": [1, 0, 1, 1]}, ParameterError, "cannot be stored"),
        ({"group_id": [0.5] * 4}, ParameterError, "cannot be stored"),
        ({"reward": [1.0]}, ParameterError, "different lengths"),
    ],
)
def test_a_refused_step_leaves_nothing(writer, change, error, what):
    columns = {name: value for name, value in (MINIMUM | change).items() if value is not None}
    with pytest.raises(error, match=what):
        writer.write_rollouts(0, columns)
    assert not list(writer.path.rglob("*.parquet*"))


def test_a_step_is_written_once(writer):
    file = writer.write_rollouts(0, MINIMUM)
    before = file.read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        writer.write_rollouts(0, MINIMUM)
    assert file.read_bytes() == before


def test_an_interrupted_write_leaves_no_file(writer, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(pl.DataFrame, "write_parquet", stop)
    with pytest.raises(KeyboardInterrupt):
        writer.write_rollouts(0, MINIMUM)
    assert not list((writer.path / "rollouts").iterdir())


def test_a_used_directory_is_refused(writer):
    with pytest.raises(OutputError, match="not empty"):
        el.RunWriter(writer.path, method={"name": "grpo", "params": {}})


def test_metrics_are_json_lines_without_nan(writer):
    writer.write_metrics({"step": 0, "loss": float("nan"), "entropy": np.float32(0.5)})
    writer.write_metrics({"step": 1, "loss": 2})
    assert json.loads((writer.path / "metrics.jsonl").read_text().splitlines()[0]) == {
        "step": 0,
        "loss": None,
        "entropy": 0.5,
    }
    assert el.open_run(writer.path).metrics()["loss"].to_list() == [None, 2]


def test_evals_come_back_and_validate(writer):
    answers = {
        "benchmark": ["e"] * 4,
        "problem_id": ["p", "p", "q", "q"],
        "sample": [0, 1, 0, 1],
        "greedy": [False] * 4,
    }
    file = writer.write_evals(10, {**answers, "correct": [True, False, True, None]})
    assert all(pl.read_parquet(file).schema[n] == polars_dtype(c.dtype) for n, c in EVALS.items() if n in answers)
    row = el.analyze(writer.path, "validation").frame.row(0, named=True)
    assert (row["step"], row["benchmark"], row["greedy"], row["k"], row["accuracy"]) == (10, "e", False, 1, 0.75)


def test_greedy_and_sampled_answers_are_kept_apart(writer):
    answers = {"benchmark": ["e"] * 3, "problem_id": ["p"] * 3, "sample": [0, 0, 1], "greedy": [True, False, False]}
    writer.write_evals(0, {**answers, "correct": [True, True, False]})
    frame = el.analyze(writer.path, "validation").frame
    assert frame.select("greedy", "k", "accuracy", "pass_at_2").rows() == [(False, 2, 0.5, 1.0), (True, 1, 1.0, None)]


def test_a_validation_interval_is_over_problems(writer):
    rng = np.random.default_rng(0)
    correct = rng.random((200, 4)) < 0.5
    ids = np.repeat(np.arange(200), 4)
    answers = {"benchmark": ["e"] * 800, "problem_id": [f"p{i}" for i in ids], "sample": np.tile(np.arange(4), 200)}
    writer.write_evals(0, {**answers, "correct": correct.ravel()})
    row = el.analyze(writer.path, "validation").frame.row(0, named=True)
    error = correct.mean(axis=1).std() / np.sqrt(200)
    assert row["ci_high"] - row["ci_low"] == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert row["accuracy"] == correct.mean()


def test_tables_carry_parameters_and_units(writer, tmp_path):
    import pyarrow.parquet as pq

    columns = {
        **MINIMUM,
        "advantage": [1.0, -1.0, 1.0, -1.0],
        "logp": [-1.0, -2.0, -3.0, -4.0],
        "n_tokens": [1, 1, 1, 1],
    }
    writer.write_rollouts(0, columns)
    table = el.analyze(writer.path, "covariance", ddof=0)
    metadata = pq.read_metadata(table.write(tmp_path / "t.parquet")).metadata
    assert metadata[b"ddof"] == b"0"
    assert metadata[b"first_steps"] == b"40"
    assert json.loads(metadata[b"units"])["covariance"] == "nats/token"
    back = el.Table.read(tmp_path / "t.parquet")
    assert back.frame.equals(table.frame)
    assert dict(back.metadata) == dict(table.metadata)


def test_tables_become_pandas(writer):
    writer.write_rollouts(0, {**MINIMUM, "epoch": [0] * 4})
    frame = el.analyze(writer.path, "solve_rates").to_pandas()
    assert isinstance(frame, pd.DataFrame)
    assert frame.loc[0, "all_solved"] == 0.5


def test_any_width_of_the_same_kind_is_read_and_no_other_kind():
    assert same_kind(pl.Int64(), "Int32")
    assert same_kind(pl.Float64(), "Float32")
    assert same_kind(pl.Categorical(), "String")
    assert same_kind(pl.List(pl.Int64), "List(Int32)")
    assert not same_kind(pl.Float64(), "Int32")
    assert not same_kind(pl.Int8(), "Boolean")
    assert not same_kind(pl.List(pl.Float32), "List(Int32)")
    assert not same_kind(pl.Int32(), "List(Int32)")


def test_check_reports_disagreement_without_refusing(writer, capsys):
    from entropy_lab.cli import main

    file = writer.write_rollouts(0, {**MINIMUM, "n_tokens": [1] * 4, "token_ids": [[1], [1], [1], [1]]})
    pl.read_parquet(file).with_columns(
        group_accuracy=pl.lit(0.25, pl.Float32), n_tokens=pl.lit(2, pl.Int32)
    ).write_parquet(file)
    main(["check", str(writer.path)])
    output = capsys.readouterr().out
    assert "group_accuracy is not the mean of correct" in " ".join(output.split())
    assert "token_ids has another length than n_tokens" in " ".join(output.split())
    assert "likelihood" in output
    assert "needs logp, logp_after" in " ".join(output.split())


def test_check_says_what_analyze_then_skips(writer, capsys):
    from entropy_lab.analysis import analyze_all
    from entropy_lab.cli import main

    writer.write_rollouts(0, MINIMUM)
    main(["check", str(writer.path)])
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in capsys.readouterr().out.splitlines() if line}
    for name, columns in analyze_all(el.open_run(writer.path)).missing.items():
        assert lines[name] == f"no: needs {', '.join(columns)}"
    assert lines["solve_rates"] == "no: needs epoch"
    assert lines["training"] == "yes, without n_tokens, truncated"


@pytest.mark.parametrize("bad", [0.5, float("nan")])
def test_check_reports_token_values_that_cannot_be(writer, capsys, bad):
    from entropy_lab.cli import main

    values = {**MINIMUM, "token_logp": [[-1.0], [-1.0, bad], [-1.0], []]}
    writer.write_rollouts(0, values)
    main(["check", str(writer.path)])
    assert "token_logp holds a positive or NaN log-probability in 1 of 4 rows" in " ".join(
        capsys.readouterr().out.split()
    )
