"""What the reader of verl makes of its dumps and logs."""

import json

import polars as pl
import pytest

from entropy_lab.errors import RunFormatError
from entropy_lab.readers import Options, open_any
from tests.foreign_samples import UUID, answers, lines, notes, tfevents, verl_scalars, verl_v0, verl_v1


def file_logger(path, steps, **more):
    return lines(path, [{"step": step, "data": verl_scalars(step, **more)} for step in steps])


def settings(path, mode="token-mean", **trainer):
    path.write_text(
        "actor_rollout_ref:\n  actor:\n    loss_agg_mode: " + mode + "\n  rollout:\n    'n': 4\n"
        "  model:\n    path: Qwen/Qwen3\nalgorithm:\n  adv_estimator: grpo\ntrainer:\n  project_name: p\n"
        + "".join(f"  {key}: {value}\n" for key, value in trainer.items())
    )


def rollouts(run):
    return run.scan().collect()


def test_v1_groups_come_from_the_uid_and_every_value_arrives(tmp_path):
    verl_v1(tmp_path / "dump", (1, 2))
    frame = rollouts(open_any(tmp_path / "dump"))
    for step in (1, 2):
        want = list(answers(step))
        got = frame.filter(pl.col("step") == step - 1)
        assert got["prompt"].to_list() == [row[0] for row in want]
        assert got["answer"].to_list() == [row[1] for row in want]
        assert got["completion"].to_list() == [row[2] for row in want]
        assert got["reward"].to_list() == [row[3] for row in want]
        assert got["correct"].to_list() == [row[3] == 1 for row in want]
        assert got["group_id"].to_list() == [k // 4 for k in range(12)]
        assert got["sample"].to_list() == [k % 4 for k in range(12)]
    assert frame["uid"][0] == f"{UUID.format(100)}_0_0"


def test_both_layouts_of_the_same_rollouts_agree(tmp_path):
    key = ["step", "prompt", "completion", "reward", "correct", "answer", "group_accuracy"]
    one, two = (
        rollouts(open_any(write(tmp_path / name, (1, 2, 3)))).select(key).sort(key)
        for name, write in (("v1", verl_v1), ("v0", verl_v0))
    )
    assert one.equals(two)


def test_both_layouts_side_by_side_are_joined(tmp_path):
    verl_v1(tmp_path / "rollout_v1", (1, 2))
    verl_v0(tmp_path / "rollout_v0", (1, 2))
    run = open_any(tmp_path)
    frame = rollouts(run)
    assert frame.height == 24
    assert {"uid", "acc"} <= set(frame.columns)
    assert (frame["acc"] == frame["reward"]).all()
    assert "same rollouts" in notes(run)


def test_a_second_layout_that_is_cut_off_gives_what_it_has(tmp_path):
    verl_v1(tmp_path / "rollout_v1", (1, 2))
    file = verl_v0(tmp_path / "rollout_v0", (1, 2)) / "2.jsonl"
    file.write_text(file.read_text()[:-20])
    with pytest.warns(UserWarning, match=r"12 rows, rollout_v0/2.jsonl 11|cut off"):
        frame = rollouts(open_any(tmp_path))
    assert frame.height == 24
    assert frame["acc"].null_count() == 1


def test_the_layout_of_0_4_groups_by_prompt(tmp_path):
    verl_v0(tmp_path, (1,), gts=False)
    run = open_any(tmp_path)
    assert rollouts(run)["group_id"].value_counts()["count"].to_list() == [4, 4, 4]
    assert run.info["imported"]["version"] == "V0 rollout dump (0.4, 0.5)"
    assert run.info["group_size"] == 4


def test_a_prompt_drawn_twice_is_said_where_the_layout_has_no_groups(tmp_path):
    settings(tmp_path / "config.yaml")
    verl_v0(tmp_path / "dump", (1,))
    with (tmp_path / "dump" / "1.jsonl").open("a") as stream:
        for line in (tmp_path / "dump" / "1.jsonl").read_text().splitlines()[:4]:
            stream.write(line + "\n")
    assert "a prompt drawn twice" in notes(open_any(tmp_path))


def test_only_the_last_turn_of_a_session_counts(tmp_path):
    verl_v1(tmp_path / "d", (1,), n_prompts=1, group=2)
    file = tmp_path / "d" / "1.jsonl"
    row = json.loads(file.read_text().splitlines()[1])
    later = {**row, "uid": row["uid"][:-1] + "1", "output": "last turn", "score": 1.0}
    with file.open("a") as stream:
        stream.write(json.dumps(later) + "\n")
    with pytest.warns(UserWarning, match="1 rows are earlier turns"):
        frame = rollouts(open_any(tmp_path / "d"))
    assert frame["completion"].to_list()[1] == "last turn"
    assert frame.height == 2


def test_validation_becomes_evals(tmp_path):
    verl_v1(tmp_path / "rollouts", (1, 2))
    for step in (0, 2):
        rows = [
            {"input": p, "output": t, "gts": g, "score": s, "step": step, "reward": s, "acc": s, "pred": t}
            for p, g, t, s in answers(step)
        ]
        lines(tmp_path / "passes" / f"{step}.jsonl", rows)
    run = open_any(tmp_path)
    assert [file.step for file in run.eval_files] == [0, 1]
    last = pl.read_parquet(run.eval_files[1].path)
    assert last["correct"].to_list() == [row[3] == 1 for row in answers(2)]
    assert last["sample"].to_list() == [0, 1, 2, 3] * 3
    assert {"pred", "verl/reward"} <= set(last.columns)
    assert "before training" in notes(run)


@pytest.mark.parametrize(("scores", "correct"), [((-1.0, 1.0), [False, True]), ((0.0, 0.4), [None, None])])
def test_correct_needs_scores_that_can_only_be_verdicts(tmp_path, scores, correct):
    rows = [{"input": "a", "output": str(k), "score": score, "step": 1} for k, score in enumerate(scores)]
    lines(tmp_path / "d" / "1.jsonl", rows)
    assert rollouts(open_any(tmp_path / "d"))["correct"].to_list() == correct
    judged = open_any(tmp_path / "d", Options(correct_above=0.3), out=tmp_path / "judged")
    assert rollouts(judged)["correct"].to_list() == [score > 0.3 for score in scores]


def test_a_verdict_withdrawn_late_leaves_no_file_with_it(tmp_path):
    for step, scores in enumerate(((0.0, 1.0), (1.0, 1.0), (0.5, 1.0)), start=1):
        rows = [{"input": "a", "output": str(k), "score": score, "step": step} for k, score in enumerate(scores)]
        lines(tmp_path / "d" / f"{step}.jsonl", rows)
    run = open_any(tmp_path / "d")
    frame = rollouts(run)
    assert frame["correct"].null_count() == 6
    assert frame["group_accuracy"].null_count() == 6
    assert "correct" in run.info["imported"]["how_to_record"]


def test_logs_are_joined_with_the_rollouts_by_step(tmp_path):
    settings(tmp_path / "config.yaml")
    verl_v1(tmp_path / "rollouts", (1, 2, 3))
    file_logger(tmp_path / "logs" / "run.jsonl", (1, 2, 3))
    tfevents(
        tmp_path / "tb" / "events.out.tfevents.1.host.0",
        [(step, tag, value) for step in (1, 2, 3) for tag, value in verl_scalars(step).items()] + [(3, "only/here", 5)],
    )
    run = open_any(tmp_path)
    metrics = run.metrics()
    assert metrics["step"].to_list() == [0, 1, 2]
    assert metrics["entropy"].to_list() == [2.0, 1.0, 2.0 / 3]  # the FileLogger's doubles, not TensorBoard's floats
    assert metrics["grad_norm"].to_list() == [1.5, 2.5, 3.5]
    assert metrics["val-core/math/acc/mean@4"].to_list() == [0.3] * 3
    assert metrics["only/here"].to_list() == [None, None, 5.0]
    assert "clip_fraction_low" not in metrics.columns
    assert rollouts(run)["epoch"].to_list() == [0] * 24 + [1] * 12
    assert run.info["imported"]["metric_names"]["entropy"] == "actor/entropy"
    assert (run.info["model"], run.info["group_size"], run.method["name"]) == ("Qwen/Qwen3", 4, "grpo")


@pytest.mark.parametrize("mode", ["seq-mean-token-sum", "seq-mean-token-sum-norm", "token-sum"])
def test_another_aggregation_is_not_called_entropy(tmp_path, mode):
    settings(tmp_path / "config.yaml", mode)
    file_logger(tmp_path / "run.jsonl", (1, 2))
    run = open_any(tmp_path)
    assert "entropy" not in run.metrics().columns
    assert run.metrics()["actor/entropy"].to_list() == [2.0, 1.0]
    assert mode in notes(run)


def test_more_nats_than_a_token_can_have_are_no_token_mean(tmp_path):
    file_logger(tmp_path / "run.jsonl", (1, 2), entropy=1700.0)
    run = open_any(tmp_path)
    assert "entropy" not in run.metrics().columns
    assert "more nats than one token can have" in notes(run)


def test_a_console_log_is_read_through_ray_colours_and_numpy(tmp_path):
    text = (
        "config: {'actor': {'loss_agg_mode': 'seq-mean-token-mean'}}\n"
        "\x1b[36m(TaskRunner pid=77)\x1b[0m step:0 - val-core/gsm8k/reward/mean@1:0.25\n"
        "Training Progress:   1%|          | 1/140 [00:49<1:53:43]\n"
        "\x1b[36m(TaskRunner pid=77)\x1b[0m step:1 - actor/entropy:np.float64(0.5) - actor/lr:1e-06 "
        "- actor/pg_loss:-0.004 - critic/score/mean:0.1\n"
        "step:2 - actor/entropy:0.25 - actor/pg_loss:nan - critic/score/mean:0.2 [repeated 2x across cluster]\n"
    )
    (tmp_path / "out.log").write_text(text)
    run = open_any(tmp_path / "out.log")
    metrics = run.metrics()
    assert metrics["step"].to_list() == [0, 1]
    assert metrics["actor/entropy"].to_list() == [0.5, 0.25]
    assert metrics["before_training/val-core/gsm8k/reward/mean@1"].to_list() == [0.25, None]
    assert metrics["reward"].to_list() == [0.1, 0.2]
    assert run.path == tmp_path / "out.log.entropy-lab"


def test_a_continued_run_counts_from_its_restart(tmp_path):
    file_logger(tmp_path / "a" / "one.jsonl", range(1, 6))
    file_logger(tmp_path / "b" / "two.jsonl", range(4, 8), entropy=8.0)
    run = open_any(tmp_path)
    assert run.metrics()["entropy"].to_list() == [2.0, 1.0, 2 / 3, 2.0, 8 / 5, 8 / 6, 8 / 7]
    assert "goes on where" in notes(run)


def test_two_runs_are_refused(tmp_path):
    file_logger(tmp_path / "a" / "one.jsonl", range(1, 6))
    file_logger(tmp_path / "b" / "two.jsonl", range(1, 6), entropy=3.0)
    with pytest.raises(RunFormatError, match=r"a/one\.jsonl, b/two\.jsonl: disagree from step 1 on"):
        open_any(tmp_path)
    verl_v1(tmp_path / "more" / "c" / "rollouts", (1,))
    file = verl_v1(tmp_path / "more" / "d" / "rollouts", (1,)) / "1.jsonl"
    file.write_text(file.read_text().replace('"output": "', '"output": "so '))
    with pytest.raises(RunFormatError, match="dumps of several runs"):
        open_any(tmp_path / "more")


def test_token_level_fields_of_a_hook_are_joined_by_uid(tmp_path):
    verl_v1(tmp_path / "dump", (1,), n_prompts=1, group=2)
    keys = [f"{UUID.format(100)}_{k}_0" for k in (1, 0)]  # in another order than the dump
    pl.DataFrame(
        {
            "key": keys,
            "responses": [[7, 8, 0], [9, 5, 6]],
            "response_mask": [[1, 1, 0], [1, 0, 1]],
            "old_log_probs": [[-1.0, -2.0, -9.0], [-0.5, -9.0, -0.25]],
            "entropy": [[1.0, 3.0, 9.0], [0.5, 9.0, 0.25]],
            "advantages": [[1.0, 1.0, 0.0], [-1.0, 0.0, -1.0]],
            "rm_scores": [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]],
        }
    ).write_parquet((tmp_path / "tokens").mkdir() or tmp_path / "tokens" / "1.parquet")
    frame = rollouts(open_any(tmp_path))
    assert frame["token_ids"].to_list() == [[9, 6], [7, 8]]
    assert frame["n_tokens"].to_list() == [2, 2]
    assert frame["logp"].to_list() == [-0.75, -3.0]
    assert frame["entropy"].to_list() == [0.375, 2.0]
    assert frame["advantage"].to_list() == [-1.0, 1.0]
