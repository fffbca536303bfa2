"""Recomputed log-probabilities are those of the policy, fill only what was not recorded, and say what they are."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import polars as pl
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import entropy_lab as el
from entropy_lab import recipes
from entropy_lab.cli import Score, main
from entropy_lab.errors import ParameterError, UnknownNameError
from entropy_lab.rl.checkpoint import latest
from entropy_lab.rl.checkpoint_pattern import CheckpointPattern
from entropy_lab.rl.logprobs import score
from entropy_lab.rl.model import ModelSizes, build_model
from entropy_lab.rl.policy import PolicySettings
from entropy_lab.rl.recorded_tokens import PROMPT_KINDS, Retokeniser
from entropy_lab.rl.rescoring import rescore
from entropy_lab.rl.score_passes import plan_passes
from entropy_lab.rl.scorer import ScoreSettings
from entropy_lab.rl.sequences import Sequences
from entropy_lab.rl.transformers_engine import TransformersEngine
from entropy_lab.tasks import get as get_task
from entropy_lab.tasks.task import EOS

torch.set_num_threads(1)
SIZES = ModelSizes(hidden=32, layers=2, heads=2, kv_heads=1, head_dim=16, feed_forward=64)
TASK = get_task("countdown")
POLICY = ("logp", "entropy", "token_logp", "token_entropy")
AFTER = ("logp_after", "token_logp_after")


def tokenizer():
    """The task's characters as a tokenizer of transformers."""
    ids = {"<pad>": 0, "<eos>": 1, **{character: i + 2 for i, character in enumerate(TASK.vocabulary.characters)}}
    made = Tokenizer(models.WordLevel(ids, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    made.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>", pad_token="<pad>")


def saved(model, folder):
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Three policies, and a run whose two steps the first two sampled, as recorded and without the scores."""
    folder = tmp_path_factory.mktemp("world")
    policies = [
        saved(build_model(SIZES, TASK.vocabulary.size, seed), folder / f"ckpts/step-{seed}") for seed in range(3)
    ]
    texts = [problem.prompt for problem in TASK.problems(np.random.default_rng(0), 4)]
    prompts = [text for text in texts for _ in range(4)]
    with el.Recorder(folder / "full", method="grpo", group_size=4, config={"temperature": 0.8}, world_size=1) as rec:
        for step in range(2):
            drawn = TransformersEngine(policies[step]).generate(
                [TASK.vocabulary.encode(text) for text in texts],
                4,
                temperature=0.8,
                max_new_tokens=6,
                generator=torch.Generator().manual_seed(step),
            )
            ids = [TASK.vocabulary.encode(text) for text in prompts]
            sequences = Sequences.join(ids, drawn.responses())
            before, after = (score(policies[k], sequences, 0.8) for k in (step, step + 1))
            rec.step(
                prompts=prompts,
                completions=[TASK.vocabulary.decode(response) for response in drawn.responses()],
                rewards=[0.0, 1.0] * 8,
                mask=sequences.mask_BT,
                token_ids=drawn.token_ids_BT,
                logps=before.logp_BT,
                entropies=before.entropy_BT,
                logps_after=after.logp_BT,
                truncated=drawn.truncated_B,
            )
    return folder


def stripped(world, target, *names):
    """Copy the run without some of its columns."""
    shutil.copytree(world / "full", target)
    for file in (target / "rollouts").iterdir():
        pl.read_parquet(file).drop(*names).write_parquet(file)
    return target


def steps(run):
    return [pl.read_parquet(file) for file in sorted((run / "rollouts").iterdir())]


def assert_as_recorded(found, world, names):
    for mine, recorded in zip(steps(found), steps(world / "full"), strict=True):
        assert set(mine.columns) == set(recorded.columns)
        for name in names:
            values = [frame[name].explode() if name.startswith("token_") else frame[name] for frame in (mine, recorded)]
            assert values[0].to_list() == pytest.approx(values[1].to_list(), abs=1e-4), name
            assert mine[name].dtype == recorded[name].dtype
        rest = [name for name in recorded.columns if name not in names]
        assert mine.select(rest).equals(recorded.select(rest))


def patterns(world):
    return f"{world}/ckpts/step-{{step}}", f"{world}/ckpts/step-{{step+1}}"


def test_a_run_gets_back_what_was_taken_from_it(world, tmp_path, capsys):
    run = stripped(world, tmp_path / "run", *POLICY, *AFTER)
    model, after = patterns(world)
    main(["score", str(run), "--model", model, "--after", after, "--micro-tokens", "64"])
    output = capsys.readouterr().out
    assert "scored       2 steps (0, 1)" in output
    assert "temperature 0.8 (run.json)" in output
    assert f"logp, entropy, token_logp, token_entropy from {model}" in output
    assert f"logp_after, token_logp_after from {after}" in output
    assert "prompts were tokenised again" in output
    assert_as_recorded(run, world, (*POLICY, *AFTER))
    metadata = pl.read_parquet_metadata(run / "rollouts/step-000001.parquet")
    scored = json.loads(metadata["scored"])
    assert scored["logp"]["checkpoint"] == f"{world}/ckpts/step-1"
    assert scored["logp_after"]["checkpoint"] == f"{world}/ckpts/step-2"
    assert scored["logp"]["tokens"] == "recorded"
    assert metadata["unit:logp"] == "nats"
    assert el.open_run(run).info["scored"] == [
        {
            "checkpoints": {"logp": model, "logp_after": after},
            "temperature": 0.8,
            "dtype": "float32",
            "columns": sorted((*POLICY, *AFTER)),
            "steps": [0, 1],
        }
    ]
    before = [file.read_bytes() for file in sorted((run / "rollouts").iterdir())]
    main(["score", str(run), "--model", model, "--after", after])
    assert "complete     2 steps (0, 1) had every column" in capsys.readouterr().out
    assert [file.read_bytes() for file in sorted((run / "rollouts").iterdir())] == before
    main(["check", str(run)])
    assert "warning" not in capsys.readouterr().out


def test_recorded_columns_stay_and_are_compared(world, tmp_path, capsys):
    run = stripped(world, tmp_path / "run", "entropy", "token_entropy")
    model, _ = patterns(world)
    # Checkpoints of the next step, on purpose: the difference from what was recorded shows it.
    main(["score", str(run), "--model", model.replace("{step}", "{step+1}"), "--temperature", "0.8"])
    output = capsys.readouterr().out
    assert "columns      entropy, token_entropy from" in output
    wrong = float(output.split("difference   ")[1].split()[0])
    for mine, recorded in zip(steps(run), steps(world / "full"), strict=True):
        assert mine["logp"].equals(recorded["logp"])
        assert recorded.select((pl.col("logp") - pl.col("logp_after")).abs().mean()).item() > 0
    shutil.rmtree(run)
    run = stripped(world, tmp_path / "run", "entropy", "token_entropy")
    main(["score", str(run), "--model", model])
    right = float(capsys.readouterr().out.split("difference   ")[1].split()[0])
    assert right < 1e-5 < 1e-2 < wrong


def test_one_checkpoint_for_all_steps_is_never_called_the_policy(world, tmp_path, capsys):
    run, base = stripped(world, tmp_path / "run", *POLICY, *AFTER), world / "ckpts/step-0"
    main(["score", str(run), "--model", str(base), "--no-tokens"])
    assert "logp_under_step_0: under the models named, not log π_old" in capsys.readouterr().out
    first, second = steps(run)
    assert not {*POLICY, *AFTER} & set(first.columns)
    recorded = steps(world / "full")
    assert first["logp_under_step_0"].to_list() == pytest.approx(recorded[0]["logp"].to_list(), abs=1e-4)
    assert second["logp_under_step_0"].to_list() != pytest.approx(recorded[1]["logp"].to_list(), abs=1e-2)
    assert not [name for name in first.columns if name.startswith(("token_logp", "token_entropy"))]
    with pytest.raises(SystemExit):
        main(["score", str(run), "--model", str(world / "ckpts/step-1"), "--name", "step_0"])
    assert "has logp_under_step_0 from" in capsys.readouterr().err
    main(["score", str(run), "--model", str(world / "ckpts/step-1"), "--after", str(base), "--name", "two"])
    assert {"logp_under_two", "entropy_under_two", "logp_under_two_after"} <= set(steps(run)[0].columns)


def test_the_user_may_say_of_which_step_a_checkpoint_is_the_policy(world, tmp_path):
    run = stripped(world, tmp_path / "run", *POLICY)
    model, out = str(world / "ckpts/step-1"), tmp_path / "out"
    main(["score", str(run), "--model", model, "--as-policy", "1", "--out", str(out)])
    first, second = steps(out)
    assert "logp" not in first.columns
    assert second["logp"].to_list() == pytest.approx(steps(world / "full")[1]["logp"].to_list(), abs=1e-4)


def test_texts_are_tokenised_again_and_other_lengths_left_null(world, tmp_path, capsys):
    run = stripped(world, tmp_path / "run", *POLICY, *AFTER, "token_ids")
    file = run / "rollouts/step-000000.parquet"
    frame = pl.read_parquet(file)
    longer = pl.when(pl.int_range(pl.len()) == 3).then(pl.col("n_tokens") + 2).otherwise("n_tokens")
    frame.with_columns(longer.alias("n_tokens")).write_parquet(file)
    model, _ = patterns(world)
    main(["score", str(run), "--model", model])
    output = capsys.readouterr().out
    assert "prompts and responses were tokenised again" in output
    # A sampled padding token has a sign of its own in the text, which no tokenizer turns back.
    odd = sum("␀" in text for frame in steps(world / "full") for text in frame["completion"])
    first, second = steps(run)
    recorded = steps(world / "full")
    assert first["logp"][3] is None
    assert first["token_ids"][3] is None
    assert "left null    1 of 32 rollouts with another number of tokens" in output
    for mine, full in ((first, recorded[0]), (second, recorded[1])):
        same = mine["logp"].is_not_null() & ~full["completion"].str.contains("␀")
        assert same.sum() >= 15 - odd
        assert mine.filter(same)["token_ids"].to_list() == full.filter(same)["token_ids"].to_list()
        assert mine.filter(same)["logp"].to_list() == pytest.approx(full.filter(same)["logp"].to_list(), abs=1e-4)


def test_stopped_in_the_middle_it_goes_on_in_a_copy(world, tmp_path):
    run = stripped(world, tmp_path / "run", *POLICY)
    original = [file.read_bytes() for file in sorted((run / "rollouts").iterdir())]
    passes = plan_passes(patterns(world)[0], None, None, None)
    settings = ScoreSettings(temperature=0.8)

    def stop(done, total):
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rescore(run, passes, settings, tmp_path / "out", stop)
    assert [frame.height for frame in steps(tmp_path / "out")] == [16]
    outcome = rescore(run, passes, settings, tmp_path / "out")
    assert (outcome.scored, outcome.complete) == ([1], [0])
    assert_as_recorded(tmp_path / "out", world, POLICY)
    assert el.open_run(tmp_path / "out").info["scored"][0]["steps"] == [0, 1]
    assert (tmp_path / "out/metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()
    assert [file.read_bytes() for file in sorted((run / "rollouts").iterdir())] == original


def test_steps_without_a_checkpoint_are_left_out(world, tmp_path, capsys):
    run = stripped(world, tmp_path / "run", *POLICY)
    (tmp_path / "only/1").parent.mkdir()
    (tmp_path / "only/1").symlink_to(world / "ckpts/step-1")
    main(["score", str(run), "--model", f"{tmp_path}/only/{{step}}"])
    assert "left out     1 step (0): no checkpoint is there" in capsys.readouterr().out
    with pytest.raises(UnknownNameError, match=r"there is no directory none/0 … none/1"):
        rescore(run, plan_passes("none/{step}", None, None, None), ScoreSettings())


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--model", "a/{steps}"], r"checkpoint: holds \{steps\}"),
        (["--model", "a/{step}", "--after", "b"], "in both, or in none"),
        (["--model", "a/{step}", "--as-policy", "1"], "one checkpoint without"),
        (["--model", "x/a", "--after", "y/a"], "the same name as --model, 'a'"),
        (["--model", "a", "--name", "not a name"], "letters, digits and underscores"),
        (["--model", "a", "--temperature", "0"], "--temperature: is 0.0"),
    ],
)
def test_what_does_not_fit_together_is_refused(world, words, line, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["score", str(world / "full"), *words])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1

    assert re.search(line, error)


def test_a_checkpoint_of_another_vocabulary_is_refused(world, tmp_path):
    run = stripped(world, tmp_path / "run", *POLICY)
    build_model(SIZES, 5, 0).save_pretrained(tmp_path / "small")
    tokenizer().save_pretrained(tmp_path / "small")
    with pytest.raises(ParameterError, match=r"token_ids: go up to \d+, and the model knows 5"):
        rescore(run, plan_passes(str(tmp_path / "small"), None, None, None), ScoreSettings())


def test_any_causal_model_with_a_plain_head_scores(world, tmp_path):
    """GPT-2 has other names inside, and no Qwen's rotary positions; its own logits are the reference."""
    run = stripped(world, tmp_path / "run", *AFTER)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=20, n_embd=16, n_layer=1, n_head=2, n_positions=64, eos_token_id=1, bos_token_id=1
        )
        model = saved(GPT2LMHeadModel(config).eval(), tmp_path / "gpt2")
    rescore(run, plan_passes(str(tmp_path / "gpt2"), None, None, None), ScoreSettings(temperature=0.5))
    row = steps(run)[0].row(5, named=True)
    prompt = TASK.vocabulary.encode(row["prompt"])
    with torch.no_grad():
        logits = model(torch.tensor([prompt + row["token_ids"]])).logits[0, len(prompt) - 1 : -1].double() / 0.5
    distribution = torch.log_softmax(logits, -1)
    expected = distribution[torch.arange(len(row["token_ids"])), torch.tensor(row["token_ids"])]
    assert row["token_logp_under_gpt2"] == pytest.approx(expected.tolist(), abs=1e-4)
    assert row["entropy_under_gpt2"] == pytest.approx(
        -(distribution.exp() * distribution).sum(-1).mean().item(), abs=1e-4
    )


def test_our_own_trainers_numbers_come_back(world, tmp_path):
    grpo = recipes.load("trainers", "grpo")
    policy = PolicySettings(path=str(world / "ckpts/step-0"), prompt="plain")
    config = grpo.Config(out=tmp_path / "run", model=policy, steps=1, train_prompts=4, prompts_per_step=4)
    config = replace(config, group_size=4, eval_every=0, lr=1e-3, checkpoint_every=1, temperature=0.9)
    run = grpo.main(replace(config, advantage="reinforce"))
    model = build_model(SIZES, TASK.vocabulary.size, seed=0)
    saved(model, tmp_path / "ckpts/0")
    model.load_state_dict(dict(latest(run).weights), strict=False)
    saved(model, tmp_path / "ckpts/1")
    recorded = steps(run)[0]
    for file in (run / "rollouts").iterdir():
        recorded.drop(*POLICY, *AFTER).write_parquet(file)
    main(["score", str(run), "--model", f"{tmp_path}/ckpts/{{step}}", "--after", f"{tmp_path}/ckpts/{{step+1}}"])
    found = steps(run)[0]
    for name in ("logp", "logp_after", "entropy"):
        assert found[name].to_list() == pytest.approx(recorded[name].to_list(), abs=1e-4)
    assert found["logp_after"].to_list() != pytest.approx(recorded["logp"].to_list(), abs=1e-4)


def test_the_command_line_knows_every_kind_of_prompt():
    assert get_args(get_type_hints(Score)["prompt"]) == PROMPT_KINDS


def test_patterns_count_steps():
    pattern = CheckpointPattern("a/{step+1:04d}/{step}")
    assert (pattern.by_step, pattern.at(9)) == (True, "a/0010/9")
    assert CheckpointPattern("./models/Qwen3-0.6B").name == "Qwen3_0_6B"


def test_end_of_sequence_follows_the_recorded_number_of_tokens():
    texts = Retokeniser(tokenizer)
    frame = pl.DataFrame(
        {
            "prompt": ["1+2"] * 5,
            "completion": ["12", "12", "12", "12", "12"],
            "n_tokens": [3, 2, 4, None, None],
            "truncated": [None, None, None, False, True],
        }
    )
    found = texts.tokens(frame)
    ids = TASK.vocabulary.encode("12")
    assert found.responses == [[*ids, EOS], ids, [], [*ids, EOS], ids]
    assert found.usable_B.tolist() == [True, True, False, True, True]
    assert texts.tokens(pl.DataFrame({"token_ids": [[5]], "prompt": ["1"], "interrupted": [True]})).why == {
        "with a tool's tokens in between": 1
    }
    assert texts.tokens(pl.DataFrame({"token_ids": [[5]]})).why == {"without a prompt": 1}


def test_chat_messages_get_the_models_template():
    chat = tokenizer()
    chat.chat_template = "{% for m in messages %}{{ m.content }}={% endfor %}{% if add_generation_prompt %}>{% endif %}"
    messages = json.dumps([{"role": "user", "content": "1+2"}])
    found = Retokeniser(lambda: chat).tokens(pl.DataFrame({"prompt": [messages], "token_ids": [[5]]}))
    assert found.prompts == [TASK.vocabulary.encode("1+2=>")]
    found = Retokeniser(lambda: chat, "chat").tokens(pl.DataFrame({"prompt": ["1+2"], "token_ids": [[5]]}))
    assert found.prompts == [TASK.vocabulary.encode("1+2=>")]


def test_nothing_half_written_is_left(world, tmp_path, monkeypatch):
    run = stripped(world, tmp_path / "run", *POLICY)
    before = {path: path.read_bytes() for path in Path(run).rglob("*.parquet")}

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(pl.DataFrame, "write_parquet", stop)
    with pytest.raises(KeyboardInterrupt):
        rescore(run, plan_passes(patterns(world)[0], None, None, None), ScoreSettings())
    assert {path: path.read_bytes() for path in Path(run).rglob("*") if path.suffix == ".parquet"} == before
    assert not list((run / "rollouts").glob(".*"))
