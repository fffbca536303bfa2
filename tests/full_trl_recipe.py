"""The recipe trainers/trl_grpo.py and the example of docs/integrations.md in the real TRL; `make test-trl` runs it."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import trl
from trl import GRPOConfig

import entropy_lab as el
from entropy_lab import cli, recipes
from entropy_lab.errors import ParameterError
from entropy_lab.presets.preset import PRESETS
from entropy_lab.studies.command_line import from_command_line
from tests.full_trl_small_run import IGNORED_WARNINGS, LIMIT, TASK, data, ends_well, model, rows_of, tokenizer

pytestmark = [pytest.mark.filterwarnings("ignore::" + kind) for kind in IGNORED_WARNINGS]

RECIPE = recipes.load("trainers", "trl_grpo")


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


@pytest.mark.parametrize("preset", PRESETS.names())
@pytest.mark.parametrize("engine", ["transformers", "vllm", "vllm-server"])
def test_what_the_recipe_composes_is_a_configuration_of_trl(preset, engine, tmp_path, monkeypatch):
    words = ["--preset", preset, "--out", str(tmp_path / "run"), "--processes", "8", "--engine", engine]
    composed = RECIPE.prepare(from_command_line(RECIPE.Config, words))["trl"]
    assert set(composed) <= {each.name for each in fields(GRPOConfig)}
    if engine == "transformers":
        monkeypatch.setenv("WORLD_SIZE", "1")
        made = GRPOConfig(**{**composed, "bf16": False, "use_cpu": True})
        assert made.generation_batch_size * 8 == (4096 if "1.5b" in preset else 1024)


def launch(folder, *further):
    """Settings of a small training with a model in the folder."""
    model().save_pretrained(folder / "model")
    tokenizer().save_pretrained(folder / "model")
    batches = "--prompts-per-step 4 --group-size 4 --mini-batches 2 --per-device 4 --train-prompts 64 --steps 3"
    words = f"{batches} --advantage asym_grpo --model.prompt plain --engine transformers --task countdown --lr 1e-2"
    given = ["--model", str(folder / "model"), "--out", str(folder / "run"), "--max-new-tokens", str(LIMIT)]
    return from_command_line(RECIPE.Config, [*words.split(), *given, *further])


def test_the_recipe_trains(tmp_path):
    RECIPE.main(launch(tmp_path))
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


def test_an_entropy_bonus_needs_a_trl_that_has_one(tmp_path):
    config = launch(tmp_path, "--entropy-coef", "0.01")
    arguments = RECIPE.prepare(config)["trl"]
    if trl.__version__ == "1.0.0":  # the older of the two that `make test-trl` installs
        with pytest.raises(ParameterError, match="entropy_coef: is not known to the TRL"):
            RECIPE.make_trainer(config, arguments, TASK)
    else:
        assert RECIPE.make_trainer(config, arguments, TASK).args.entropy_coef == 0.01
