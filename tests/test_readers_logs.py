"""Logs of scalars: decoded exactly, damage said, joined or refused; and plain tables."""

import csv
import json
import math
import sqlite3
import struct
import zlib

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entropy_lab.errors import RunFormatError, UnknownNameError
from entropy_lab.readers import Options, open_any
from entropy_lab.readers.protobuf import fields, float32
from entropy_lab.readers.scalars import agreement, as_number
from entropy_lab.readers.tfevents import Damage, Event, masked_crc, read_events
from entropy_lab.readers.wandb_log import read_log
from tests.foreign_samples import crc32c, field, lines, tfevents, trackio_db, varint, wandb_log


@given(st.integers(0, 2**64 - 1), st.binary(max_size=300), st.floats(width=32, allow_nan=False))
def test_fields_are_what_was_encoded(number, text, value):
    message = field(1, number) + field(7, text) + field(200, value)
    first, second, third = fields(message)
    assert (first, second, third[0]) == ((1, number), (7, text), 200)
    assert float32(third[1]) == value
    with pytest.raises(ValueError, match="cut off"):
        list(fields(message[:-1]))


@given(st.lists(st.binary(max_size=70), max_size=8))
def test_checksums_are_those_of_the_bitwise_definition(payloads):
    assert masked_crc(payloads) == [crc32c(payload) for payload in payloads]


def test_events_of_both_kinds_and_negative_steps(tmp_path):
    scalars = [(step, tag, value) for step in (-1, 0, 300) for tag, value in (("a/b", 0.5), ("c", -2.25))]
    file = tfevents(tmp_path / "events.out.tfevents.1.h.0", scalars, [("args/text_summary", "{}")])
    assert list(read_events(file)) == [*(Event(*row) for row in scalars), Event(0, "args/text_summary", "{}")]


def test_damaged_events_are_said_and_the_rest_is_read(tmp_path):
    file = tfevents(tmp_path / "events.out.tfevents.1.h.0", [(step, "entropy", step / 8) for step in range(9)])
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])
    found = list(read_events(file))
    assert [event.step for event in found[:-1]] == list(range(8))
    assert found[-1].what == "cut off"
    middle = whole.index(b"entropy", len(whole) // 2)
    file.write_bytes(whole[:middle] + b"X" + whole[middle + 1 :])
    found = list(read_events(file))
    assert len([event for event in found if isinstance(event, Event)]) == 8
    assert len([event for event in found if isinstance(event, Damage)]) == 1
    with pytest.warns(UserWarning, match="does not fit its checksum"):
        assert open_any(tmp_path).metrics().height == 8


def test_a_wandb_log_over_many_blocks(tmp_path):
    long = "x" * 70_000
    history = [(step, {"loss": step / 3, "note": long if step % 7 == 0 else "", "nan": math.nan}) for step in range(30)]
    file = wandb_log(tmp_path / "run-a.wandb", history, [("lr", 0.1), ("_wandb", {"version": 1})])
    log = read_log(file)
    assert (log.name, log.project, log.damage) == ("my-run", "project", "")
    assert [(row["_step"], row["loss"], row["note"]) for row in log.history] == [
        (step, row["loss"], row["note"]) for step, row in history
    ]
    assert log.config["lr"] == 0.1
    whole = file.read_bytes()
    file.write_bytes(whole[:-3])
    assert (read_log(file).damage, len(read_log(file).history)) == ("cut off", 29)
    file.write_bytes(whole[:100] + b"?" + whole[101:])
    assert "does not fit its checksum" in read_log(file).damage
    file.write_bytes(b":W&B")
    assert read_log(file).history == []


def test_typed_values_of_newer_clients(tmp_path):
    number = varint(6 << 3 | 1) + struct.pack("<d", 0.1)
    items = field(1, field(2, "a") + field(2, "b") + number) + field(1, field(1, "n") + field(5, -3 % 2**64))
    items += field(1, field(1, "t") + field(8, '{"_type": "table-file", "path": "p"}'))
    file = wandb_log(tmp_path / "run-a.wandb", [])
    record = field(2, items + field(2, field(1, 4)))
    head = struct.pack("<IHB", zlib.crc32(b"\1" + record), len(record), 1)
    with file.open("ab") as stream:
        stream.write(head + record)
    assert read_log(file).history == [{"a.b": 0.1, "n": -3, "t._type": "table-file", "t.path": "p", "_step": 4}]


@pytest.mark.parametrize("kind", ["wandb", "trackio", "tensorboard", "table"])
def test_unknown_frameworks_are_read_by_name(tmp_path, kind):
    rows = [{"entropy": 0.5 / (step + 1), "my/score": float(step)} for step in range(3)]
    if kind == "wandb":
        wandb_log(tmp_path / "run-a.wandb", list(enumerate(rows)))
    elif kind == "trackio":
        trackio_db(tmp_path / "p.db", {"one": rows})
    elif kind == "tensorboard":
        scalars = [(step, name, value) for step, row in enumerate(rows) for name, value in row.items()]
        tfevents(tmp_path / "events.out.tfevents.1.h.0", scalars)
    else:
        lines(tmp_path / "metrics.jsonl", [{"step": step, **row} for step, row in enumerate(rows)])
    run = open_any(tmp_path, Options(columns={"reward": "my/score"}))
    assert run.info["imported"]["format"] == kind
    metrics = run.metrics()
    assert metrics["step"].to_list() == [0, 1, 2]
    assert metrics["entropy"].to_list() == pytest.approx([0.5, 0.25, 0.5 / 3])
    assert metrics["reward"].to_list() == [0.0, 1.0, 2.0]
    assert run.info["imported"]["metric_names"] == {"reward": "my/score"}


def test_a_trackio_database_is_left_as_it_was(tmp_path):
    trackio_db(tmp_path / "p.db", {"one": [{"entropy": 0.5}]})
    database = sqlite3.connect(tmp_path / "p.db")
    database.execute("PRAGMA journal_mode=WAL")
    database.close()
    before = sorted(path.name for path in tmp_path.iterdir())
    open_any(tmp_path, out=tmp_path.parent / "elsewhere")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_an_export_of_several_runs_names_them(tmp_path):
    with (tmp_path / "wandb_export.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["Step", "a - train/entropy", "a - train/entropy__MIN", "b - train/entropy"])
        writer.writerows([[1, 0.5, 0.4, 0.25], [2, 0.25, 0.2, ""]])
    with pytest.raises(RunFormatError, match="holds 2 runs: a, b"):
        open_any(tmp_path)
    metrics = open_any(tmp_path, Options(run_name="a")).metrics()
    assert metrics.columns == ["step", "entropy"]
    assert metrics["entropy"].to_list() == [0.5, 0.25]


def test_a_table_of_rollouts_by_mapping(tmp_path):
    rows = [
        {"iteration": step, "question": q, "score": float(k % 2), "reply": f"{q}{k}", "meta": {"k": k}, "len": k + 1}
        for step in (5, 6)
        for q in "ab"
        for k in range(3)
    ]
    lines(tmp_path / "rollouts.jsonl", rows)
    columns = {"reward": "score", "prompt": "question", "completion": "reply", "n_tokens": "len"}
    run = open_any(tmp_path, Options(columns=columns))
    frame = run.scan().collect()
    assert frame["step"].to_list() == [5] * 6 + [6] * 6
    assert frame["completion"].to_list() == [row["reply"] for row in rows]
    assert frame["n_tokens"].to_list() == [row["len"] for row in rows]
    assert frame["correct"].to_list() == [row["score"] == 1 for row in rows]
    assert [json.loads(text) for text in frame["meta"]] == [row["meta"] for row in rows]
    parquet = tmp_path / "other"
    parquet.mkdir()
    pl.DataFrame(rows).drop("meta").write_parquet(parquet / "r.parquet")
    again = open_any(parquet, Options(columns=columns)).scan().collect()
    assert again.equals(frame.drop("meta"))
    with pytest.raises(UnknownNameError, match="scor is no column of the source"):
        open_any(parquet, Options(columns={"reward": "scor"}))
    with pytest.raises(UnknownNameError, match=r"--map rewar=…: is no column of ours.*--map reward=score"):
        open_any(parquet, Options(columns={"rewar": "score"}))


def test_rows_of_rollouts_are_not_folded_into_scalars(tmp_path):
    lines(tmp_path / "r.jsonl", [{"step": 1, "score": k / 8, "text": "x"} for k in range(8)])
    with pytest.raises(RunFormatError, match="several rows of most steps"):
        open_any(tmp_path)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_read_out_of_their_texts(value):
    for text in (value, repr(value), f"np.float64({value!r})", f" {value!r} "):
        assert as_number(text) == value


def test_runs_that_share_only_zeros_and_ones_do_not_agree():
    first = {step: {"entropy": 0.5 + step, "clip": 0.0, "max": 1.0} for step in range(9)}
    second = {step: {**row, "entropy": row["entropy"] * 1.5} for step, row in first.items()}
    assert agreement(first, second) == 0.0
    assert agreement(first, {step: {**row, "entropy": round(row["entropy"], 3)} for step, row in first.items()}) == 1.0
