"""The real TRL with our estimators and our record; `make test-trl` runs it, in environments of its own."""

import json
import os
import subprocess
import sys
import warnings
from collections import defaultdict
from dataclasses import fields
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from datasets import Dataset
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

import entropy_lab as el
from entropy_lab import cli, recipes
from entropy_lab.errors import EntropyLabError, ParameterError, UnknownNameError
from entropy_lab.integrations.trl import EntropyLabGRPOTrainer, StepMetricsCallback
from entropy_lab.integrations.trl_rollouts import ROW
from entropy_lab.presets.preset import built_in
from entropy_lab.run import RunWarning
from entropy_lab.studies.command_line import from_command_line
from entropy_lab.tasks.countdown import Countdown

torch.set_num_threads(1)
warnings.filterwarnings("ignore", category=DeprecationWarning)
IGNORED = ("DeprecationWarning", "FutureWarning", "UserWarning", "ResourceWarning")
pytestmark = [pytest.mark.filterwarnings("ignore::" + kind) for kind in IGNORED]

TASK = Countdown()
LETTERS = ["<pad>", "<eos>", *TASK.vocabulary.characters]
GROUP, PROMPTS, LIMIT, TEMPERATURE = 4, 4, 7, 0.9
GOOD = tuple(LETTERS[2:9])
"""An answer is right when its last letter is one of these."""
CASES = {
    "plain": {},
    "accumulated": {"gradient_accumulation_steps": 4},
    "two generations a step": {"gradient_accumulation_steps": 4, "steps_per_generation": 2},
    "steps_per_generation": {"steps_per_generation": 4},
    "num_iterations": {"num_iterations": 2},
    "repeated inside a step": {"num_iterations": 2, "gradient_accumulation_steps": 4, "steps_per_generation": 2},
    "reference policy": {"beta": 0.04, "num_iterations": 2},
    "all": {"num_iterations": 2, "gradient_accumulation_steps": 2, "steps_per_generation": 4},
}


def tokenizer():
    made = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate(LETTERS)}, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>", pad_token="<pad>", padding_side="left")


def model():
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    special = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None, "tie_word_embeddings": True}
    torch.manual_seed(0)
    made = Qwen3ForCausalLM(Qwen3Config(vocab_size=len(LETTERS), head_dim=16, intermediate_size=32, **sizes, **special))
    with torch.no_grad():  # fresh weights are nearly uniform: sharpen them, so that anything wrong would show
        for parameter in made.parameters():
            parameter.mul_(3.0 if parameter.dim() == 2 else 1.0)
    return made


def right(ids):
    """The reward, from tokens alone."""
    told = [i for i in ids if i > 1]
    return float(bool(told) and LETTERS[told[-1]] in GOOD)


def ends_well(completion_ids, **_):
    return [right(ids) for ids in completion_ids]


def data(n=64):
    return Dataset.from_dict({"prompt": [each.prompt for each in TASK.problems(np.random.default_rng(0), n)]})


def settings(out, **changes):
    passes = changes.get("steps_per_generation") or changes.get("gradient_accumulation_steps", 1)
    given = {
        "output_dir": str(out),
        "per_device_train_batch_size": GROUP * PROMPTS // passes,
        "num_generations": GROUP,
        "max_completion_length": LIMIT,
        "max_steps": 4,
        "learning_rate": 1e-2,
        "temperature": TEMPERATURE,
        "beta": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "gradient_checkpointing": False,
    }
    return GRPOConfig(**{**given, **changes})


class Watched(EntropyLabGRPOTrainer):
    """Notes what enters the loss."""

    def __init__(self, *args, **kwargs):
        self.seen = []
        super().__init__(*args, **kwargs)

    def _compute_loss(self, model, inputs):
        if self.model.training:
            mask = inputs["completion_mask"].bool()
            keys = [
                (tuple(prompt[inside].tolist()), tuple(ids[kept].tolist()))
                for prompt, inside, ids, kept in zip(
                    inputs["prompt_ids"], inputs["prompt_mask"].bool(), inputs["completion_ids"], mask, strict=True
                )
            ]
            generation = len(self.drawn_at) - 1 - (len(self._waiting.drawn) - 1 - self._drawn_place(inputs))
            self.seen.append((generation, self.state.global_step + 1, keys, inputs["advantages"].clone()))
        return super()._compute_loss(model, inputs)

    def _drawn_place(self, inputs):
        first = int(inputs[ROW].min())
        return max(i for i, drawn in enumerate(self._waiting.drawn) if drawn.first_row <= first)

    @property
    def drawn_at(self):
        return range(self._generations)


def trained(out, watch=Watched, reward=ends_well, **changes):
    ours = ("advantage", "advantage_params", "logp_after_every", "recorder", "correct", "record_to")
    own = {name: changes.pop(name) for name in ours if name in changes}
    further = {name: changes.pop(name) for name in ("callbacks", "eval_dataset", "rollout_func") if name in changes}
    policy = model()
    if changes.get("beta"):  # TRL loads the reference policy from where the policy was
        policy.save_pretrained(Path(out) / "base")
        policy = str(Path(out) / "base")
    trainer = watch(
        model=policy,
        processing_class=tokenizer(),
        reward_funcs=reward,
        args=settings(out, **changes),
        train_dataset=data(),
        **({} if watch is GRPOTrainer else {"advantage": "asym_grpo", **own}),
        **further,
    )
    trainer.train(resume_from_checkpoint=changes.get("resume_from_checkpoint"))
    return trainer


def rows_of(run):
    return run.scan().collect()


def closed_form(reward_G, beta_pos=0.9, beta_neg=0.4):
    p = np.mean(reward_G)
    if p in (0.0, 1.0):
        return np.zeros(len(reward_G))
    return np.where(np.array(reward_G) == 1, ((1 - p) / p) ** beta_pos, -((p / (1 - p)) ** beta_neg))


def first_logged(trainer, name):
    return {line["step"]: line[name] for line in trainer.state.log_history if name in line}


@pytest.fixture(scope="module", params=CASES, ids=lambda name: name.replace(" ", "_"))
def case(request, tmp_path_factory):
    out = tmp_path_factory.mktemp("trl")
    trainer = trained(out, **CASES[request.param], log_completions=True)
    return request.param, trainer, el.open_run(out / "entropy-lab"), out


def test_advantages_in_the_loss_are_the_closed_form(case):
    _, trainer, _, _ = case
    groups, checked = defaultdict(dict), 0
    drawn = defaultdict(list)
    for generation, _, keys, advantages in trainer.seen:
        for key, advantage in zip(keys, advantages.tolist(), strict=True):
            groups[generation, key[0]].setdefault(key[1], advantage)
            assert groups[generation, key[0]][key[1]] == advantage
            drawn[generation, key[0]].append(key[1])
    repeats = CASES[case[0]].get("num_iterations", 1)
    for name, completions in drawn.items():
        if len(completions) != GROUP * repeats:
            continue  # the training ended before all of its rollouts were used
        rewards = [right(ids) for ids in completions]
        found = [groups[name][ids] for ids in completions]
        np.testing.assert_allclose(found, closed_form(rewards), atol=1e-6, rtol=0)
        checked += any(found)
    assert checked >= 3


def test_the_run_passes_check_and_analyze(case, capsys):
    _, _, run, _ = case
    cli.main(["check", str(run.path)])
    assert "valid: every file keeps the run format" in capsys.readouterr().out
    cli.main(["analyze", str(run.path), "--no-figures"])


def test_every_rollout_is_recorded_once_in_whole_groups(case):
    name, trainer, run, _ = case
    rows = rows_of(run)
    assert rows.height == trainer._generations * GROUP * PROMPTS
    assert (rows.group_by("step", "group_id").len()["len"] == GROUP).all()
    assert (rows.group_by("step", "group_id").agg(pl.col("prompt_id").n_unique())["prompt_id"] == 1).all()
    a_step = 2 if name in ("two generations a step",) else 1
    assert run.metrics().height == rows["step"].n_unique() == -(-trainer._generations // a_step)
    assert rows["reward"].to_list() == [right(ids) for ids in rows["token_ids"].to_list()]
    assert rows["truncated"].to_list() == [ids[-1] > 1 for ids in rows["token_ids"].to_list()]
    assert rows["n_tokens"].to_list() == list(map(len, rows["token_ids"].to_list()))


def recorded(trainer, run):
    """Entropy and advantage of what entered the loss, by step, prompt and tokens."""
    found = {}
    for row in rows_of(run).iter_rows(named=True):
        found[row["step"], tuple(row["prompt_token_ids"]), tuple(row["token_ids"])] = row
    return found


def test_entropies_are_those_that_trl_logs(case):
    name, trainer, run, _ = case
    rows, logged = recorded(trainer, run), first_logged(trainer, "entropy")
    a_step = 2 if name == "two generations a step" else 1
    first, means = {}, defaultdict(list)
    for generation, update, keys, advantages in trainer.seen:
        first.setdefault(generation // a_step, update)
        found = [rows[generation // a_step, *key] for key in keys]
        np.testing.assert_allclose([row["advantage"] for row in found], advantages.numpy(), atol=1e-6)
        assert all(row["trainer_step"] <= update for row in found)
        if update == first[generation // a_step]:
            tokens = np.concatenate([row["token_entropy"] for row in found])
            means[update].append(tokens.mean())
    assert means
    for update, each in means.items():
        assert np.mean(each) == pytest.approx(logged[update], abs=1e-5)


def test_the_logged_advantages_are_ours(case):
    name, _, run, out = case
    if name == "two generations a step":
        return  # TRL keeps the last generation only
    rows = rows_of(run)
    files = sorted((out / "completions").glob("*.parquet"))
    assert files
    metrics = run.metrics()
    for file in files:
        table = pl.read_parquet(file)
        step = metrics.filter(pl.col("trainer_step") >= table["step"][0])["step"].min()
        ours = rows.filter(pl.col("step") == step)["advantage"].sort().to_numpy()
        np.testing.assert_allclose(table["advantage"].tail(GROUP * PROMPTS).sort().to_numpy(), ours, atol=1e-6)


def test_numbers_of_a_step_are_means_of_what_trl_logs(case):
    _, trainer, run, _ = case
    logged, last = {name: first_logged(trainer, name) for name in ("loss", "grad_norm", "learning_rate")}, 0
    for row in run.metrics().iter_rows(named=True):
        updates = range(last + 1, row["trainer_step"] + 1)
        for ours, theirs in (("loss", "loss"), ("grad_norm", "grad_norm")):
            assert row[ours] == pytest.approx(np.mean([logged[theirs][u] for u in updates]), rel=1e-4, abs=1e-6)
        assert row["lr"] == pytest.approx(logged["learning_rate"][updates[-1]])
        last = row["trainer_step"]
    assert last == trainer.state.global_step


def reference(policy, rows):
    """Log-probabilities and entropies by brute force, one rollout at a time."""
    policy.train(False)
    for row in rows.iter_rows(named=True):
        ids = torch.tensor([[*row["prompt_token_ids"], *row["token_ids"]]])
        with torch.no_grad():
            logp = (policy(input_ids=ids).logits[0, :-1].double() / TEMPERATURE).log_softmax(-1)[-row["n_tokens"] :]
        chosen = logp.gather(1, torch.tensor(row["token_ids"])[:, None])[:, 0]
        yield chosen.numpy(), -(logp.exp() * logp).sum(1).numpy()


def test_numbers_by_token_are_those_of_the_policy_before_and_after(tmp_path):
    trainer = trained(tmp_path, logp_after_every=2, max_steps=3, lr_scheduler_type="constant")
    rows = rows_of(el.open_run(tmp_path / "entropy-lab"))
    with_after = rows.filter(pl.col("logp_after").is_not_null())["step"].unique().to_list()
    assert sorted(with_after) == [0, 2]
    base, last = rows.filter(pl.col("step") == 0), rows.filter(pl.col("step") == 2)
    for row, (logp, entropy) in zip(base.iter_rows(named=True), reference(model(), base), strict=True):
        np.testing.assert_allclose(row["token_logp"], logp, atol=2e-5)
        np.testing.assert_allclose(row["token_entropy"], entropy, atol=2e-5)
        assert row["logp"] == pytest.approx(logp.sum(), abs=1e-4)
    for row, (logp, _) in zip(last.iter_rows(named=True), reference(trainer.model, last), strict=True):
        np.testing.assert_allclose(row["token_logp_after"], logp, atol=2e-5)
        assert row["logp_after"] != row["logp"]


def test_without_learning_every_logged_entropy_is_the_recorded_one(tmp_path):
    trainer = trained(
        tmp_path, **CASES["all"], learning_rate=0.0, max_steps=8, generation_kwargs={"min_new_tokens": LIMIT}
    )
    run = el.open_run(tmp_path / "entropy-lab")
    logged, metrics = first_logged(trainer, "entropy"), run.metrics()
    found = metrics.select("trainer_step", "entropy", "entropy_in_loss").rows()
    assert [row[0] for row in found] == [4, 8]
    for last, entropy, in_loss in found:
        theirs = np.mean([logged[step] for step in range(last - 3, last + 1)])
        assert entropy == pytest.approx(theirs, abs=1e-5)
        assert in_loss == pytest.approx(theirs, abs=1e-6)


def test_tokens_of_one_rollout_may_differ(tmp_path):
    class Tokens(Watched):
        shapes = ()

        def _compute_loss(self, model, inputs):
            type(self).shapes += (tuple(inputs["advantages"].shape),)
            return super()._compute_loss(model, inputs)

    trained(tmp_path, watch=Tokens, advantage="entropy_advantage", advantage_params={"base": "asym_grpo"}, max_steps=2)
    assert all(len(shape) == 2 for shape in Tokens.shapes)
    rows = rows_of(el.open_run(tmp_path / "entropy-lab"))
    estimator = el.advantages.get("entropy_advantage", base="asym_grpo")
    for (_, _), group in rows.group_by("step", "group_id"):
        level = estimator(group["reward"].to_numpy()[None].astype(float))[0]
        for row, one in zip(group.iter_rows(named=True), level, strict=True):
            entropy = np.array([row["token_entropy"]])
            expected = estimator.at_tokens([one], entropy, np.ones_like(entropy))[0]
            np.testing.assert_allclose(row["token_advantage"], expected, atol=1e-5)
            assert row["advantage"] == pytest.approx(expected.mean(), abs=1e-5)


def test_advantages_that_change_go_on_after_a_checkpoint(tmp_path):
    about = {"advantage": "entropy_target", "save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    trained(tmp_path / "whole", **about)
    for folder in ("checkpoint-4", "entropy-lab/rollouts/step-000003.parquet"):
        assert (tmp_path / "whole" / folder).exists()
    before = el.open_run(tmp_path / "whole/entropy-lab").metrics()
    cut = rows_of(el.open_run(tmp_path / "whole/entropy-lab"))
    trained(tmp_path / "whole", **about, resume_from_checkpoint=str(tmp_path / "whole/checkpoint-2"))
    after = el.open_run(tmp_path / "whole/entropy-lab").metrics()
    assert after["step"].to_list() == before["step"].to_list() == [0, 1, 2, 3]
    names = ["step", "beta_pos", "beta_neg", "trainer_step", "entropy"]
    assert after[:2].select(names).equals(before[:2].select(names))
    rows = rows_of(el.open_run(tmp_path / "whole/entropy-lab"))
    assert rows.filter(pl.col("step") < 2).equals(cut.filter(pl.col("step") < 2))
    # The controller went on from where the checkpoint was, and not from its beginning.
    replayed = el.advantages.modulation("entropy_target")
    for row in after.iter_rows(named=True):
        replayed.at(row["step"], steps=4, entropy=row["entropy"])
        for name, value in replayed.values().items():
            assert row[name] == pytest.approx(value, abs=1e-6), (name, row["step"])


def test_evaluations_are_not_recorded(tmp_path):
    trainer = trained(
        tmp_path,
        eval_strategy="steps",
        eval_steps=1,
        eval_dataset=data(4),
        per_device_eval_batch_size=GROUP,
        max_steps=2,
    )
    rows = rows_of(el.open_run(tmp_path / "entropy-lab"))
    assert rows.height == 2 * GROUP * PROMPTS
    assert any("eval_loss" in line for line in trainer.state.log_history)
    assert len(trainer.seen) == 2


def half_told(completion_ids, **_):
    return [None if ids[0] % 2 else right(ids) for ids in completion_ids]


def test_rollouts_without_a_reward_get_no_advantage_and_are_left_out(tmp_path):
    trainer = trained(tmp_path, reward=half_told, max_steps=2)
    rows = rows_of(el.open_run(tmp_path / "entropy-lab"))
    assert 0 < rows.height < 2 * GROUP * PROMPTS
    assert all(ids[0] % 2 == 0 for ids in rows["token_ids"].to_list())
    for _, _, keys, advantages in trainer.seen:
        assert all(a == 0 for (_, ids), a in zip(keys, advantages.tolist(), strict=True) if ids[0] % 2)
    for (_, _), group in rows.group_by("step", "group_id"):
        np.testing.assert_allclose(group["advantage"], closed_form(group["reward"].to_list()), atol=1e-6)


def short(completion_ids, **_):
    return [0.0 if len(ids) == LIMIT else 0.5 for ids in completion_ids]


def test_several_rewards_and_verdicts(tmp_path):
    own = {"advantage": "grpo", "correct": "ends_well", "recorder": {"texts": False, "task": "letters"}}
    trained(tmp_path, reward=[ends_well, short], reward_weights=[1.0, 0.5], max_steps=2, **own)
    run = el.open_run(tmp_path / "entropy-lab")
    rows = rows_of(run)
    right_N = [right(ids) for ids in rows["token_ids"].to_list()]
    assert rows["correct"].to_list() == [bool(each) for each in right_N]
    assert rows["reward_ends_well"].to_list() == right_N
    np.testing.assert_allclose(rows["reward"], rows["reward_ends_well"] + 0.5 * rows["reward_short"])
    assert "prompt" not in rows.columns
    assert run.info["task"] == "letters"
    for (_, _), group in rows.group_by("step", "group_id"):
        expected = el.advantages.get("grpo")(group["reward"].to_numpy()[None].astype(float))[0]
        np.testing.assert_allclose(group["advantage"], expected, atol=1e-5)


def test_rollouts_that_trl_masks_have_no_tokens(tmp_path):
    trained(tmp_path, max_steps=2, mask_truncated_completions=True)
    rows = rows_of(el.open_run(tmp_path / "entropy-lab"))
    assert 0 < rows["truncated"].mean() < 1
    assert rows.filter(pl.col("truncated"))["n_tokens"].sum() == 0
    assert rows.filter(~pl.col("truncated"))["n_tokens"].min() > 0
    assert rows.filter(pl.col("truncated"))["entropy"].null_count() == rows["truncated"].sum()
    cli.main(["check", str(tmp_path / "entropy-lab")])


def told_by_the_sampler(prompts, trainer):
    """Answers as an engine of its own gives them, with its log-probabilities: one that it cannot tell is none."""
    rng, found = (
        np.random.default_rng(trainer.state.global_step),
        {"prompt_ids": [], "completion_ids": [], "logprobs": []},
    )
    for number, prompt in enumerate(prompts):
        ids = rng.integers(2, len(LETTERS), rng.integers(1, LIMIT)).tolist()
        found["prompt_ids"].append(trainer.processing_class(prompt)["input_ids"])
        found["completion_ids"].append([*ids, 1])
        found["logprobs"].append([float("nan") if number == 3 else -0.5] * (len(ids) + 1))
    return found


def test_log_probabilities_of_a_sampler_are_recorded(tmp_path):
    trained(tmp_path, max_steps=2, rollout_func=told_by_the_sampler, **CASES["steps_per_generation"])
    rows = rows_of(el.open_run(tmp_path / "entropy-lab"))
    assert rows["sampler_logp"].null_count() == 1
    told = rows.filter(pl.col("sampler_logp").is_not_null())
    np.testing.assert_allclose(told["sampler_logp"], -0.5 * told["n_tokens"])
    assert not rows["truncated"].any()
    assert rows["n_tokens"].n_unique() > 2


def test_trls_own_advantages_are_recorded_as_they_are(tmp_path):
    trainer = trained(tmp_path, advantage=None, max_steps=2, loss_type="grpo")
    torch_rows = rows_of(el.open_run(tmp_path / "entropy-lab"))
    assert el.open_run(tmp_path / "entropy-lab").info["method"]["name"] == "trl_grpo"
    for (_, _), group in torch_rows.group_by("step", "group_id"):
        reward = group["reward"].to_numpy()
        expected = (reward - reward.mean()) / (reward.std(ddof=1) + 1e-4)
        np.testing.assert_allclose(group["advantage"], expected, atol=1e-5)
    assert len(trainer.seen) == 2


def test_the_training_is_trls_own_where_only_the_record_is_added(tmp_path):
    plain = trained(tmp_path / "plain", watch=GRPOTrainer, **CASES["all"])
    ours = trained(tmp_path / "ours", advantage=None, **CASES["all"])
    for (name, a), (_, b) in zip(plain.model.state_dict().items(), ours.model.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


class Sabotage(TrainerCallback):
    """Puts a file where the record's folder was, as a full disk would end it."""

    def on_step_begin(self, args, state, control, **_):
        folder = Path(args.output_dir) / "entropy-lab/rollouts"
        if state.global_step == 1:
            folder.rename(folder.with_name("moved"))
            folder.write_text("")


def test_a_record_that_fails_does_not_stop_the_training(tmp_path):
    with pytest.warns(RunWarning, match="training goes on"):
        trainer = trained(tmp_path, callbacks=[Sabotage()])
    assert trainer.state.global_step == 4
    info = json.loads((tmp_path / "entropy-lab/run.json").read_text())
    assert info["incomplete"]["steps"] == [1, 2, 3]


def test_step_metrics_from_any_trainer(tmp_path):
    trainer = trained(tmp_path, watch=GRPOTrainer, callbacks=[StepMetricsCallback()])
    metrics = el.open_run(tmp_path / "entropy-lab").metrics()
    assert metrics["step"].to_list() == [0, 1, 2, 3]
    logged = first_logged(trainer, "entropy")
    assert metrics["entropy"].to_list() == list(logged.values())
    assert {"lr", "grad_norm", "reward", "clip_fraction_low", "mean_length"} <= set(metrics.columns)


@pytest.mark.parametrize(
    ("own", "error"),
    [
        ({"advantage": "asym_gpro"}, UnknownNameError),
        ({"advantage_params": {"beta_pos": -1.0}}, ParameterError),
        ({"advantage": None, "advantage_params": {"beta_pos": 1.0}}, ParameterError),
        ({"correct": "nothing"}, ParameterError),
        ({"logp_after_every": -1}, ParameterError),
        ({"reward": short}, ParameterError),  # 0.5 is no verdict
        ({"advantage": "pass_at_k", "advantage_params": {"k": 2 * GROUP}}, ParameterError),
    ],
)
def test_what_cannot_work_is_one_line(tmp_path, own, error):
    with pytest.raises(error) as raised:
        trained(tmp_path, max_steps=1, **own)
    assert "\n" not in str(raised.value)


def test_a_place_that_holds_a_run_is_refused(tmp_path):
    trained(tmp_path, max_steps=1)
    with pytest.raises(EntropyLabError, match="is not empty"):
        trained(tmp_path, max_steps=1)


def test_two_processes_write_one_run(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", __file__, str(tmp_path)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    run = el.open_run(tmp_path / "entropy-lab")
    rows = rows_of(run)
    assert rows.height == 2 * 2 * GROUP * PROMPTS
    assert (rows.group_by("step", "group_id").len()["len"] == 2 * GROUP).all()  # a group lies on both processes
    for (_, _), group in rows.group_by("step", "group_id"):
        assert group["prompt_id"].n_unique() == 1
        np.testing.assert_allclose(group["advantage"], closed_form(group["reward"].to_list()), atol=1e-6)
    state = json.loads((tmp_path / "state.json").read_text())
    logged = [line["entropy"] for line in state if "entropy" in line]
    np.testing.assert_allclose(run.metrics()["entropy"], logged, atol=1e-5)
    assert rows["logp_after"].null_count() == 0
    assert not list(run.path.glob(".parts-*"))


def test_the_example_of_the_docs_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model().save_pretrained("tiny")
    tokenizer().save_pretrained("tiny")
    page = (Path(__file__).parents[1] / "docs/integrations.md").read_text(encoding="utf-8")
    block = page.split("```python\n")[1].split("```")[0]
    assert "Qwen/Qwen3-4B" in block
    # The policy is another, and there is no time and no GPU.
    small = "logging_steps=1, max_steps=2, max_completion_length=8, use_cpu=True, bf16=False, report_to=[]"
    block = block.replace("Qwen/Qwen3-4B", "tiny").replace("logging_steps=1", small)
    exec(block, {"accuracy_reward": ends_well, "dataset": data(8)})
    cli.main(["check", "my-run"])
    assert rows_of(el.open_run("my-run")).height == 16


RECIPE = recipes.load("trainers", "trl_grpo")


@pytest.mark.parametrize("preset", built_in())
@pytest.mark.parametrize("engine", ["transformers", "vllm", "vllm-server"])
def test_what_the_recipe_composes_is_a_configuration_of_trl(preset, engine, tmp_path, monkeypatch):
    words = ["--preset", preset, "--out", str(tmp_path / "run"), "--processes", "8", "--engine", engine]
    composed = RECIPE.prepare(from_command_line(RECIPE.Config, words))["trl"]
    assert set(composed) <= {each.name for each in fields(GRPOConfig)}
    if engine == "transformers":
        monkeypatch.setenv("WORLD_SIZE", "1")
        made = GRPOConfig(**{**composed, "bf16": False, "use_cpu": True})
        assert made.generation_batch_size * 8 == (4096 if "1.5b" in preset else 1024)


def test_the_recipe_trains(tmp_path):
    model().save_pretrained(tmp_path / "model")
    tokenizer().save_pretrained(tmp_path / "model")
    batches = "--prompts-per-step 4 --group-size 4 --mini-batches 2 --per-device 4 --train-prompts 64 --steps 3"
    words = f"{batches} --advantage asym_grpo --model.prompt plain --engine transformers --task countdown --lr 1e-2"
    given = ["--model", str(tmp_path / "model"), "--out", str(tmp_path / "run"), "--max-new-tokens", str(LIMIT)]
    RECIPE.main(from_command_line(RECIPE.Config, [*words.split(), *given]))
    run = el.open_run(tmp_path / "run")
    rows = rows_of(run)
    assert rows.group_by("step").len()["len"].to_list() == [16] * 3
    assert rows["logp_after"].null_count() == 0
    problems = {each.id: each for each in TASK.problems(np.random.default_rng(0), 64)}
    for row in rows.iter_rows(named=True):
        problem = problems[row["prompt_id"]]
        assert row["prompt"] == problem.prompt
        assert row["correct"] == TASK.verify(problem, row["completion"], truncated=row["token_ids"][-1] != 1)
    assert run.metrics()["trainer_step"].to_list() == [2, 4, 6]
    assert run.info["config"]["prompts_per_step"] == 4


if __name__ == "__main__":  # one process of the test above
    done = trained(
        sys.argv[1],
        max_steps=2,
        num_generations=2 * GROUP,
        logp_after_every=1,
        generation_kwargs={"min_new_tokens": LIMIT},
    )
    if done.accelerator.is_main_process:
        (Path(sys.argv[1]) / "state.json").write_text(json.dumps(done.state.log_history))
    done.accelerator.end_training()  # a process that leaves its group's threads behind may be aborted
