"""Where no group is mixed nothing presses on entropy: exactly nothing, not rounding."""

import numpy as np
import polars as pl
import pytest

import entropy_lab as el
from entropy_lab.figure import collected


def run_of(path, correct, advantage, seed=0):
    """A run of one step with random log-probabilities; verdicts and advantages of shape (groups, rollouts)."""
    rng, (n, size) = np.random.default_rng(seed), np.shape(correct)
    writer = el.RunWriter(path, method={"name": "mine", "params": {}})
    columns = {"prompt_id": np.repeat([f"q{i}" for i in range(n)], size), "group_id": np.repeat(np.arange(n), size)}
    columns |= {"sample": np.tile(np.arange(size), n), "correct": np.ravel(correct), "reward": np.zeros(n * size)}
    columns |= {"advantage": np.ravel(advantage), "n_tokens": rng.integers(3, 30, n * size)}
    columns |= {"logp": -rng.gamma(2.0, 5.0, n * size)}
    writer.write_rollouts(0, columns)
    return el.open_run(writer.path)


@pytest.mark.parametrize("verdict", [True, False])
def test_nothing_presses_where_every_group_is_unanimous(tmp_path, verdict):
    run = run_of(tmp_path / "run", np.full((40, 7), verdict), np.full((40, 7), 0.1))
    table = el.analyze(run, "counterfactual", n_betas=3, n_boot=50)
    known = table.frame.filter(pl.col("per_rms").is_not_null())
    assert "recorded" in known["kind"]
    assert "estimator" in known["kind"]
    assert known.select((pl.col("pressure", "per_rms") == 0).all()).row(0) == (True, True)
    assert table.metadata["direction"] is None


def test_a_constant_added_to_the_recorded_advantages_changes_nothing(tmp_path):
    rng = np.random.default_rng(1)
    correct, advantage = rng.random((30, 6)) < 0.5, rng.normal(size=(30, 6))
    shifted = advantage + rng.normal(0, 10, (30, 1))
    pressed = [
        el.analyze(run_of(tmp_path / name, correct, of), "counterfactual", n_betas=2, n_boot=10).frame.filter(
            pl.col("kind") == "recorded"
        )["pressure"]
        for name, of in (("plain", advantage), ("shifted", shifted))
    ]
    assert pressed[0].item() == pytest.approx(pressed[1].item(), rel=1e-5)


def test_the_figure_says_what_its_bars_are(tmp_path):
    correct = np.random.default_rng(2).random((30, 6)) < 0.5
    shown = collected(run_of(tmp_path / "run", correct, correct - 0.5), "counterfactual_map")
    notes = {panel["key"]: panel["notes"] for panel in shown.metadata["panels"]}
    assert notes["b"] == ["bar = 95 % bootstrap interval over prompts"]
