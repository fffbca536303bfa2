"""What the reader of TRL makes of completions and of the Trainer's logs, with the traps of both."""

import json

import polars as pl
import pytest

from entropy_lab.errors import ParameterError, RunFormatError, UnknownNameError
from entropy_lab.readers import Options, open_any
from tests.foreign_samples import (
    notes,
    tfevents,
    trackio_db,
    trainer_state,
    trl_completions,
    trl_entry,
    trl_rows,
    wandb_log,
)


def completions(folder, steps, **shape):
    for step in steps:
        trl_completions(folder / "completions", step, list(trl_rows(step, **shape)))
    return folder


def rollouts(run):
    return run.scan().collect()


def test_every_value_arrives_in_groups_of_rows(tmp_path):
    completions(tmp_path, (1, 2, 3))
    trainer_state(tmp_path / "checkpoint-3" / "trainer_state.json", [trl_entry(step) for step in (1, 2, 3)])
    run = open_any(tmp_path)
    frame = rollouts(run)
    want = [row for step in (1, 2, 3) for row in trl_rows(step)]
    assert frame["prompt"].to_list() == [row[0] for row in want]
    assert frame["completion"].to_list() == [row[1] for row in want]
    assert frame["reward"].to_list() == [row[2]["exact"] for row in want]
    assert frame["correct"].to_list() == [row[2]["exact"] == 1 for row in want]
    assert frame["advantage"].to_list() == [row[3] for row in want]
    assert frame["group_id"].to_list() == [0, 0, 0, 0, 1, 1, 1, 1] * 3
    assert frame["step"].to_list() == [0] * 8 + [1] * 8 + [2] * 8
    metrics = run.metrics()
    assert metrics["entropy"].to_list() == [1.5, 0.75, 0.5]
    assert metrics["clip_fraction_low"].to_list() == [0.01] * 3
    assert metrics["lr"].to_list() == [1e-5] * 3
    assert metrics["trl/epoch"].to_list() == [0.25, 0.5, 0.75]


def test_a_generation_used_twice_is_kept_once(tmp_path):
    for step in (1, 2, 3, 4):
        trl_completions(tmp_path / "completions", step, list(trl_rows((step + 1) // 2)), name=step)
    run = open_any(tmp_path)
    assert [file.step for file in run.step_files] == [0, 2]
    assert "steps 2, 4" in notes(run)


def test_sparse_logs_are_said(tmp_path):
    completions(tmp_path, (10, 20, 30))
    run = open_any(tmp_path)
    assert [file.step for file in run.step_files] == [9, 19, 29]
    assert "every 10 steps" in notes(run)


def test_an_evaluation_that_overwrote_the_training_file_becomes_evals(tmp_path):
    completions(tmp_path, (1, 2, 3))
    entries = [trl_entry(1), trl_entry(2, reward=0.9), {"step": 2, "eval_reward": 0.4, "eval_loss": 0.1}, trl_entry(3)]
    trainer_state(tmp_path / "trainer_state.json", entries)
    run = open_any(tmp_path)
    assert [file.step for file in run.step_files] == [0, 2]
    assert [file.step for file in run.eval_files] == [1]
    assert pl.read_parquet(run.eval_files[0].path)["completion"].to_list() == [row[1] for row in trl_rows(2)]
    assert "overwrote the training completions" in notes(run)
    assert run.metrics()["eval_reward"].to_list() == [None, 0.4, None]


def test_an_evaluation_without_completions_overwrites_nothing(tmp_path):
    completions(tmp_path, (1, 2))
    entries = [trl_entry(1), trl_entry(2, reward=0.5), {"step": 2, "eval_reward": 0.4}]
    trainer_state(tmp_path / "trainer_state.json", entries)  # the file's mean reward is the logged training reward
    assert [file.step for file in open_any(tmp_path).step_files] == [0, 1]


@pytest.mark.parametrize("prompts", [["p", "p"], ["p", "q", "q"]])
def test_neighbouring_groups_of_one_prompt_stay_two(tmp_path, prompts):
    rows = []
    for n, prompt in enumerate(prompts * 5):
        rewards = [float((k + n) % 3 == 0) for k in range(4)]
        rows += [(prompt, f"{n}.{k}", {"r": r}, r - sum(rewards) / 4) for k, r in enumerate(rewards)]
    trl_completions(tmp_path / "completions", 1, rows)
    frame = rollouts(open_any(tmp_path))
    assert frame["group_id"].to_list() == [k // 4 for k in range(len(rows))]


def test_rewards_are_summed_with_their_weights_and_none_counts_nothing(tmp_path):
    rows = [("p", str(k), {"a": a, "b": b}, 0.0) for k, (a, b) in enumerate([(1.0, 0.5), (float("nan"), 0.25)])]
    trl_completions(tmp_path / "completions", 1, rows)
    settings = json.dumps({"num_generations": 2, "reward_weights": [1.0, 2.0], "loss_type": "dapo"})
    scalars = [
        (1, "train/frac_reward_zero_std", 0.0),
        (1, "train/rewards/a/mean", 1.0),
        (1, "train/rewards/b/mean", 0.4),
    ]
    tfevents(tmp_path / "runs" / "now" / "events.out.tfevents.1.h.0", scalars, [("args/text_summary", settings)])
    run = open_any(tmp_path)
    frame = rollouts(run)
    assert frame["reward"].to_list() == [2.0, 0.5]
    assert frame["a"].to_list() == [1.0, None]
    assert run.method["params"]["loss_type"] == "dapo"
    assert run.info["group_size"] == 2


def test_a_reward_function_can_be_the_verdict(tmp_path):
    rows = [("p", str(k), {"length": 0.1 * k, "accuracy_reward": k % 2.0}, 0.0) for k in range(4)]
    trl_completions(tmp_path / "completions", 1, rows)
    assert rollouts(open_any(tmp_path))["correct"].to_list() == [False, True, False, True]
    with pytest.raises(ParameterError, match="other values than 0 and 1"):
        open_any(tmp_path, Options(columns={"correct": "length"}))
    with pytest.raises(UnknownNameError, match="names no column"):
        open_any(tmp_path, Options(columns={"correct": "acuracy"}))


def test_conversations_are_kept_whole(tmp_path):
    prompt = [{"role": "system", "content": "s"}, {"role": "user", "content": "1+1="}]
    pl.DataFrame(
        {
            "step": [1, 1],
            "prompt": [prompt, prompt],
            "completion": [[{"role": "assistant", "content": "2"}], [{"role": "assistant", "content": "3"}]],
            "exact": [1.0, 0.0],
            "advantage": [0.5, -0.5],
        }
    ).write_parquet((tmp_path / "completions").mkdir() or tmp_path / "completions" / "completions_00001.parquet")
    frame = rollouts(open_any(tmp_path))
    assert frame["completion"].to_list() == ["2", "3"]
    assert json.loads(frame["prompt"][0]) == prompt


def test_a_file_of_mixed_steps_is_refused(tmp_path):
    completions(tmp_path, (1,))
    file = tmp_path / "completions" / "completions_00001.parquet"
    frame = pl.read_parquet(file).with_columns(step=pl.Series([1] * 7 + [2]))
    frame.write_parquet(file)
    with pytest.raises(RunFormatError, match=r"completions_00001\.parquet: mixes rows of steps 1 to 2"):
        open_any(tmp_path)


def test_only_the_last_checkpoint_counts(tmp_path):
    for last in (2, 10):
        entries = [trl_entry(step) for step in range(1, last + 1)]
        trainer_state(tmp_path / f"checkpoint-{last}" / "trainer_state.json", entries)
    run = open_any(tmp_path)
    assert run.metrics().height == 10
    assert "checkpoint-10/" in run.info["imported"]["evidence"][0]


def test_printed_entries_take_the_steps_of_the_progress_bar(tmp_path):
    text = (
        "Map: 100%|##########| 1400/1400 [00:00<00:00, 9411.74 examples/s]\n"
        "\r  0%|          | 0/6 [00:00<?, ?it/s]\r 33%|###   | 2/6 [00:10<00:20,  5.00s/it]\r{'loss': '0.05', "
        "'reward': '0.25', 'reward_std': '0.1', 'entropy': nan, 'epoch': '0.33'}\n"
        "\r 66%|######| 4/6 [00:20<00:10,  5.00s/it]\n{'loss': 0.04, 'reward': 0.5, 'rewa\n"
        "rd_std': 0.1, 'entropy': 0.75,\n 'epoch': 0.66}\n{'eval_loss': 0.1, 'eval_reward': 0.3}\n"
        "100%|######| 6/6 [00:30<00:00,  5.00s/it]{'loss': 0.03, 'reward': 0.6, 'reward_std': 0.1, 'entropy': 0.5}\n"
        "{'train_runtime': 9.0, 'train_loss': 0.04}\n"
    )
    (tmp_path / "train.log").write_text(text)
    metrics = open_any(tmp_path / "train.log").metrics()
    assert metrics["step"].to_list() == [1, 3, 5]
    assert metrics["entropy"].to_list() == [None, 0.75, 0.5]
    assert metrics["eval_reward"].to_list() == [None, 0.3, None]
    assert metrics["train_runtime"].to_list() == [None, None, 9.0]
    (tmp_path / "bare.log").write_text("{'loss': 0.1, 'reward_std': 0.1}\n{'loss': 0.2, 'reward_std': 0.1}\n")
    bare = open_any(tmp_path / "bare.log")
    assert bare.metrics()["loss"].to_list() == [0.1, 0.2]
    assert "the n-th printed entry" in notes(bare)


def tables(step, values):
    names = ["step", "prompt", "completion", "exact", "advantage"]
    return names, [[str(step), p, c, r["exact"], a] for p, c, r, a in values]


def test_tables_of_wandb_are_completions(tmp_path):
    """The table is logged apart from the scalars, without the Trainer's step; an evaluation logs a second one."""
    history, media = [], tmp_path / "wandb" / "offline-run-1-x" / "files" / "media" / "table"
    media.mkdir(parents=True)
    for step in (1, 2):
        history.append({"train/global_step": step, "train/reward": 0.5, "train/frac_reward_zero_std": 0.0})
        for kind in ("train", "eval") if step == 2 else ("train",):
            if kind == "eval":
                history.append({"train/global_step": 2, "eval/reward": 0.3})
            names, data = tables(step, [(p, f"{kind} {c}", r, a) for p, c, r, a in trl_rows(step)])
            (media / f"{kind}{step}.json").write_text(json.dumps({"columns": names, "data": data}))
            history.append(
                {"completions": {"_type": "table-file", "path": f"media/table/{kind}{step}.json", "nrows": 8}}
            )
    wandb_log(media.parents[2] / "run-x.wandb", list(enumerate(history)), [("num_generations", 4), ("beta", 0.1)])
    run = open_any(tmp_path)
    assert [file.step for file in run.step_files] == [0, 1]
    assert rollouts(run)["completion"].to_list() == [f"train {row[1]}" for step in (1, 2) for row in trl_rows(step)]
    assert pl.read_parquet(run.eval_files[0].path)["completion"].to_list() == [f"eval {row[1]}" for row in trl_rows(2)]
    assert run.metrics()["reward"].to_list() == [0.5, 0.5]
    assert run.method["params"] == {"beta": 0.1}


def test_trackio_holds_tables_and_several_runs(tmp_path):
    rows = []
    for step in (1, 2):
        names, data = tables(step, trl_rows(step))
        rows.append(
            {"train/global_step": step, "train/frac_reward_zero_std": 0.0, "train/entropy": 1 / step, "x": "NaN"}
        )
        table = [dict(zip(names, row, strict=True)) for row in data]
        rows.append({"completions": {"_type": "trackio.table", "_value": table}})
    trackio_db(tmp_path / "p.db", {"one": rows, "two": rows[:2]})
    with pytest.raises(RunFormatError, match="holds 2 runs: one, two"):
        open_any(tmp_path)
    run = open_any(tmp_path, Options(run_name="one"))
    assert rollouts(run)["completion"].to_list() == [row[1] for step in (1, 2) for row in trl_rows(step)]
    assert run.metrics()["entropy"].to_list() == [1.0, 0.5]
    assert run.info["config"] == {"num_generations": 4}


def test_token_level_rows_of_a_hook_are_joined_by_row(tmp_path):
    completions(tmp_path, (1,))
    rows = list(trl_rows(1))
    order = [3, 1, 0, 2, 7, 6, 5, 4]
    frame = pl.DataFrame(
        {
            "step": [0] * 8,
            "row": order,
            "completion_ids": [[row, 1] for row in order],
            "logprob": [[-0.5, -float(row)] for row in order],
            "entropy": [[1.0, float(row)] for row in order],
            "advantage": [[rows[row][3]] * 2 for row in order],
        }
    )
    frame.write_parquet(tmp_path / "tokens.parquet")
    joined = rollouts(open_any(tmp_path))
    assert joined["token_ids"].to_list() == [[row, 1] for row in range(8)]
    assert joined["logp"].to_list() == [-0.5 - row for row in range(8)]
    assert joined["entropy"].to_list() == [(1 + row) / 2 for row in range(8)]
    frame.with_columns(advantage=pl.Series([[9.0, 9.0]] * 8)).write_parquet(tmp_path / "tokens.parquet")
    with pytest.raises(RunFormatError, match="other advantages"):
        open_any(tmp_path, out=tmp_path / "again")
