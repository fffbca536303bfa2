"""What the reader of ROLL makes of its two dumps, and how its scalars are told from verl's."""

import json

import pytest

from entropy_lab.errors import RunFormatError
from entropy_lab.readers import Options, open_any
from tests.foreign_samples import lines, notes, tfevents, verl_scalars
from tests.foreign_token_samples import roll_columns, roll_rows, rollouts


def table(run):
    return run.scan().collect()


def test_columns_in_one_line(tmp_path):
    run = open_any(roll_columns(tmp_path, (0, 1)))
    frame = table(run)
    want = [one for step in (1, 2) for one in rollouts(step)]
    assert frame["step"].to_list() == [0] * 12 + [1] * 12
    assert frame["reward"].to_list() == [one["reward"] for one in want]
    assert frame["correct"].to_list() == [one["verdict"] for one in want]
    assert frame["group_id"].to_list() == [one["group"] for one in want]
    assert frame["source"].unique().to_list() == ["math"]
    assert frame["answer"].to_list() == ["0"] * 12 + ["1"] * 12


def test_rows_with_per_token_values(tmp_path):
    run = open_any(roll_rows(tmp_path, (0, 1)))
    frame = table(run)
    want = [one for step in (1, 2) for one in rollouts(step)]
    assert frame["n_tokens"].to_list() == [len(one["response"]) for one in want]
    assert frame["logp"].to_list() == pytest.approx([sum(one["logp"]) for one in want], rel=1e-6)
    entropies = [sum(one["entropy"]) / len(one["entropy"]) for one in want]
    assert frame["entropy"].to_list() == pytest.approx(entropies, rel=1e-6)
    assert frame["group_id"].to_list() == [one["group"] for one in want]
    assert frame["prompt"][0] == "<|user|>1+0=<|assistant|>"
    assert frame["completion"][0] == "1.0.0<|end|>"
    assert frame["correct"].null_count() == 24
    assert "what ROLL made of the scores" in notes(run)


def test_both_dumps_are_joined_by_their_texts(tmp_path):
    roll_columns(tmp_path, (0, 1))
    run = open_any(roll_rows(tmp_path, (0, 1)))
    frame = table(run)
    want = [one for step in (1, 2) for one in rollouts(step)]
    assert frame["reward"].to_list() == [one["reward"] for one in want]
    assert frame["normalised_reward"].to_list() == pytest.approx([one["advantage"] for one in want])
    assert frame["correct"].to_list() == [one["verdict"] for one in want]
    assert frame["answer"].to_list() == ["0"] * 12 + ["1"] * 12
    assert "logp" in run.columns


def test_dumps_of_other_texts_are_not_joined(tmp_path):
    roll_columns(tmp_path, (0,))
    file = tmp_path / "dump" / "rollout_dump_data.step_0.jsonl"
    file.write_text(file.read_text().replace("1.0.0", "something else"))
    roll_rows(tmp_path, (0,))
    with pytest.warns(UserWarning, match="its texts are not those of"):
        frame = table(open_any(tmp_path))
    assert frame["reward"].to_list() == pytest.approx([one["advantage"] for one in rollouts(1)])


def test_a_step_that_was_trained_again(tmp_path):
    roll_rows(tmp_path / "first", (0, 1))
    roll_rows(tmp_path, (1,))
    for file in (tmp_path / "first" / "board").iterdir():
        file.rename(tmp_path / "board" / file.name.replace("20260101", "20250101"))
    (tmp_path / "board" / "data_20250102_000000_000.jsonl").write_bytes(
        (tmp_path / "board" / "data_20250101_000000_000.jsonl").read_bytes()
    )
    assert table(open_any(tmp_path))["step"].to_list() == [0] * 8 + [1] * 12


def test_faults_of_columns(tmp_path):
    roll_columns(tmp_path, (0,))
    file = tmp_path / "dump" / "rollout_dump_data.step_0.jsonl"
    columns = json.loads(file.read_text())
    lines(file, [{**columns, "scores": columns["scores"][1:]}])
    with pytest.raises(RunFormatError, match="line 1 has columns of different lengths"):
        open_any(tmp_path)
    lines(file, [{key: part for key, part in columns.items() if key != "scores"}])
    with pytest.raises(RunFormatError, match="line 1 has no column scores"):
        open_any(tmp_path)


def test_rows_of_another_step_are_refused(tmp_path):
    roll_rows(tmp_path, (0,))
    file = tmp_path / "board" / "data_20260101_000000_001.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    lines(file, [*rows[:2], {**rows[2], "step": 5}, *rows[3:]])
    with pytest.raises(RunFormatError, match="line 3 is of step 5: rows of several steps are mixed"):
        open_any(tmp_path)
    with pytest.warns(UserWarning, match="left out 1 row"):
        assert table(open_any(tmp_path, Options(skip_invalid=True))).height == 11


@pytest.mark.parametrize(("framework", "extra"), [("verl", {}), ("roll", {"critic/entropy/mean": 1.25})])
def test_scalars_that_both_log_are_told_apart(tmp_path, framework, extra):
    scalars = {**verl_scalars(1), **extra}
    tfevents(tmp_path / "events.out.tfevents.1.host.0", [(1, name, value) for name, value in scalars.items()])
    run = open_any(tmp_path)
    assert run.info["imported"]["format"] == framework
    metrics = run.metrics()
    assert metrics["entropy"].to_list() == [1.25 if extra else 2.0]
    assert metrics["step"].to_list() == [1 if extra else 0]
    assert metrics["reward"].to_list() == pytest.approx([0.1], rel=1e-6)


def test_an_entropy_of_zero_was_not_computed(tmp_path):
    values = [(0, "critic/entropy/mean", 0.0), (1, "critic/entropy/mean", 1.0), (2, "critic/entropy/mean", 0.0)]
    values += [(step, "critic/score/mean", 0.5) for step in (0, 1, 2)]
    tfevents(tmp_path / "events.out.tfevents.1.host.0", values)
    run = open_any(tmp_path)
    assert run.metrics()["entropy"].to_list() == [None, 1.0, None]
    assert "is 0 at 2 steps, which says that it was not computed" in notes(run)


def test_the_records_of_a_console_log(tmp_path):
    values = {"critic/entropy/mean": 0.5, "tokens/response_length/mean": 7.0, "actor/lr": 1e-6, "note": "text"}
    records = [f"[INFO] metrics_tag: {json.dumps({'step': step, 'metrics': values})}" for step in (0, 1)]
    (tmp_path / "run.log").write_text("\n".join([*records, '[INFO] metrics_tag: {"step": 2, "met']))
    metrics = open_any(tmp_path).metrics()
    assert metrics.select("step", "entropy", "mean_length", "lr").rows() == [(step, 0.5, 7.0, 1e-6) for step in (0, 1)]


def test_trajectories_of_the_agentic_pipeline_are_named_and_passed_over(tmp_path):
    names = ("trajectory_data", "messages", "tools", "exp_name", "global_step")
    lines(tmp_path / "dump" / "rollout_dump_data.step_0.jsonl", [{name: ["x"] for name in names}])
    (tmp_path / "run.log").write_text('metrics_tag: {"step": 0, "metrics": {"critic/entropy/mean": 0.5}}\n')
    run = open_any(tmp_path)
    assert run.metrics()["entropy"].to_list() == [0.5]
    assert "rollout_dump_data.step_0.jsonl: of the agentic pipeline, without responses: not read" in notes(run)
