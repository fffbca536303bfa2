"""Layouts of verl's dumps that its own releases do not write: started again, renamed, in a folder a step."""

import pytest

from entropy_lab.errors import RunFormatError
from entropy_lab.readers import Options, open_any
from tests.foreign_samples import change, lines, notes, verl_v0, verl_v1


def other(row):
    return {**row, "output": f"again {row['output']}"}


def test_a_run_that_went_on_in_another_folder_counts_from_there(tmp_path):
    verl_v1(tmp_path / "monday", (1, 2, 3))
    verl_v1(tmp_path / "tuesday", (2, 3, 4))
    for step in (2, 3):
        change(tmp_path / "tuesday" / f"{step}.jsonl", other)
    run = open_any(tmp_path)
    frame = run.scan().collect()
    assert "tuesday goes on where monday was left: it counts from step 2 on" in notes(run)
    assert sorted(frame["step"].unique()) == [0, 1, 2, 3]
    again = frame["completion"].str.starts_with("again").to_list()
    assert again == [step in (1, 2) for step in frame["step"]]


def test_two_runs_that_begin_alike_are_refused(tmp_path):
    verl_v1(tmp_path / "a", (1, 2))
    verl_v1(tmp_path / "b", (1, 2))
    change(tmp_path / "b" / "1.jsonl", other)
    with pytest.raises(RunFormatError, match="dumps of several runs"):
        open_any(tmp_path)


@pytest.mark.parametrize("name", ["step_{}.jsonl", "global_step_{}.jsonl", "rollouts-Step{}.jsonl"])
def test_a_step_is_read_from_the_name_where_rows_do_not_say_it(tmp_path, name):
    verl_v0(tmp_path, (9, 10))
    for step in (9, 10):
        file = tmp_path / f"{step}.jsonl"
        change(file, lambda row: {key: value for key, value in row.items() if key != "step"})
        file.rename(tmp_path / name.format(step))
    assert [file.step for file in open_any(tmp_path).step_files] == [8, 9]


def test_rows_count_where_the_name_says_another_step(tmp_path):
    file = verl_v0(tmp_path, (1,)) / "1.jsonl"
    file.rename(tmp_path / "step_0.jsonl")
    assert [file.step for file in open_any(tmp_path).step_files] == [0]


def test_a_folder_a_step(tmp_path):
    for step in (1, 2):
        folder = tmp_path / f"step_{step}"
        (verl_v0(folder, (step,)) / f"{step}.jsonl").rename(folder / "rollouts.jsonl")
    run = open_any(tmp_path)
    assert [file.step for file in run.step_files] == [0, 1]


def test_the_key_reward_makes_no_validation_of_training_rollouts(tmp_path):
    verl_v0(tmp_path / "rollouts", (1, 2))
    verl_v0(tmp_path / "val_rollouts", (1, 2))
    for folder in ("rollouts", "val_rollouts"):
        for step in (1, 2):
            change(tmp_path / folder / f"{step}.jsonl", lambda row: {**row, "reward": row["score"]})
    run = open_any(tmp_path)
    assert (len(run.step_files), len(run.eval_files)) == (2, 2)


def test_training_that_counts_from_0(tmp_path):
    rows = [{"input": "1+1=", "output": str(k), "score": 1.0 * k} for k in range(2)]
    for step in (0, 1):
        lines(tmp_path / "rollouts" / f"step_{step}.jsonl", rows)
    run = open_any(tmp_path)
    assert ([file.step for file in run.step_files], run.eval_files) == ([0, 1], ())
    assert "the source's step s is our step s" in notes(run)


def test_a_pass_before_training_is_validation_in_a_folder_of_any_name(tmp_path):
    verl_v0(tmp_path / "val" / "rollouts", (2, 4))
    verl_v0(tmp_path / "rollouts", (0, 2))
    for step in (0, 2):
        change(tmp_path / "rollouts" / f"{step}.jsonl", lambda row: {**row, "reward": row["score"]})
    assert open_any(tmp_path / "rollouts").step_files == ()
    assert open_any(tmp_path / "val").step_files == ()


def test_a_score_that_is_no_number_does_not_void_the_verdicts_of_the_others(tmp_path):
    rows = [{"input": "1+1=", "output": str(k), "score": score, "step": 1} for k, score in enumerate((1.0, 0.0))]
    rows.append({**rows[0], "output": "x", "score": float("nan")})
    lines(tmp_path / "1.jsonl", rows)
    with pytest.warns(UserWarning, match="left out 1 row"):
        frame = open_any(tmp_path, Options(skip_invalid=True)).scan().collect()
    assert frame["correct"].to_list() == [True, False]


def test_a_step_of_null_is_no_other_step(tmp_path):
    verl_v0(tmp_path, (3,))
    change(tmp_path / "3.jsonl", lambda row: {**row, "step": None})
    assert [file.step for file in open_any(tmp_path).step_files] == [2]
