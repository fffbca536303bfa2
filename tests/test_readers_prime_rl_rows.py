"""What the reader of prime-rl makes of the rollouts and scalars of its older releases."""

import gzip
import json

import polars as pl
import pytest

from entropy_lab.errors import RunFormatError
from entropy_lab.readers import open_any
from tests.foreign_samples import lines, wandb_log
from tests.foreign_token_samples import prime_rl_episodes, prime_rl_exports, rollouts


def table(run):
    return run.scan().collect()


def row(one, number):
    """A rollout as ``verifiers`` gives it, without its trajectory."""
    return {
        "example_id": 100 + one["group"],
        "task": "add",
        "env_name": "add",
        "prompt": [{"role": "user", "content": one["question"]}],
        "completion": [{"role": "assistant", "content": one["said"], "tool_calls": None}],
        "answer": "7",
        "reward": one["reward"],
        "advantage": one["advantage"],
        "metrics": {"exact": one["reward"]},
        "timing": {"total_ms": 3.0},
        "is_completed": True,
        "is_truncated": number % 5 == 4,
        "error": None,
    }


def rows_file(folder, step, name="train_rollouts.jsonl"):
    rows = [row(one, number) for number, one in enumerate(rollouts(step))]
    return lines(folder / "run_default" / "rollouts" / f"step_{step - 1}" / name, rows[1::2] + rows[::2])


def test_rows_without_tokens(tmp_path):
    for step in (1, 2):
        rows_file(tmp_path, step)
    rows_file(tmp_path, 2, "eval_rollouts.jsonl")
    run = open_any(tmp_path)
    frame = table(run)
    want = sorted((one["said"], one["reward"], one["advantage"]) for step in (1, 2) for one in rollouts(step))
    assert sorted(frame.select("completion", "reward", "advantage").iter_rows()) == want
    assert frame.group_by("step", "group_id").len()["len"].to_list() == [4] * 6
    assert frame.group_by("step", "group_id").agg(pl.col("prompt").n_unique())["prompt"].to_list() == [1] * 6
    assert frame["truncated"].sum() == 4
    assert frame["source"].unique().to_list() == ["add"]
    assert frame["metrics/exact"].to_list() == frame["reward"].to_list()
    assert [file.step for file in run.eval_files] == [0]


def test_rows_that_keep_their_trajectory_have_the_sampled_tokens(tmp_path):
    file = rows_file(tmp_path, 1)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    first = {"prompt_ids": [5, 6], "completion_ids": [7, 8], "completion_logprobs": [-0.5, -1.0]}
    second = {"prompt_ids": [5, 6, 7, 8, 9], "completion_ids": [3, 4], "completion_logprobs": [-2.0, -9.0]}
    second["completion_mask"] = [1, 0]
    one, two = [{"tokens": first}], [{"tokens": first}, {"tokens": second}]
    lines(file, [{**row, "trajectory": two if number else one} for number, row in enumerate(rows)])
    frame = table(open_any(tmp_path))
    assert frame["token_ids"].to_list()[:2] == [[7, 8], [7, 8, 3]]
    assert frame["prompt_token_ids"].to_list()[:2] == [[5, 6], [5, 6]]
    assert frame["sampler_logp"].to_list()[:2] == [-1.5, -3.5]
    assert frame["interrupted"].to_list()[:2] == [False, True]


def traces_of(folder):
    """Make rows of the episodes' first traces, as releases between wrote them."""
    for file in list(folder.rglob("traces.jsonl")):
        rows = []
        for line in file.read_text().splitlines():
            episode = json.loads(line)
            trace = episode["traces"][0]
            stamp = {"env_name": "add", "group_id": episode["group"]["id"], "advantage": trace["info"]["advantage"]}
            rows.append({**trace, "agent": None, "info": {"prime_rl": stamp}})
        lines(file, rows)
        yield file


@pytest.mark.parametrize("packed", [False, True])
def test_a_trace_a_line_says_what_its_episode_says(tmp_path, packed):
    want = table(open_any(prime_rl_episodes(tmp_path / "new", (1, 2))))
    for file in traces_of(prime_rl_episodes(tmp_path / "old", (1, 2))):
        if packed:
            file.with_name("traces.jsonl.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
        else:
            file.rename(file.parents[2] / "train_rollouts.jsonl")
    frame = table(open_any(tmp_path / "old"))
    names = [name for name in want.columns if name != "episode_id"]
    assert frame.select(names).equals(want.select(names))


def test_a_packed_file_beside_its_source_is_passed_over(tmp_path):
    file = next(traces_of(prime_rl_episodes(tmp_path, (1,))))
    file.with_name("traces.jsonl.gz").write_bytes(gzip.compress(file.read_bytes()))
    assert table(open_any(tmp_path)).height == 12


def test_a_packed_file_that_is_cut_off(tmp_path):
    file = next(traces_of(prime_rl_episodes(tmp_path, (1,))))
    content = gzip.compress(file.read_bytes())
    file.with_name("traces.jsonl.gz").write_bytes(content[: len(content) // 2])
    file.unlink()
    with pytest.warns(UserWarning, match="its end is cut off"):
        assert 0 < table(open_any(tmp_path)).height < 12


def test_a_reward_that_is_no_number_is_named(tmp_path):
    file = rows_file(tmp_path, 1)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    lines(file, [*rows[:-1], {**rows[-1], "reward": "high"}])
    with pytest.raises(RunFormatError, match=r"train_rollouts\.jsonl: line 12 has no number as reward"):
        open_any(tmp_path)


def test_scalars_before_environments_were_told_apart(tmp_path):
    row = {"entropy/mean": 0.5, "mismatch_kl/mean": 0.001, "optim/lr": 1e-6, "reward/mean": 0.25}
    wandb_log(tmp_path / "run-a.wandb", [(4 * n, {"step": n, **row}) for n in range(3)])
    run = open_any(tmp_path)
    assert run.info["imported"]["format"] == "prime_rl"
    assert run.metrics()["step"].to_list() == [0, 1, 2]
    assert run.metrics()["entropy"].to_list() == [0.5] * 3
    assert "reward" not in run.metrics().columns  # a mean of groups' means


def test_a_reward_that_was_not_scored_leaves_its_trace_out(tmp_path):
    file = next(traces_of(prime_rl_episodes(tmp_path, (1,))))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[0]["rewards"] = {"exact": {"score": None, "weight": 1.0}}
    rows[1]["rewards"] = {"exact": {"score": 0.25, "weight": None}}
    lines(file, rows)
    run = open_any(tmp_path)
    assert table(run).height == 11
    assert table(run)["reward"][0] == 0.25
    assert "1 traces have no reward" in " ".join(run.info["imported"]["notes"])


def test_an_export_without_the_trainer_s_log_probabilities(tmp_path):
    folder = prime_rl_exports(tmp_path, (1,))
    for file in folder.rglob("*.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        lines(file, [{key: row[key] for key in row if key not in ("trainer_logprobs", "step")} for row in rows])
    run = open_any(tmp_path)
    assert {"entropy", "sampler_logp"} <= set(run.columns)
    assert "logp" not in run.columns
