"""The examples of README and docs run as they stand."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import entropy_lab as el

ROOT = Path(__file__).parent.parent


def python_blocks(page):
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run where README's example looks for one."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    writer = el.RunWriter(Path("runs/grpo-seed0"), method={"name": "grpo", "params": {}}, group_size=8)
    n = 160
    columns = {
        "prompt_id": [f"q{i // 8}" for i in range(n)],
        "group_id": np.arange(n) // 8,
        "sample": np.arange(n) % 8,
        "correct": rng.random(n) < 0.5,
        "reward": np.zeros(n),
        "advantage": rng.normal(size=n),
        "n_tokens": rng.integers(1, 9, n),
        "logp": -rng.random(n),
        "truncated": rng.random(n) < 0.1,
    }
    writer.write_rollouts(0, columns)
    return writer.path


def test_readmes_session_runs(run):
    session = python_blocks("README.md")[0]
    assert "el.draw" in session
    exec(compile(session, "README.md", "exec"), {})
    assert Path("covariance.png").stat().st_size > 10_000


def test_the_analysis_of_the_recipes_page_runs(run):
    Path("mine.py").write_text(python_blocks("docs/recipes.md")[0], encoding="utf-8")
    assert el.analyze(run, "./mine.py").frame["len"].sum() == 160


def test_the_notebook_of_the_recipes_page_draws_both_runs(run):
    shutil.copytree(run, "runs/asym-grpo-seed0")
    scope: dict[str, object] = {}
    exec(compile(python_blocks("docs/recipes.md")[1], "docs/recipes.md", "exec"), scope)
    drawn = scope["axes"].collections[0].get_offsets()
    covariance = el.analyze(run, "covariance").frame["covariance"].to_numpy()
    np.testing.assert_allclose(drawn[:, 1], [*covariance, *covariance])


def test_the_controller_of_the_advantages_page_runs():
    scope: dict[str, object] = {}
    exec(compile(python_blocks("docs/advantages.md")[0], "docs/advantages.md", "exec"), scope)
    assert scope["controller"].values() == scope["controller"].state()
    assert scope["controller"].values()["entropy_target"] == 0.2


def test_the_writer_of_the_format_page_runs(run):
    block = next(block for block in python_blocks("docs/run-format.md") if "RunWriter" in block)

    class Batch:
        prompt_ids, group_ids, samples = ["a", "a"], [0, 0], [0, 1]
        rewards, verdicts, advantages = [1.0, 0.0], [True, None], [1.0, -1.0]
        lengths, sum_logps, mean_entropies = [3, 4], [-1.0, -2.0], [0.5, 0.25]

    exec(compile(block, "docs/run-format.md", "exec"), {"training_loop": lambda: [Batch, Batch]})
    assert len(el.open_run("my-run").step_files) == 2
    assert el.analyze("my-run", "entropy").frame["n_tokens"].to_list() == [7, 7]


@pytest.mark.parametrize("page", ["README.md", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").glob("*.md"))])
def test_links_and_pictures_are_there(page):
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text(encoding="utf-8")):
        if not target.startswith("https://"):
            assert ((ROOT / page).parent / target).exists(), target
