"""Tables of scalars under other names and in other shapes: CSV, JSON, Parquet, and what trackers export."""

import gzip
import json
import math
import sqlite3

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entropy_lab.errors import RunFormatError
from entropy_lab.readers import Options, open_any
from entropy_lab.readers.table_logs import step_column
from entropy_lab.readers.table_rows import flat
from tests.foreign_samples import lines, notes, wandb_log

ROWS = [{"step": step, "entropy": 0.5 / (step + 1), "reward": step / 4} for step in range(3)]


def csv_text(mark=",", step="step", cells=str):
    text = [mark.join((step, "entropy", "reward"))]
    return "\n".join([*text, *(mark.join(cells(value) for value in row.values()) for row in ROWS)]) + "\n"


def long(name="metric", step="step"):
    head = f"{step},{name},value\n"
    return head + "".join(f"{row['step']},{key},{row[key]}\n" for row in ROWS for key in ("entropy", "reward"))


SAME = {
    "semicolons": ("m.csv", csv_text(";")),
    "decimal commas": ("m.csv", csv_text(";", cells=lambda value: str(value).replace(".", ","))),
    "tabs": ("m.tsv", csv_text("\t")),
    "tabs under another suffix": ("m.csv", csv_text("\t")),
    "blanks": ("m.csv", csv_text(", ")),
    "UTF-16": ("m.csv", csv_text().encode("utf-16")),
    "capitals": ("m.csv", csv_text(step="Training Step").replace("entropy", "Entropy")),
    "steps as floats": ("m.csv", csv_text(cells=lambda value: f"{value:.9f}")),
    "a column of row numbers": (
        "m.csv",
        csv_text().replace("\n", "\n9,").replace("step", ",step", 1).removesuffix("9,"),
    ),
    "one row a metric": ("m.csv", long()),
    "one row a tag": ("m.csv", long("tag", "Step")),
    "a list of objects": ("m.json", json.dumps(ROWS)),
    "lists by column": ("m.json", json.dumps({key: [row[key] for row in ROWS] for key in ROWS[0]})),
    "pandas' columns": (
        "m.json",
        json.dumps({key: {str(n): row[key] for n, row in enumerate(ROWS)} for key in ROWS[0]}),
    ),
    "a history in a document": ("m.json", json.dumps({"config": {"lr": 1}, "history": ROWS})),
    "settings in the first line": ("m.jsonl", "\n".join(map(json.dumps, [{"config": {"lr": 1}}, *ROWS]))),
    "scalars in an envelope": (
        "m.jsonl",
        "\n".join(
            json.dumps({"step": row["step"], "metrics": {k: row[k] for k in ("entropy", "reward")}}) for row in ROWS
        ),
    ),
    "steps as texts": ("m.jsonl", "\n".join(json.dumps({**row, "step": str(row["step"])}) for row in ROWS)),
}


@pytest.mark.parametrize(("name", "content"), SAME.values(), ids=SAME)
def test_the_same_scalars_in_every_shape(tmp_path, name, content):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    metrics = open_any(tmp_path).metrics()
    assert set(metrics.columns) == {"step", "entropy", "reward"}
    for key in ROWS[0]:
        assert metrics[key].to_list() == pytest.approx([row[key] for row in ROWS])


@pytest.mark.parametrize("steps", [[0.0, 1.0, 2.0], ["0", "1", "2"]])
def test_parquet_with_steps_of_other_types(tmp_path, steps):
    pl.DataFrame({"step": steps, "entropy": [0.5, None, 0.25]}).write_parquet(tmp_path / "m.parquet")
    metrics = open_any(tmp_path).metrics()
    assert dict(zip(metrics["step"], metrics["entropy"], strict=True)) == {0: 0.5, 2: 0.25}


def test_rows_without_a_step_are_left_out_and_counted(tmp_path):
    (tmp_path / "m.csv").write_text("step,entropy\n0,0.5\n,0.3\n1,N/A\n2,0.25\n")
    run = open_any(tmp_path)
    assert run.metrics()["step"].to_list() == [0, 2]
    assert "m.csv: 1 rows without a step are left out" in notes(run)
    assert "no numbers" not in notes(run)
    for step in ("0.5", '"1,000"'):
        (tmp_path / "m.csv").write_text(f"step,entropy\n{step},0.5\n")
        with pytest.raises(RunFormatError, match=r"line 2 has step '(0\.5|1,000)'; a whole number"):
            open_any(tmp_path)


def test_nan_is_no_repetition(tmp_path):
    (tmp_path / "m.csv").write_text("step,entropy\n0,NaN\n1,0.5\n")
    run = open_any(tmp_path)
    assert math.isnan(run.metrics()["entropy"][0] or math.nan)
    assert "again" not in notes(run)


def test_an_export_of_wandb_whose_run_has_dashes_in_its_name(tmp_path):
    """Bookkeeping and the spread of several samples are no scalars."""
    head = ["Step", "qwen - grpo - train/entropy", "qwen - grpo - train/entropy__MIN", "qwen - grpo - _step"]
    text = "\n".join(['"' + '","'.join(head) + '"', '"1","0.5","0.5","10"', '"2","","","11"', '"3","0.25","0.2","12"'])
    (tmp_path / "wandb_export.csv").write_text(text + "\n")
    metrics = open_any(tmp_path).metrics()
    assert metrics.columns == ["step", "entropy"]
    assert metrics.rows() == [(1, 0.5), (3, 0.25)]


def test_what_the_page_of_tensorboard_exports(tmp_path):
    rows = [[1700000000.0 + step, step, 0.5 / (step + 1)] for step in range(3)]
    (tmp_path / "run-.-tag-train_entropy.json").write_text(json.dumps(rows))
    text = "Wall time,Step,Value\n" + "".join(f"{time},{step},{value}\n" for time, step, value in rows)
    (tmp_path / "run-.-tag-train_reward.csv").write_text(text)
    metrics = open_any(tmp_path).metrics()
    assert sorted(metrics.columns) == ["entropy", "reward", "step"]
    assert metrics["entropy"].to_list() == metrics["reward"].to_list() == [row[2] for row in rows]


def test_a_table_of_swanlab_without_its_times(tmp_path):
    (tmp_path / "m.csv").write_text("step,entropy,entropy_timestamp\n0,0.5,1700000000000\n1,0.25,1700000001000\n")
    assert open_any(tmp_path).metrics().columns == ["step", "entropy"]


@pytest.mark.parametrize("shape", ["wide", "long"])
def test_tables_of_several_runs_name_them(tmp_path, shape):
    frame = pl.DataFrame({"run_name": ["a", "a", "b", "b"], "step": [0, 1, 2, 3], "entropy": [0.5, 0.25, 0.125, 1.0]})
    if shape == "long":
        frame = frame.rename({"entropy": "value"}).with_columns(metric=pl.lit("entropy"))
    frame.write_parquet(tmp_path / "m.parquet")
    with pytest.raises(RunFormatError, match=r"holds 2 runs: a, b; one\. Hint: --run-name a"):
        open_any(tmp_path)
    assert open_any(tmp_path, Options(run_name="b")).metrics()["entropy"].to_list() == [0.125, 1.0]


def test_a_summary_alone_has_one_step(tmp_path):
    summary = {"_step": 7, "_runtime": 3.5, "entropy": 0.5, "_wandb": {"runtime": 3}}
    (tmp_path / "wandb-summary.json").write_text(json.dumps(summary))
    run = open_any(tmp_path)
    assert run.metrics().rows() == [(7, 0.5)]
    assert "has the last value of each scalar alone" in notes(run)
    wandb_log(tmp_path / "run-a.wandb", [(step, {"entropy": 0.25}) for step in range(3)])
    assert open_any(tmp_path).metrics()["entropy"].to_list() == [0.25] * 3  # beside the log it says nothing new


def test_rollouts_of_a_json_document_and_with_steps_as_floats(tmp_path):
    rows = [{"step": float(s), "prompt": p, "reward": float(k)} for s in (0, 1) for p in "ab" for k in (0, 1)]
    (tmp_path / "r.json").write_text(json.dumps(rows))
    frame = open_any(tmp_path).scan().collect()
    assert frame["step"].to_list() == [0] * 4 + [1] * 4
    assert frame["reward"].to_list() == [0.0, 1.0] * 4
    (tmp_path / "r.json").unlink()
    pl.DataFrame(rows).with_columns(pl.col("step").cast(pl.String)).write_csv(tmp_path / "r.csv", separator=";")
    again = open_any(tmp_path, out=tmp_path.parent / "again").scan().collect()
    assert again.equals(frame)
    lines(tmp_path / "r.jsonl", [{**rows[0], "step": 0.5}])
    (tmp_path / "r.csv").unlink()
    with pytest.raises(RunFormatError, match="column step holds values that are no whole number"):
        open_any(tmp_path)


def test_other_documents_and_files_are_no_tables(tmp_path):
    (tmp_path / "config.json").write_text('{"max_steps": 9, "layers": [1, 2]}')
    (tmp_path / "broken.json").write_text('{"step": ')
    (tmp_path / "m.csv.gz").write_bytes(gzip.compress(csv_text().encode()))
    (tmp_path / "m.csv").write_text(csv_text())
    assert open_any(tmp_path).metrics().columns == ["step", "entropy", "reward"]


@given(st.sampled_from(["step", "global_step", "iteration", "training_step"]), st.booleans(), st.booleans())
def test_a_step_is_found_however_it_is_spelled(name, capitals, blanks):
    spelled = name.replace("_", " ") if blanks else name
    spelled = spelled.title() if capitals else spelled
    assert step_column(["epoch", spelled, "entropy"]) == spelled
    assert step_column(["epoch", "entropy", "steps_per_second"]) is None


@given(st.dictionaries(st.sampled_from("abc"), st.integers() | st.dictionaries(st.sampled_from("xyz"), st.integers())))
def test_nested_values_keep_their_number(row):
    leaves = sum(len(value) if isinstance(value, dict) else 1 for value in row.values())
    assert len(flat(row)) == leaves


def mlflow_folder(folder, values, name="my run"):
    (folder / "params" / "actor_rollout_ref" / "actor").mkdir(parents=True)
    (folder / "meta.yaml").write_text(f"run_id: r\nrun_name: {name}\n")
    (folder / "params" / "actor_rollout_ref" / "actor" / "loss_agg_mode").write_text("token-mean")
    for key, numbers in values.items():
        file = folder / "metrics" / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"17000000000{step:02d} {value} {step}\n" for step, value in numbers.items()))


def mlflow_database(file, runs):
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE runs (run_uuid TEXT, name TEXT)")
        database.execute("CREATE TABLE params (key TEXT, value TEXT, run_uuid TEXT)")
        database.execute(
            "CREATE TABLE metrics (key TEXT, value REAL, timestamp INT, run_uuid TEXT, step INT, is_nan BOOLEAN)"
        )
        for number, (name, values) in enumerate(runs.items()):
            database.execute("INSERT INTO runs VALUES (?, ?)", (f"u{number}", name))
            database.execute("INSERT INTO params VALUES ('a/b', '1', ?)", (f"u{number}",))
            rows = [(key, v, 17, f"u{number}", s, v == -1) for key, part in values.items() for s, v in part.items()]
            database.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?)", rows)
    database.close()
    return file


def test_the_folders_of_mlflow(tmp_path):
    values = {"actor/entropy": {1: 0.5, 2: "nan", 3: 0.25}, "actor/pg_loss": {1: 0.125, 2: 0.5, 3: 1.0}}
    mlflow_folder(tmp_path / "mlruns" / "0" / "abc", values)
    (tmp_path / "mlruns" / "0" / "meta.yaml").write_text("experiment_id: 0\n")
    run = open_any(tmp_path)
    assert run.info["imported"]["format"] == "verl"
    assert "loss_agg_mode is unknown" not in notes(run)  # the parameters say it
    assert run.metrics()["step"].to_list() == [0, 1, 2]
    assert run.metrics()["actor/pg_loss"].to_list() == [0.125, 0.5, 1.0]


def test_a_database_of_mlflow(tmp_path):
    runs = {"one": {"entropy": {0: 0.5, 1: -1.0}}, "two": {"entropy": {0: 0.25}}}
    mlflow_database(tmp_path / "mlflow.db", runs)
    with pytest.raises(RunFormatError, match=r"mlflow\.db: holds 2 runs: one, two; one run\. Hint: --run-name two"):
        open_any(tmp_path)
    run = open_any(tmp_path, Options(run_name="one"))
    assert run.info["imported"]["format"] == "mlflow"
    assert run.info["config"] == {"a.b": "1"}
    metrics = run.metrics()
    assert metrics["entropy"][0] == 0.5
    assert metrics["entropy"][1] is None or math.isnan(metrics["entropy"][1])  # stored as a number beside a mark
