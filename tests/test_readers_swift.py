"""What the reader of TRL makes of ms-swift's completions, and of trainers before and beside GRPOTrainer."""

import polars as pl
import pytest

from entropy_lab.errors import RunFormatError
from entropy_lab.readers import Options, open_any
from tests.foreign_samples import lines, trainer_state, trl_completions, trl_entry, trl_rows


def generation(n, **counter):
    rewards = [1, 0, 0, n % 2]  # whole numbers, as JSON has them
    mean = sum(rewards) / 4
    return {
        **{name: [value] * 4 for name, value in counter.items()},
        "prompt": [f"<user>{n}+1="] * 4,
        "completion": [f"{n}.{k}" for k in range(4)],
        "accuracy": rewards,
        "advantages": [reward - mean for reward in rewards],
    }


def test_completions_of_ms_swift_are_rollouts(tmp_path):
    lines(tmp_path / "completions.jsonl", [generation(n, gen_step=8 * n) for n in range(3)])
    log = [{"reward": 0.5, "reward_std": 0.1, "loss": 0.1, "global_step/max_steps": f"{n}/3"} for n in (1, 2, 3)]
    lines(tmp_path / "logging.jsonl", log)
    run = open_any(tmp_path)
    frame = run.scan().collect()
    assert run.info["imported"]["version"] == "completions, table"
    assert frame["step"].to_list() == [0] * 4 + [1] * 4 + [2] * 4
    assert frame["reward"].to_list() == [1, 0, 0, 0, 1, 0, 0, 1, 1, 0, 0, 0]
    assert frame["advantage"].to_list()[:2] == [0.75, -0.25]
    assert "gen_step" not in frame.columns
    assert run.metrics()["step"].to_list() == [0, 1, 2]
    assert "the n-th generation is taken for update n" in " ".join(run.info["imported"]["notes"])


def test_releases_that_state_the_trainer_s_step_keep_it(tmp_path):
    lines(tmp_path / "completions.jsonl", [generation(n, step=str(n)) for n in (1, 3)])
    assert [file.step for file in open_any(tmp_path).step_files] == [0, 2]


def test_a_line_that_is_no_generation_is_named(tmp_path):
    lines(tmp_path / "completions.jsonl", [generation(0, gen_step=0), {"prompt": "2+1=", "completion": "3"}])
    with pytest.raises(RunFormatError, match=r"completions.jsonl: line 2 has no lists of prompts and completions"):
        open_any(tmp_path)


def test_scalars_of_trl_s_ppo_trainer(tmp_path):
    entry = {"objective/rlhf_reward": 0.4, "objective/scores": 0.5, "objective/entropy": 20.0, "lr": 1e-6}
    trainer_state(tmp_path / "trainer_state.json", [{"step": n, "policy/entropy_avg": 1.2, **entry} for n in (1, 2)])
    metrics = open_any(tmp_path).metrics()
    assert metrics["reward"].to_list() == [0.5, 0.5]
    assert metrics["lr"].to_list() == [1e-6] * 2
    assert metrics["objective/entropy"].to_list() == [20.0] * 2  # summed over a completion, and sampled
    assert "entropy" not in metrics.columns


def test_entries_of_no_step_are_left_out_and_said(tmp_path):
    entries = [trl_entry(1), {**trl_entry(2), "step": 2.0}, {"train_runtime": 3.0}]
    run = open_any(trainer_state(tmp_path / "trainer_state.json", entries))
    assert run.metrics()["step"].to_list() == [0, 1]
    assert "entry 2 has no step: 1 of 3 entries are left out" in " ".join(run.info["imported"]["notes"])
    bare = trainer_state(tmp_path / "bare" / "trainer_state.json", [{"reward": 0.5, "reward_std": 0.1}])
    with pytest.raises(RunFormatError, match="entry 0 has no step"):
        open_any(bare)


@pytest.mark.parametrize(
    "edit", [lambda frame: frame.drop("step"), lambda frame: frame.with_columns(step=pl.lit(None))]
)
def test_completions_without_a_step_have_that_of_their_file(tmp_path, edit):
    for step in (1, 2):
        trl_completions(tmp_path, step, list(trl_rows(step)))
        file = tmp_path / f"completions_{step:05d}.parquet"
        edit(pl.read_parquet(file)).write_parquet(file)
    assert [file.step for file in open_any(tmp_path).step_files] == [0, 1]


def test_renamed_columns_are_read_as_a_table(tmp_path):
    trl_completions(tmp_path, 1, list(trl_rows(1)))
    file = tmp_path / "completions_00001.parquet"
    pl.read_parquet(file).rename({"prompt": "question"}).write_parquet(file)
    with pytest.raises(RunFormatError, match=r"has no prompt; .*--format table --map prompt=COLUMN"):
        open_any(tmp_path)
    run = open_any(tmp_path, Options(format="table", columns={"prompt": "question", "reward": "exact"}))
    assert run.scan().collect().height == 8
