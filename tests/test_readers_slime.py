"""What the reader of slime makes of its files of torch."""

import builtins
import pickle
import sys

import numpy as np
import polars as pl
import pytest
import torch

from entropy_lab.cli import main
from entropy_lab.errors import MissingExtraError, RunFormatError
from entropy_lab.readers import Options, open_any
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.slime_scalars import by_rollout
from tests.foreign_samples import notes, tfevents, wandb_log
from tests.foreign_token_samples import rollouts, slime


def table(run):
    return run.scan().collect()


def change(file, edit):
    content = torch.load(file, weights_only=True)
    edit(content)
    torch.save(content, file)


def test_rollout_data_and_train_data_are_joined_by_position(tmp_path):
    run = open_any(slime(tmp_path, (1, 2)))  # slime's own steps are 0 and 1
    frame = table(run)
    want = [one for step in (1, 2) for one in rollouts(step)]
    assert frame["step"].to_list() == [0] * 12 + [1] * 12
    assert frame["completion"].to_list() == [one["said"] for one in want]
    assert frame["token_ids"].to_list() == [one["response"] for one in want]
    assert frame["reward"].to_list() == [one["reward"] for one in want]
    assert frame["normalised_reward"].to_list() == pytest.approx([one["advantage"] for one in want])
    assert frame["truncated"].to_list() == [k % 5 == 4 for k in range(12)] * 2
    assert frame["answer"].to_list() == ["1"] * 12 + ["2"] * 12


def test_each_file_alone(tmp_path):
    slime(tmp_path, (1,))
    drawn = table(open_any(tmp_path / "rollout_data"))
    assert {"sampler_logp", "reward", "completion"} <= set(drawn.columns)
    assert not {"logp", "entropy", "advantage"} & set(drawn.columns)
    run = open_any(tmp_path / "train_data", out=tmp_path / "alone")
    trained = table(run)
    assert {"logp", "entropy", "advantage", "reward"} <= set(trained.columns)
    assert sorted(trained["group_id"].value_counts()["count"]) == [4, 4, 4]
    assert sorted(trained["reward"]) == sorted(one["reward"] for one in rollouts(1))  # raw_reward, not the normalised
    assert "texts are absent" in notes(run)


def test_entropy_needs_its_option(tmp_path):
    run = open_any(slime(tmp_path, (1,), entropy=False))
    assert "entropy" not in run.columns
    assert "--use-rollout-entropy" in run.info["imported"]["how_to_record"]["entropy"]


def test_rollouts_that_were_not_trained_on_have_no_values_of_the_trainer(tmp_path):
    slime(tmp_path, (1,))
    change(tmp_path / "train_data" / "0.pt", lambda content: content["samples"].pop())
    frame = table(run := open_any(tmp_path))
    assert frame["logp"].null_count() == 1
    assert frame["sampler_logp"].null_count() == 0
    assert "1 of 12 rollouts were not trained on" in notes(run)


def test_a_masked_sample_keeps_its_response_and_a_tool_s_tokens_are_left_out(tmp_path):
    slime(tmp_path, (1,), n_prompts=1, group=4)

    def mask(content):
        for sample in content["samples"]:
            n = sample["response_length"]
            sample["loss_mask"] = [0] * n if n == 1 else [1] + [0] * (n - 2) + [1]

    change(tmp_path / "rollout_data" / "0.pt", mask)
    frame = table(open_any(tmp_path))
    assert frame["n_tokens"].to_list() == [1, 2, 2, 2]
    assert frame["interrupted"].to_list() == [False, False, True, True]


def test_of_several_rewards_the_train_data_or_the_user_says_which_counts(tmp_path):
    slime(tmp_path, (1,))

    def several(content):
        for sample in content["samples"]:
            sample["reward"] = {"exact": sample["reward"], "style": 0.5}

    change(tmp_path / "rollout_data" / "0.pt", several)
    frame = table(open_any(tmp_path))
    assert frame["reward"].to_list() == [one["reward"] for one in rollouts(1)]
    assert frame["reward/style"].to_list() == [0.5] * 12
    with pytest.raises(RunFormatError, match=r"sample 0 has the rewards exact, style.*--map reward=NAME"):
        open_any(tmp_path / "rollout_data")
    named = open_any(tmp_path / "rollout_data", Options(columns={"reward": "style"}))
    assert table(named)["reward"].to_list() == [0.5] * 12


def test_validation_becomes_evals(tmp_path):
    slime(tmp_path, (1,))
    (tmp_path / "rollout_data" / "0.pt").rename(tmp_path / "rollout_data" / "eval_1.pt")
    run = open_any(tmp_path)
    frame = pl.read_parquet(run.eval_files[0].path)
    assert run.eval_files[0].step == 1
    assert frame["completion"].to_list() == [one["said"] for one in rollouts(1)]
    assert frame["correct"].to_list() == [one["verdict"] for one in rollouts(1)]


def test_files_of_another_name_are_known_by_what_they_hold(tmp_path):
    slime(tmp_path, (1,))
    for n, place in enumerate(("rollout_data", "train_data")):
        (tmp_path / "all").mkdir(exist_ok=True)
        (tmp_path / place / "0.pt").rename(tmp_path / "all" / f"{'ab'[n]}_0.pt")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "all" / "model_0.pt")
    run = open_any(tmp_path / "all")
    assert run.info["imported"]["version"] == "rollout data, train data"
    assert "logp" in run.columns


def test_files_of_two_runs_do_not_fit(tmp_path):
    one, two = slime(tmp_path / "one", (1,)), slime(tmp_path / "two", (2,))
    (two / "train_data" / "1.pt").replace(one / "train_data" / "0.pt")
    with pytest.raises(RunFormatError, match=r"sample 0 has other tokens than sample 11 of train_data/0\.pt"):
        open_any(one)
    slime(one / "more", (1,))
    with pytest.raises(RunFormatError, match="holds more/rollout_data and rollout_data, which both begin at step 0"):
        open_any(one)


class Evil:
    def __reduce__(self):
        return print, ("called",)


def test_nothing_is_unpickled(tmp_path, capsys):
    slime(tmp_path, (1,))
    torch.save({"rollout_id": 0, "samples": [Evil()]}, tmp_path / "rollout_data" / "0.pt")
    with pytest.raises(RunFormatError, match=r"rollout_data/0.pt: cannot be read .*nothing else is unpickled"):
        open_any(tmp_path)
    (tmp_path / "rollout_data" / "0.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(RunFormatError, match="cannot be read"):
        open_any(tmp_path)
    assert "called" not in capsys.readouterr().out


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.95])
def test_a_file_that_is_being_written(tmp_path, share):
    slime(tmp_path, (1, 2))
    file = tmp_path / "rollout_data" / "1.pt"
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(RunFormatError, match=r"rollout_data/1.pt: cannot be read"):
        open_any(tmp_path)
    with pytest.warns(UserWarning, match=r"left out: rollout_data/1.pt: cannot be read"):
        assert len(open_any(tmp_path, Options(skip_invalid=True)).step_files) == 2  # of the train data


def test_without_torch_one_line_says_so(tmp_path, monkeypatch, capsys):
    slime(tmp_path, (1,))
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "torch":
            raise ImportError("No module named 'torch'")
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingExtraError, match=r"is a file of torch, which is not installed; the extra `train`"):
        open_any(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["analyze", str(tmp_path)])
    assert stop.value.code == 2
    assert "pip install 'entropy-lab[train]'" in capsys.readouterr().err


def test_scalars_keep_their_definitions(tmp_path):
    names = ("rollout/raw_reward", "rollout/entropy", "train/entropy_loss", "rollout/truncated_ratio")
    tfevents(tmp_path / "events.out.tfevents.1.host.0", [(step, name, 0.5) for step in (0, 1) for name in names])
    run = open_any(tmp_path)
    metrics = run.metrics()
    assert metrics["step"].to_list() == [0, 1]
    assert {"reward", "truncated", "rollout/entropy", "train/entropy_loss"} <= set(metrics.columns)
    assert "entropy" not in metrics.columns
    assert "averaged over each response first" in notes(run)


def by_rank(folder, step, n_ranks=2, copies=1):
    """Train data as older releases wrote it: a file a rank, of columns; ranks of tensor parallelism hold the same."""
    file = folder / "train_data" / f"{step}.pt"
    content = torch.load(file, weights_only=True)
    for rank in range(n_ranks * copies):
        samples = content["samples"][rank % n_ranks :: n_ranks]
        names = [name for name in samples[0] if name not in ("rollout_position", "data_parallel_rank")]
        columns = {name: [sample[name] for sample in samples] for name in names}
        columns["raw_reward"] = content["raw_reward"]
        file_of_rank = file.with_name(f"{step}_{rank}.pt")
        torch.save({"rollout_id": content["rollout_id"], "rank": rank, "rollout_data": columns}, file_of_rank)
    file.unlink()


@pytest.mark.parametrize("copies", [1, 2])
def test_train_data_of_older_releases_say_the_same(tmp_path, copies):
    want = table(open_any(slime(tmp_path / "new", (1, 2))))
    slime(tmp_path / "old", (1, 2))
    for step in (0, 1):
        by_rank(tmp_path / "old", step, copies=copies)
    frame = table(open_any(tmp_path / "old"))
    assert frame.select(want.columns).equals(want)


def test_train_data_of_ranks_alone_have_no_reward(tmp_path):
    slime(tmp_path, (1,))
    by_rank(tmp_path, 0)
    run = open_any(tmp_path / "train_data", out=tmp_path / "alone")
    assert {"logp", "entropy", "advantage"} <= set(run.columns)
    assert "reward" not in run.columns
    assert table(run).height == 12


def test_values_that_context_parallelism_cut_are_left_out(tmp_path):
    slime(tmp_path, (1,))
    by_rank(tmp_path, 0, n_ranks=1)

    def cut(content):
        columns = content["rollout_data"]
        columns["log_probs"] = [values[:0] for values in columns["log_probs"]]

    change(tmp_path / "train_data" / "0_0.pt", cut)
    run = open_any(tmp_path)
    assert "logp" not in run.columns
    assert {"entropy", "advantage"} <= set(run.columns)
    assert "log_probs do not cover the responses" in notes(run)


def test_train_data_of_ranks_of_another_run(tmp_path):
    one, two = slime(tmp_path / "one", (1,)), slime(tmp_path / "two", (2,))
    by_rank(two, 1)
    (one / "train_data" / "0.pt").unlink()
    (two / "train_data" / "1_0.pt").rename(one / "train_data" / "0_0.pt")
    with pytest.raises(RunFormatError, match=r"train_data/0_0\.pt: has other tokens than the rollout data of its step"):
        open_any(one)


def test_arrays_of_numpy_are_read(tmp_path):
    slime(tmp_path, (1,))

    def arrays(content):
        for sample in content["samples"]:
            sample["tokens"] = np.asarray(sample["tokens"], dtype=np.int32)
            sample["reward"] = np.float32(sample["reward"])

    want = table(open_any(tmp_path, out=tmp_path / "before"))
    change(tmp_path / "rollout_data" / "0.pt", arrays)
    assert table(open_any(tmp_path, out=tmp_path / "after")).equals(want)


def test_w_and_b_s_own_step_counts_calls(tmp_path):
    history = []
    for rollout in range(3):
        history.append((2 * rollout, {"rollout/raw_reward": 0.1 * rollout, "rollout/step": rollout}))
        history.append((2 * rollout + 1, {"train/grad_norm": 1.0 + rollout, "train/step": rollout}))
    wandb_log(tmp_path / "run-a.wandb", history)
    metrics = open_any(tmp_path).metrics()
    assert metrics["step"].to_list() == [0, 1, 2]
    assert metrics["grad_norm"].to_list() == [1.0, 2.0, 3.0]
    assert not {"rollout/step", "train/step"} & set(metrics.columns)


@pytest.mark.parametrize(("stride", "settings"), [(1, {}), (3, {}), (1, {"num_steps_per_rollout": 3})])
def test_gradient_steps_are_put_to_their_rollouts(tmp_path, stride, settings):
    drawn = {stride * rollout: {"rollout/raw_reward": float(rollout)} for rollout in range(4)}
    trained = {step: {"train/grad_norm": float(step)} for step in range(12)}
    rows = {step: {**drawn.get(step, {}), **trained[step]} for step in trained}
    sink = Sink(tmp_path / "run", "slime", Options())
    want = {n: {"rollout/raw_reward": float(n), "train/grad_norm": 3.0 * n + 1} for n in range(4)}
    assert by_rollout(rows, settings, sink) == want
    assert "3 gradient steps a rollout" in sink.notes[0]


def test_a_log_that_lacks_its_last_rollout_is_left_as_it_is(tmp_path):
    rows = {step: {"train/grad_norm": 1.0, **({"rollout/raw_reward": 0.5} if step < 9 else {})} for step in range(10)}
    assert by_rollout(rows, {}, Sink(tmp_path / "run", "slime", Options())) == rows


def test_names_of_older_releases(tmp_path):
    names = {"rollout/raw_reward": 0.5, "rollout/response_lengths": 30.0, "rollout/truncated": 0.25}
    tfevents(tmp_path / "events.out.tfevents.1.host.0", [(0, name, value) for name, value in names.items()])
    metrics = open_any(tmp_path).metrics()
    assert metrics.select("mean_length", "truncated").row(0) == (30.0, 0.25)
