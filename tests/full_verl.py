"""The real verl with our estimators and our record; `make test-verl` runs it, in an environment of its own."""

import contextlib
import json
import os
import resource
import subprocess
import sys
from collections import defaultdict

os.environ["RAY_AUTH_MODE"] = "disabled"  # Ray would write a token to the home directory
os.environ["RAY_prestart_worker_first_driver"] = "0"  # noqa: SIM112 - or it begins a process for each processor

import numpy as np
import polars as pl
import pytest
import torch
from hydra.errors import ConfigCompositionException
from verl import DataProto
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, compute_grpo_outcome_advantage
from verl.trainer.ppo.ray_trainer import compute_advantage
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl.trainer.ppo.utils import create_rl_dataset, need_critic
from verl.trainer.ppo.v1 import get_trainer_cls
from verl.utils.config import validate_config

import entropy_lab as el
from entropy_lab import cli, recipes
from entropy_lab.advantages.parameters import ranges
from entropy_lab.advantages.registry import ESTIMATORS, MODULATIONS
from entropy_lab.errors import OutputError, ParameterError
from entropy_lab.integrations import verl_plugin
from entropy_lab.integrations.verl_names import TAKEN, TAKEN_KEYS
from entropy_lab.integrations.verl_settings import RecordSettings
from entropy_lab.presets.preset import built_in
from entropy_lab.readers import import_run
from entropy_lab.rl.advantage import advantages_of
from entropy_lab.run import RunWarning
from entropy_lab.studies.command_line import from_command_line
from entropy_lab.tasks.countdown import Countdown
from tests import full_verl_stand_ins as small

torch.set_num_threads(1)
CASES = {
    "plain": {},
    "padded": {"drop": 3},
    "tools": {"tools": True},
    "several outputs": {"outputs": 2},
}


@pytest.fixture(scope="module", autouse=True)
def queue():
    yield
    small.end_queue()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with a model and data."""
    folder = tmp_path_factory.mktemp("base")
    small.make_folder(folder)
    return folder


def settings(base, out, *further, **changes):
    """A configuration that writes to a folder of its own; further words as on verl's command line."""
    written = {"trainer__default_local_dir": f"{out}/out", "trainer__rollout_data_dir": f"{out}/dump"}
    return small.composed(*small.overrides(base, **{**written, **changes}), *further)


def record_of(out):
    return el.open_run(out / "out" / "entropy-lab")


def rows_of(out):
    return record_of(out).scan().collect()


def logged(out):
    """What verl has logged itself, by its step."""
    [file] = (out / "log").rglob("*.jsonl")
    return {line["step"]: line["data"] for line in map(json.loads, file.read_text().splitlines())}


def dumped(out):
    """verl's own dump of rollouts: the rows of each of its steps."""
    files = sorted((out / "dump").glob("*.jsonl"), key=lambda file: int(file.stem))
    return {int(file.stem): [json.loads(line) for line in file.read_text().splitlines()] for file in files}


def closed_form(reward_G, beta_pos, beta_neg):
    p = np.mean(reward_G)
    if p in (0.0, 1.0):
        return np.zeros(len(reward_G))
    return np.where(np.array(reward_G) == 1, ((1 - p) / p) ** beta_pos, -((p / (1 - p)) ** beta_neg))


def wanted(rows, beta_pos=0.9, beta_neg=0.4):
    """Closed form of the advantage of every key in a step of verl's dump: of the last outputs of its sessions."""
    last = {}
    for row in rows:
        uid, session, output = row["uid"].rsplit("_", 2)
        last[uid, session] = max(last.get((uid, session), (-1, 0.0)), (int(output), row["score"]))
    groups = defaultdict(dict)
    for (uid, session), (_, score) in last.items():
        groups[uid][session] = score
    found = {}
    for uid, scores in groups.items():
        for session, advantage in zip(scores, closed_form(list(scores.values()), beta_pos, beta_neg), strict=True):
            found[uid, session] = advantage
    return found


@pytest.fixture(scope="module", params=CASES, ids=lambda name: name.replace(" ", "_"))
def case(request, base, tmp_path_factory):
    out = tmp_path_factory.mktemp("case")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VERL_FILE_LOGGER_ROOT", str(out / "log"))
        words = ["+algorithm.beta_pos=0.7", "+trainer.v1.entropy_lab.texts=true"]
        config = settings(base, out, *words, trainer__logger="[file]")
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


def test_the_recorded_entropy_is_the_one_that_verl_logs(case):
    name, _, out = case
    metrics, theirs = record_of(out).metrics(), logged(out)
    assert metrics["step"].to_list() == [0, 1, 2]
    if name == "several outputs":
        return  # verl's is over all outputs of a session, ours over its last
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


def test_an_import_of_verl_s_dump_names_prompts_alike(case, tmp_path):
    name, _, out = case
    if name != "plain":
        return
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
    trainer = small.trained(settings(base, tmp_path, "+trainer.v1.entropy_lab.logp_after_every=2"))
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
        config = settings(base, tmp_path / mode, trainer__v1__trainer_mode=mode, algorithm__adv_estimator="grpo")
        weights.append(small.trained(config).actor_rollout_wg.model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not (tmp_path / "sync" / "out").exists()
    assert record_of(tmp_path / "entropy_lab").method["name"] == "verl_grpo"


def test_estimators_work_in_verl_s_own_trainer(base, tmp_path):
    config = settings(base, tmp_path, "+algorithm.beta_neg=0.3", trainer__v1__trainer_mode="sync")
    trainer = small.trained(config, drop=3)
    for step, (keys, advantage_BT, mask_BT) in enumerate(trainer.actor_rollout_wg.seen, 1):
        form = wanted(dumped(tmp_path)[step], beta_neg=0.3)
        for key, advantages, mask in zip(keys, advantage_BT, mask_BT, strict=True):
            np.testing.assert_allclose(
                advantages[mask != 0].numpy(), form.get(tuple(key.rsplit("_", 2)[:2]), 0.0), atol=1e-6, rtol=0
            )


def test_verl_s_asynchronous_trainer_records_too(base, tmp_path):
    mode = "entropy_lab_colocate_async"
    trainer = small.trained(settings(base, tmp_path, trainer__v1__trainer_mode=mode))
    assert trainer.trainer_mode == "colocate_async"
    rows = rows_of(tmp_path)
    assert rows.height == 3 * small.PROMPTS * small.GROUP
    for step, lines in dumped(tmp_path).items():
        form = wanted(lines)
        ours = rows.filter(pl.col("step") == step - 1)["advantage"]
        np.testing.assert_allclose(ours, [form[tuple(line["uid"].rsplit("_", 2)[:2])] for line in lines], atol=1e-6)


# With its default alpha the bonus of entropies near log 17 is at its cap at every token.
@pytest.mark.parametrize(("estimator", "params"), [("entropy_advantage", {"alpha": 0.1}), ("token_asym_grpo", {})])
def test_tokens_of_one_rollout_may_differ(base, tmp_path, estimator, params):
    words = [f"+algorithm.{name}={value}" for name, value in params.items()]
    trainer = small.trained(settings(base, tmp_path, *words, algorithm__adv_estimator=estimator), drop=3)
    ours, rows = el.advantages.get(estimator, **params), rows_of(tmp_path)
    assert (rows["advantage_spread"] > 0).sum() > 5
    for step in range(3):
        part = rows.filter(pl.col("step") == step)
        level = ours(part["reward"].to_numpy().astype(float), part["group_id"].to_numpy())
        width = part["n_tokens"].max()
        mask = np.arange(width) < part["n_tokens"].to_numpy()[:, None]
        entropy = np.zeros(mask.shape)
        entropy[mask] = np.concatenate(part["token_entropy"].to_list())
        token = ours.at_tokens(level, entropy, mask)
        np.testing.assert_allclose(np.concatenate(part["token_advantage"].to_list()), token[mask], atol=1e-5)
        _, advantage_BT, mask_BT = trainer.actor_rollout_wg.seen[step]
        assert sorted(advantage_BT[mask_BT != 0].tolist()) == pytest.approx(sorted(token[mask]), abs=1e-5)


def test_advantages_that_change_go_on_after_a_checkpoint(base, tmp_path):
    target = ["+algorithm.target=0.8", "+algorithm.integral=0.5"]
    changes = {"algorithm__adv_estimator": "entropy_target", "trainer__save_freq": 2}
    small.trained(settings(base, tmp_path, *target, **changes))  # three steps; the checkpoint is of the second
    resumed = {**changes, "trainer__resume_mode": "auto", "trainer__total_training_steps": 5}
    trainer = small.trained(settings(base, tmp_path, *target, **resumed))
    metrics = record_of(tmp_path).metrics()
    assert metrics["step"].to_list() == [0, 1, 2, 3, 4]
    law = el.advantages.modulation("entropy_target", target=0.8, integral=0.5)
    for step, entropy, beta_pos in metrics.select("step", "entropy", "beta_pos").rows():
        law.at(step, steps=5, entropy=entropy)
        assert beta_pos == pytest.approx(law.values()["beta_pos"], abs=1e-6)
    assert metrics["beta_pos"].n_unique() == 5
    assert trainer._updates == 5


def data_of(reward_PG, mask_BT):
    """A batch as verl's trainers hand it to `compute_advantage`."""
    groups, size = reward_PG.shape
    reward_BT = torch.zeros(mask_BT.shape)
    reward_BT[torch.arange(len(mask_BT)), mask_BT.sum(1) - 1] = torch.from_numpy(reward_PG).float().flatten()
    uids = np.repeat([f"uid-{i}" for i in range(groups)], size).astype(object)
    tensors = {"token_level_rewards": reward_BT, "response_mask": mask_BT}
    return DataProto.from_dict(tensors, non_tensors={"uid": uids})


@pytest.mark.parametrize("name", verl_plugin.registered_estimators())
def test_every_estimator_gives_through_verl_what_it_gives_our_trainer(name):
    rng, ours = np.random.default_rng(0), verl_plugin.registered_estimators()[name]
    reward_PG = rng.integers(0, 2, (6, 8)).astype(float)
    reward_PG[0], reward_PG[1] = 0, 1
    mask_BT = torch.from_numpy((np.arange(5) < rng.integers(1, 6, 48)[:, None]).astype(int))
    algorithm = small.composed(f"algorithm.adv_estimator={name}").algorithm
    data = data_of(reward_PG, mask_BT)
    if ours in MODULATIONS or el.advantages.get(ours).token_advantage is not None:
        with pytest.raises(ParameterError, match="trainer_mode=entropy_lab"):
            compute_advantage(data, adv_estimator=name, config=algorithm)
        return
    found = compute_advantage(data, adv_estimator=name, config=algorithm).batch
    expected = advantages_of(el.advantages.get(ours), reward_PG, torch.zeros(mask_BT.shape), mask_BT)
    torch.testing.assert_close(found["advantages"], expected.token_BT, atol=1e-6, rtol=0)
    torch.testing.assert_close(found["returns"], expected.token_BT, atol=1e-6, rtol=0)


def test_what_verl_has_itself_stays_verl_s():
    names = verl_plugin.registered_estimators()
    assert set(names.values()) == {*ESTIMATORS, *MODULATIONS}
    assert ADV_ESTIMATOR_REGISTRY["grpo"] is compute_grpo_outcome_advantage
    assert {ours for name, ours in names.items() if name != ours} == TAKEN == {"grpo", "rloo"}
    parameters = {name for build in (*ESTIMATORS.values(), *MODULATIONS.values()) for name in ranges(build)}
    assert parameters & verl_plugin.own_keys() == TAKEN_KEYS


def test_parameters_by_the_names_that_verl_leaves_free(base, tmp_path):
    words = ["+algorithm.entropy_lab_lam=0.2", "+trainer.v1.entropy_lab.record_to=" + str(tmp_path / "run")]
    config = settings(base, tmp_path, *words, algorithm__adv_estimator="w_reinforce", trainer__total_training_steps=1)
    small.trained(config)
    assert el.open_run(tmp_path / "run").method["params"] == {"lam": 0.2}


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("+algorithm.beta_pso=0.9", "did you mean beta_pos"),
        ("+algorithm.beta_pos=-1", "beta_pos is -1"),
        ("+trainer.v1.entropy_lab.text=true", "did you mean texts"),
        ("+trainer.v1.entropy_lab.logp_after_every=often", "logp_after_every: is 'often'"),
    ],
)
def test_mistakes_show_before_anything_is_loaded(base, tmp_path, word, says):
    config = settings(base, tmp_path, word)
    with pytest.raises(ParameterError, match=says):
        get_trainer_cls("entropy_lab")(config)


def test_without_a_plus_hydra_refuses_an_unknown_key(base, tmp_path):
    with pytest.raises(ConfigCompositionException, match="beta_pos"):
        settings(base, tmp_path, "algorithm.beta_pos=0.9")


def test_in_bypass_mode_there_are_no_entropies(base, tmp_path):
    bypass = "algorithm.rollout_correction.bypass_mode=true"
    small.trained(settings(base, tmp_path, bypass, trainer__total_training_steps=1))
    rows = rows_of(tmp_path)
    assert "entropy" not in rows.columns
    np.testing.assert_allclose(rows["logp"], rows["sampler_logp"])
    config = settings(base, tmp_path, bypass, algorithm__adv_estimator="token_asym_grpo")
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
    return small.trained(settings(base, tmp_path_factory.mktemp("whole"))).actor_rollout_wg.model.state_dict()


FAULTS = [
    ("full disk", (0,)),
    ("full disk", (2,)),
    ("full disk", (0, 1, 2)),
    ("no folder", (1,)),
    ("queue", (0, 1)),
]


@pytest.mark.parametrize(("fault", "failing"), FAULTS, ids=str)
def test_a_record_that_fails_stops_no_training(base, tmp_path, undisturbed, fault, failing):
    config = settings(base, tmp_path, trainer__rollout_data_dir=None, trainer__logger="[console]")
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
    small.trained(settings(base, tmp_path, trainer__total_training_steps=1))
    with pytest.raises(OutputError, match="not empty"):
        small.trainer_of(settings(base, tmp_path))


def entropy_lab_command(*words, **environment):
    code = "import sys; from entropy_lab.cli import main; main(sys.argv[1:])"
    given = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, env=given, timeout=300, check=False
    )


def test_doctor_finds_all_well():
    done = entropy_lab_command("doctor", "verl", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["verl"]
    assert [check["about"] for check in found][-1] == "an estimator called by verl"
    assert all(check["passed"] for check in found)


def test_doctor_sees_a_plugin_that_verl_does_not_load():
    done = entropy_lab_command("doctor", "verl", VERL_USE_EXTERNAL_PLUGINS="others")
    assert done.returncode == 1
    assert "VERL_USE_EXTERNAL_PLUGINS: is 'others'" in done.stdout


def test_doctor_says_why_the_trainers_are_missing():
    """verl itself would say nothing: it swallows what a plugin raises."""
    code = "import sys; sys.modules['cachetools'] = None\nfrom entropy_lab.cli import main; main(['doctor', 'verl'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert "ok  verl estimators: 19" in done.stdout
    assert "BAD verl trainers: ModuleNotFoundError: import of cachetools" in done.stdout
    assert "entropy-lab is not (wholly) in verl" in done.stderr


RECIPE = recipes.load("trainers", "verl_grpo")


def launch(*words):
    return from_command_line(RECIPE.Config, [*words])


@pytest.mark.parametrize("preset", built_in())
@pytest.mark.parametrize(("nodes", "gpus"), [(1, 4), (1, 8), (2, 8)])
def test_the_paper_s_settings_are_composed_by_verl_s_hydra(preset, nodes, gpus, capsys, tmp_path):
    words = ["--preset", preset, "--out", str(tmp_path / "run"), "--nodes", str(nodes), "--gpus", str(gpus)]
    config = launch(*words)
    RECIPE.main(launch(*words, "--dry-run"))
    shown = json.loads(capsys.readouterr().out)
    verl = shown["verl"]
    actor, rollout, trainer = verl["actor_rollout_ref"]["actor"], verl["actor_rollout_ref"]["rollout"], verl["trainer"]
    small_model = "1.5b" in preset
    assert (verl["algorithm"]["adv_estimator"], verl["algorithm"]["beta_pos"], verl["algorithm"]["beta_neg"]) == (
        "asym_grpo",
        0.9,
        0.4,
    )
    assert verl["data"]["train_batch_size"] == (512 if small_model else 128)
    assert actor["ppo_mini_batch_size"] == (128 if small_model else 64)
    assert verl["data"]["max_response_length"] == (2560 if small_model else 4096)
    assert (rollout["n"], rollout["name"], rollout["val_kwargs"]["do_sample"]) == (8, "vllm", False)
    assert (actor["optim"]["lr"], actor["optim"]["optimizer"]) == (2e-6, "AdamW")
    assert (actor["clip_ratio_low"], actor["clip_ratio_high"], actor["loss_agg_mode"]) == (0.2, 0.2, "token-mean")
    assert not actor["use_kl_loss"]
    assert actor["entropy_coeff"] == 0
    assert (trainer["nnodes"], trainer["n_gpus_per_node"], trainer["test_freq"]) == (nodes, gpus, 10)
    assert trainer["v1"]["trainer_mode"] == "entropy_lab"
    assert RecordSettings.of(trainer["v1"]["entropy_lab"]).record_to == str(tmp_path / "run")
    assert verl["data"]["apply_chat_template_kwargs"] == {"enable_thinking": False}
    assert not list(tmp_path.iterdir())
    composed = RECIPE.compose(RECIPE.overrides(config))
    validate_config(config=composed, use_reference_policy=False, use_critic=need_critic(composed))
    kept = get_trainer_cls("entropy_lab")(composed)
    assert kept._modulation.label == "AsymGRPO 0.9/0.4"


@pytest.mark.parametrize("name", [*ESTIMATORS, *MODULATIONS])
def test_every_estimator_is_launched_under_its_name_with_its_parameters(name, tmp_path):
    wanted_ = el.advantages.modulation(name)
    params = [str(word) for pair in wanted_.params.items() for word in pair]
    words = ["--preset", built_in()[0], "--out", str(tmp_path / "run"), "--advantage", name]
    composed = RECIPE.compose(RECIPE.overrides(launch(*words, *(["--advantage-params", *params] if params else []))))
    built = get_trainer_cls("entropy_lab")(composed)._modulation
    assert (built.name, dict(built.params)) == (name, dict(wanted_.params))
    assert composed.actor_rollout_ref.actor.loss_agg_mode == wanted_.aggregation


def test_the_recipe_s_data_and_reward_work_in_verl(tmp_path):
    words = ["--model.path", "none", "--out", str(tmp_path / "run"), "--task", "countdown", "--train-prompts", "8"]
    small_batch = ["--prompts-per-step", "4", "--mini-batches", "1", "--eval-every", "1", "--eval-problems", "3"]
    RECIPE.main(launch(*words, *small_batch, "--only", "data"))
    composed = RECIPE.compose(RECIPE.overrides(launch(*words, *small_batch)))
    texts = small.tokenizer()
    held_out = create_rl_dataset(composed.data.val_files, composed.data, texts, None, is_train=False)
    assert len(held_out) == 3 * len(composed.data.val_files) > 0
    score = get_custom_reward_fn(composed)
    task, row = Countdown(), held_out[0]
    problem = next(p for each in task.benchmarks(3).values() for p in each if p.id == row["extra_info"]["problem"])
    for answer in (problem.answer, "1+1=2"):
        told = score(row["data_source"], answer, row["reward_model"]["ground_truth"], extra_info=row["extra_info"])
        assert told["acc"] == told["score"] == float(task.verify(problem, answer) is True)


def test_answers_of_math_are_compared_by_verl():
    composed = RECIPE.compose(RECIPE.overrides(launch("--preset", built_in()[0], "--out", "run")))
    score = get_custom_reward_fn(composed)
    assert score("aime", r"so \boxed{\frac12}", r"\frac{1}{2}") == {"score": 1.0, "acc": 1.0}
    assert score("aime", r"so \boxed{2}", r"\frac{1}{2}") == {"score": 0.0, "acc": 0.0}
