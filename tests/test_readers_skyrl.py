"""What the reader of SkyRL makes of pickled batches, and what its pickles may not do."""

import io
import pickle
import pickletools

import numpy as np
import polars as pl
import pytest
import torch

from entropy_lab.errors import RunFormatError
from entropy_lab.readers import Options, open_any
from tests.foreign_samples import lines, notes, tfevents
from tests.foreign_token_samples import packed, rollouts, skyrl, skyrl_batch


def table(run):
    return run.scan().collect()


def pickled(tmp_path, content):
    file = tmp_path / "dumped_data" / "global_step_1_training_input.pkl"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content))
    return tmp_path


def test_the_padding_on_the_left_is_not_read(tmp_path):
    run = open_any(skyrl(tmp_path, (1, 2)))
    frame = table(run)
    want = [one for step in (1, 2) for one in rollouts(step)]
    assert frame["token_ids"].to_list() == [one["response"] for one in want]
    assert frame["prompt_token_ids"].to_list() == [one["prompt"] for one in want]
    assert frame["logp"].to_list() == pytest.approx([sum(one["logp"]) for one in want], rel=1e-6)
    assert frame["group_id"].to_list() == [one["group"] for one in want]


def test_a_dump_without_rewards_says_so_and_how_to_record_them(tmp_path):
    run = open_any(skyrl(tmp_path, (1,)))
    assert "reward" not in run.columns
    assert table(run)["correct"].null_count() == 12
    assert "the trainer takes rewards out of the batch" in notes(run)
    assert "Recorder" in run.info["imported"]["how_to_record"]["reward"]


def test_a_release_that_keeps_rewards_and_groups(tmp_path):
    uids = [f"u{one['group']}" for one in rollouts(1)][::-1]
    run = open_any(skyrl(tmp_path, (1,), metadata={"uids": uids}, rewards=True))
    frame = table(run).sort("group_id", "sample")
    assert "takes" not in notes(run)
    assert sorted(frame["reward"]) == sorted(one["reward"] for one in rollouts(1))
    assert frame["correct"].null_count() == 0


def test_rows_that_only_fill_the_batch_are_left_out(tmp_path):
    run = open_any(skyrl(tmp_path, (1,), metadata={"pad_size": 4}))
    assert table(run).height == 8
    assert "its last 4 rows fill the batch up" in notes(run)


def test_responses_padded_on_the_right_as_older_releases_have_them(tmp_path):
    fields = {
        "sequences": packed([[0, 7, 8, 5, 1], [9, 7, 8, 6, 0]], np.int64),
        "attention_mask": packed([[0, 1, 1, 1, 1], [1, 1, 1, 1, 0]], np.int64),
        "response_mask": packed([[1, 1], [1, 0]], np.int64),
        "loss_mask": packed([[0, 0], [1, 0]], np.float32),  # the first was left out of the loss
        "action_log_probs": packed([[-1.0, -2.0], [-3.0, -9.0]], np.float32),
    }
    state = {"batch_dict": fields, "metadata": None}
    skyrl_batch(state, tmp_path / "dumped_data" / "global_step_1_training_input.pkl")
    frame = table(open_any(tmp_path))
    assert frame["token_ids"].to_list() == [[5, 1], [6]]
    assert frame["prompt_token_ids"].to_list() == [[7, 8], [9, 7, 8]]
    assert frame["logp"].to_list() == [-3.0, -3.0]


def test_types_that_numpy_lacks_are_files_of_torch(tmp_path):
    buffer = io.BytesIO()
    torch.save(torch.tensor([[-1.0, -2.0]], dtype=torch.bfloat16), buffer)
    fields = {
        "sequences": packed([[7, 5, 1]], np.int64),
        "attention_mask": packed([[1, 1, 1]], np.int64),
        "response_mask": packed([[1, 1]], np.int64),
        "action_log_probs": {"format": "torch", "data": buffer.getvalue()},
    }
    skyrl_batch({"batch_dict": fields}, tmp_path / "dumped_data" / "global_step_1_training_input.pkl")
    assert table(open_any(tmp_path))["logp"].to_list() == [-3.0]


def test_older_releases_keep_each_tensor_as_a_file_of_torch(tmp_path):
    def saved(values, dtype):
        buffer = io.BytesIO()
        torch.save(torch.tensor(values, dtype=dtype), buffer)
        return buffer.getvalue()

    fields = {
        "sequences": saved([[7, 5, 1]], torch.int64),
        "attention_mask": saved([[1, 1, 1]], torch.int64),
        "response_mask": saved([[1, 1]], torch.int64),
        "loss_mask": saved([[1, 1]], torch.int64),
        "action_log_probs": saved([[-1.0, -2.0]], torch.float32),
        "values": None,
    }
    metadata = {"uids": ["a"], "avg_response_length": np.float64(2.0), "ids": np.arange(2)}
    state = {"batch_dict": fields, "batch_size": 1, "device": torch.device("cpu"), "metadata": metadata}
    skyrl_batch(state, tmp_path / "dumped_data" / "global_step_1_training_input.pkl")
    frame = table(open_any(tmp_path))
    assert frame["token_ids"].to_list() == [[5, 1]]
    assert frame["logp"].to_list() == [-3.0]


def test_the_dictionaries_of_a_console_log(tmp_path):
    ray = "(skyrl_entrypoint pid=7) "
    text = "".join(
        f"{ray}2026-01-01 | INFO | tracking:log:99 - Step {step}: \n{ray}{{'generate/avg_num_tokens': '12.5000',\n"
        f"{ray} 'policy/policy_entropy': '{step / 4:.4f}',\n{ray} 'policy/raw_grad_norm': '0.5000',\n"
        f"{ray} 'trainer/global_step': {step}}}\n{ray}2026-01-01 | INFO | 'policy/policy_entropy': '9.0'\n"
        for step in (1, 2)
    )
    (tmp_path / "run.log").write_text(text)
    metrics = open_any(tmp_path).metrics()
    assert metrics["step"].to_list() == [0, 1]
    assert metrics["entropy"].to_list() == [0.25, 0.5]
    assert metrics["mean_length"].to_list() == [12.5, 12.5]
    assert metrics["grad_norm"].to_list() == [0.5, 0.5]


class Evil:
    def __reduce__(self):
        return print, ("called",)


class Nested:
    def __reduce__(self):
        return np.zeros, (3,)


ATTACKS = {
    "a call": (pickle.dumps(Evil()), "it names builtins.print"),
    "a call by protocol 0": (pickle.dumps(Evil(), protocol=0), "it names __builtin__.print"),
    "a function of numpy": (pickle.dumps({"batch_dict": Nested()}), "it names numpy"),
    "an attribute of an allowed class": (b"\x80\x04\x8c\x05torch\x8c\x0fdevice.__init__\x93.", "it names torch.device"),
    "a big hole": (b"\x80\x04\x8c\x01ar\xff\xff\xff\x7f.", ""),
    "a promise of bytes": (b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00.", ""),
    "nothing": (b"", ""),
    "no pickle": (b"hello", ""),
}


@pytest.mark.parametrize(("content", "what"), ATTACKS.values(), ids=ATTACKS)
def test_a_pickle_builds_nothing_but_arrays(tmp_path, capsys, content, what):
    with pytest.raises(
        RunFormatError, match=r"global_step_1_training_input.pkl: (is refused: |holds no batch).*" + what
    ):
        open_any(pickled(tmp_path, content))
    assert "called" not in capsys.readouterr().out


def test_no_name_of_a_batch_is_ever_imported(tmp_path):
    file = skyrl(tmp_path, (1,)) / "dumped_data" / "global_step_1_training_input.pkl"
    names = {arg for op, arg, _ in pickletools.genops(file.read_bytes()) if op.name == "SHORT_BINUNICODE"}
    assert "skyrl.backends.skyrl_train.training_batch" in names
    assert table(open_any(tmp_path)).height == 12  # there is no such package here


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"sequences": packed([[1.5]], np.float64)}, "shapes do not fit"),
        ({"response_mask": packed([[1] * 9], np.int64)}, "shapes do not fit"),
        ({"attention_mask": {"data": b"123", "shape": (1, 3), "dtype": "int64"}}, "does not fit its shape"),
        ({"attention_mask": {"data": b"123", "shape": (1, 3), "dtype": "O"}}, "of dtype O"),
        ({"sequences": None}, "has the fields attention_mask, response_mask"),
    ],
)
def test_fields_that_do_not_fit(tmp_path, change, what):
    fields = {
        "sequences": packed([[7, 5, 1]], np.int64),
        "attention_mask": packed([[1, 1, 1]], np.int64),
        "response_mask": packed([[1, 1]], np.int64),
        "loss_mask": packed([[1, 1]], np.int64),
    }
    state = {"batch_dict": {**fields, **change}}
    skyrl_batch(state, tmp_path / "dumped_data" / "global_step_1_training_input.pkl")
    with pytest.raises(RunFormatError, match=what):
        open_any(tmp_path)


def test_a_damaged_step_is_left_out_on_demand(tmp_path):
    file = skyrl(tmp_path, (1, 2)) / "dumped_data" / "global_step_2_training_input.pkl"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(RunFormatError, match=r"global_step_2_training_input\.pkl: is refused"):
        open_any(tmp_path)
    with pytest.warns(UserWarning, match="left out: dumped_data/global_step_2"):
        assert len(open_any(tmp_path, Options(skip_invalid=True)).step_files) == 1


def test_evaluations_become_evals(tmp_path):
    skyrl(tmp_path, (1,))
    row = {"input_prompt": "1+1=", "output_response": "2", "stop_reason": "stop", "env_extras": {"a": 1}}
    for step, score in ((0, 0.0), (4, [0.0, 1.0])):
        folder = tmp_path / "dumped_evals" / f"global_step_{step}_evals"
        lines(folder / "gsm8k.jsonl", [{**row, "score": score, "data_source": "gsm8k"}] * 2)
        lines(folder / "aggregated_results.jsonl", [{"eval/gsm8k/avg_score": 1.0}])
    run = open_any(tmp_path)
    assert [file.step for file in run.eval_files] == [0, 3]
    last = pl.read_parquet(run.eval_files[1].path)
    assert last["correct"].to_list() == [True, True]
    assert last["sample"].to_list() == [0, 1]
    assert last["benchmark"].to_list() == ["gsm8k"] * 2


def test_scalars(tmp_path):
    names = ("policy/policy_entropy", "reward/avg_raw_reward")
    tfevents(tmp_path / "events.out.tfevents.1.host.0", [(1, name, 0.5) for name in names])
    run = open_any(tmp_path)
    assert run.metrics().select("step", "entropy", "reward").row(0) == (0, 0.5, 0.5)
