"""The record of a training in the real verl agrees with its loss, log, dump and policy; `make test-verl` runs it.

It does so with padding, tools and several outputs a session, and neither it nor its failing changes the training.
full_verl_stand_ins.py stands in the place of the GPU workers.
"""

import contextlib
import json
import resource

import numpy as np
import polars as pl
import pytest
import torch
from verl.trainer.ppo.v1 import get_trainer_cls

import entropy_lab as el
from entropy_lab import cli
from entropy_lab.errors import OutputError, ParameterError
from entropy_lab.readers import import_run
from entropy_lab.run import RunWarning
from tests import full_verl_stand_ins as small
from tests.full_verl_outputs import dumped, record_of, rows_of, wanted

CASES = {
    "plain": {},
    "padded": {"drop": 3},
    "tools": {"tools": True},
    "several outputs": {"outputs": 2},
}


@pytest.fixture(scope="session", autouse=True)
def queue():
    yield
    small.end_queue()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return small.made_folder(tmp_path_factory.mktemp("base"))


def logged(out):
    """What verl has logged itself, by its step."""
    [file] = (out / "log").rglob("*.jsonl")
    return {line["step"]: line["data"] for line in map(json.loads, file.read_text().splitlines())}


@pytest.fixture(scope="module", params=CASES, ids=lambda name: name.replace(" ", "_"))
def case(request, base, tmp_path_factory):
    out = tmp_path_factory.mktemp("case")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VERL_FILE_LOGGER_ROOT", str(out / "log"))
        words = ["+algorithm.beta_pos=0.7", "+trainer.v1.entropy_lab.texts=true"]
        config = small.settings(base, out, *words, trainer__logger="[file]")
        trainer = small.trained(config, **CASES[request.param])
    return request.param, trainer, out


def test_advantages_in_the_loss_are_the_closed_form(case):
    _, trainer, out = case
    dumps, spoken = dumped(out), 0
    assert len(trainer.actor_rollout_wg.seen) == len(dumps) == 3
    for step, (keys, advantage_BT, mask_BT) in enumerate(trainer.actor_rollout_wg.seen, 1):
        form = wanted(dumps[step], beta_pos=0.7)
        for key, advantages, mask in zip(keys, advantage_BT, mask_BT, strict=True):
            inside = advantages[mask != 0].numpy()
            if key.startswith("pad"):
                assert not len(inside)
                continue
            np.testing.assert_allclose(inside, form[tuple(key.rsplit("_", 2)[:2])], atol=1e-6, rtol=0)
            assert not advantages[mask == 0].any()
            spoken += bool(inside.any())
    assert spoken > 20


# Of several outputs verl's entropy is over all of a session, ours over its last.
@pytest.mark.parametrize("case", [name for name in CASES if name != "several outputs"], indirect=True, scope="module")
def test_the_recorded_entropy_is_the_one_that_verl_logs(case):
    _, _, out = case
    metrics, theirs = record_of(out).metrics(), logged(out)
    assert metrics["step"].to_list() == [0, 1, 2]
    for step, entropy in metrics.select("step", "entropy").rows():
        assert entropy == pytest.approx(theirs[step + 1]["actor/entropy"], abs=1e-6)
        assert entropy > 2


def test_the_run_passes_check_and_analyze(case, capsys):
    _, _, out = case
    cli.main(["check", str(record_of(out).path)])
    assert "valid: every file keeps the run format" in capsys.readouterr().out
    cli.main(["analyze", str(record_of(out).path), "--no-figures", "--out", str(out / "analysis")])


def test_rollouts_are_those_of_verl_s_own_dump(case):
    name, _, out = case
    rows, width = rows_of(out), 2 if name == "several outputs" else 1
    for step, lines in dumped(out).items():
        final = [line for line in lines if line["uid"].endswith(f"_{width - 1}") and not line["uid"].startswith("pad")]
        ours = rows.filter(pl.col("step") == step - 1)
        assert ours["completion"].to_list() == [line["output"] for line in final]
        assert ours["prompt"].to_list() == [line["input"] for line in final]
        assert ours["reward"].to_list() == [line["score"] for line in final]
        assert ours["answer"].to_list() == [line["gts"] for line in final]
        uids = [line["uid"].rsplit("_", 2)[0] for line in final]
        assert ours["group_id"].to_list() == [list(dict.fromkeys(uids)).index(uid) for uid in uids]
        forms = [wanted(lines, beta_pos=0.7)[tuple(line["uid"].rsplit("_", 2)[:2])] for line in final]
        np.testing.assert_allclose(ours["advantage"], forms, atol=1e-6)
    assert rows["correct"].to_list() == [reward == 1 for reward in rows["reward"].to_list()]
    assert set(rows["source"]) == {"sums"}


def test_lengths_and_truncation(case):
    name, _, out = case
    for row in rows_of(out).iter_rows(named=True):
        ended = row["token_ids"][-1] == 1
        whole = len(row["completion"].replace(" ", "")) + ended
        assert row["truncated"] == (not ended)
        assert row["truncated"] <= (whole == small.LIMIT)
        assert row["n_tokens"] == len(row["token_logp"]) == whole - (name == "tools" and whole > 2)


@pytest.mark.parametrize("case", ["plain"], indirect=True, scope="module")
def test_an_import_of_verl_s_dump_names_prompts_alike(case, tmp_path):
    _, _, out = case
    import_run(out / "dump", tmp_path / "imported")
    theirs, ours = el.open_run(tmp_path / "imported").scan().collect(), rows_of(out)
    for column in ("step", "prompt_id", "group_id", "sample", "reward"):
        assert theirs[column].to_list() == ours[column].to_list()


def reference(policy, rows):
    """Log-probabilities and entropies by brute force, one rollout at a time."""
    for row in rows.iter_rows(named=True):
        ids = torch.tensor([[*row["prompt_token_ids"], *row["token_ids"]]])
        with torch.no_grad():
            logits = policy(input_ids=ids).logits[0, :-1].double() / small.TEMPERATURE
        logp = logits.log_softmax(-1)[-row["n_tokens"] :]
        yield logp.gather(1, torch.tensor(row["token_ids"])[:, None])[:, 0].numpy(), -(logp.exp() * logp).sum(1).numpy()


def test_numbers_by_token_are_those_of_the_policy_before_and_after(base, tmp_path):
    trainer = small.trained(small.settings(base, tmp_path, "+trainer.v1.entropy_lab.logp_after_every=2"))
    rows = rows_of(tmp_path)
    assert sorted(rows.filter(pl.col("logp_after").is_not_null())["step"].unique()) == [0, 2]
    first, last = rows.filter(pl.col("step") == 0), rows.filter(pl.col("step") == 2)
    for row, (logp, entropy) in zip(first.iter_rows(named=True), reference(small.model(), first), strict=True):
        np.testing.assert_allclose(row["token_logp"], logp, atol=2e-5)
        np.testing.assert_allclose(row["token_entropy"], entropy, atol=2e-5)
        assert row["sampler_logp"] == pytest.approx(logp.sum(), abs=1e-4)
    policy = trainer.actor_rollout_wg.model
    for row, (logp, _) in zip(last.iter_rows(named=True), reference(policy, last), strict=True):
        np.testing.assert_allclose(row["token_logp_after"], logp, atol=2e-5)
        assert row["logp_after"] != row["logp"]


def test_the_record_changes_nothing(base, tmp_path):
    """With verl's own advantages the trained weights are those of verl's own trainer, to the bit."""
    weights = []
    for mode in ("sync", "entropy_lab"):
        config = small.settings(base, tmp_path / mode, trainer__v1__trainer_mode=mode, algorithm__adv_estimator="grpo")
        weights.append(small.trained(config).actor_rollout_wg.model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not (tmp_path / "sync" / "out").exists()
    assert record_of(tmp_path / "entropy_lab").method["name"] == "verl_grpo"


def test_verl_s_asynchronous_trainer_records_too(base, tmp_path):
    mode = "entropy_lab_colocate_async"
    trainer = small.trained(small.settings(base, tmp_path, trainer__v1__trainer_mode=mode))
    assert trainer.trainer_mode == "colocate_async"
    rows = rows_of(tmp_path)
    assert rows.height == 3 * small.PROMPTS * small.GROUP
    for step, lines in dumped(tmp_path).items():
        form = wanted(lines)
        ours = rows.filter(pl.col("step") == step - 1)["advantage"]
        np.testing.assert_allclose(ours, [form[tuple(line["uid"].rsplit("_", 2)[:2])] for line in lines], atol=1e-6)


def test_in_bypass_mode_there_are_no_entropies(base, tmp_path):
    bypass = "algorithm.rollout_correction.bypass_mode=true"
    small.trained(small.settings(base, tmp_path, bypass, trainer__total_training_steps=1))
    rows = rows_of(tmp_path)
    assert "entropy" not in rows.columns
    np.testing.assert_allclose(rows["logp"], rows["sampler_logp"])
    config = small.settings(base, tmp_path, bypass, algorithm__adv_estimator="token_asym_grpo")
    with pytest.raises(ParameterError, match="bypass_mode: is true beside token_asym_grpo"):
        get_trainer_cls("entropy_lab")(config)


@contextlib.contextmanager
def full_disk():
    """No file may grow: as on a full disk, the operating system refuses to write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def no_folder(path):
    """No step's file can be made."""
    (path / "rollouts").mkdir(exist_ok=True)
    (path / "rollouts").rename(path / "elsewhere")
    (path / "rollouts").write_text("")
    try:
        yield
    finally:
        (path / "rollouts").unlink()
        (path / "elsewhere").rename(path / "rollouts")


@pytest.fixture(scope="module")
def undisturbed(base, tmp_path_factory):
    """Weights after a training whose record is whole."""
    return small.trained(small.settings(base, tmp_path_factory.mktemp("whole"))).actor_rollout_wg.model.state_dict()


FAULTS = [
    ("full disk", (0,)),
    ("full disk", (2,)),
    ("full disk", (0, 1, 2)),
    ("no folder", (1,)),
    ("queue", (0, 1)),
]


@pytest.mark.parametrize(("fault", "failing"), FAULTS, ids=str)
def test_a_record_that_fails_stops_no_training(base, tmp_path, undisturbed, fault, failing):
    config = small.settings(base, tmp_path, trainer__rollout_data_dir=None, trainer__logger="[console]")
    trainer = small.trainer_of(config)
    step, columns = trainer._recorder.step, trainer._columns.of

    def faulty(number, **given):
        kind = full_disk() if fault == "full disk" else no_folder(trainer._recorder.path)
        with kind if number in failing and fault != "queue" else contextlib.nullcontext():
            return step(number, **given)

    def unreadable(data):
        if trainer.global_steps - 1 in failing and fault == "queue":
            raise ConnectionError("the queue is gone")
        return columns(data)

    trainer._recorder.step, trainer._columns.of = faulty, unreadable
    with pytest.warns(RunWarning) as said:
        trainer.fit(small.Loops(trainer))
    told = [each for each in said if issubclass(each.category, RunWarning)]
    assert len(told) == 1
    assert "training goes on" in str(told[0].message)
    run = record_of(tmp_path)
    assert run.info["incomplete"]["steps"] == list(failing)
    assert [file.step for file in run.step_files] == [each for each in range(3) if each not in failing]
    for name, weight in trainer.actor_rollout_wg.model.state_dict().items():
        assert torch.equal(weight, undisturbed[name])


def test_a_directory_that_is_not_empty_is_refused_before_training(base, tmp_path):
    small.trained(small.settings(base, tmp_path, trainer__total_training_steps=1))
    with pytest.raises(OutputError, match="not empty"):
        small.trainer_of(small.settings(base, tmp_path))
