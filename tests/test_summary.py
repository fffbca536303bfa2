"""What a summary and a diagnosis say, where steps, benchmarks or unanimous groups are missing."""

import numpy as np
import pytest

import entropy_lab as el
from entropy_lab.analysis import Results, analyze_all
from entropy_lab.cli import main
from entropy_lab.run import open_run
from entropy_lab.summary import summarise
from entropy_lab.table import Table


def run_of(path, steps):
    writer = el.RunWriter(path, method={"name": "grpo", "params": {}})
    rng = np.random.default_rng(0)
    for step in steps:
        columns = {"prompt_id": np.repeat(["a", "b"], 4), "group_id": np.repeat([0, 1], 4)}
        columns |= {"sample": np.tile(np.arange(4), 2), "correct": rng.random(8) < 0.5, "reward": np.zeros(8)}
        columns |= {"advantage": rng.normal(size=8), "n_tokens": np.full(8, 5), "logp": -5 * rng.random(8)}
        writer.write_rollouts(step, columns | {"entropy": np.full(8, 1.0 / (1 + step))})
    return writer.path


def test_a_rise_against_the_prediction_is_no_channels_work(tmp_path, capsys):
    """Likely rollouts are rewarded, which lowers entropy; but it rises, as under an entropy bonus."""
    writer, rng = el.RunWriter(tmp_path / "run", method={"name": "grpo", "params": {}}), np.random.default_rng(0)
    for step in range(40):
        columns = {"prompt_id": np.repeat(["a", "b"], 4), "group_id": np.repeat([0, 1], 4)}
        columns |= {
            "sample": np.tile(np.arange(4), 2),
            "correct": [True, True, False, False] * 2,
            "reward": np.zeros(8),
        }
        columns |= {"advantage": [1.0, 1.0, -1.0, -1.0] * 2, "n_tokens": np.full(8, 5)}
        columns |= {"logp": np.tile([-2.0, -2.0, -8.0, -8.0], 2) - rng.random(8)}
        writer.write_rollouts(step, columns | {"entropy": np.full(8, 0.5 + 0.01 * step)})
    table = el.analyze(writer.path, "ledger")
    assert table.metadata["fits"]["covariance"]["high"] < 0
    assert table.metadata["doubt"] == " (entropy went against it)"
    main(["analyze", str(writer.path), "ledger", "--no-figures"])
    words = " ".join(capsys.readouterr().out.split())
    assert "+0.39 nats/token, against what was predicted (covariance × -" in words
    assert "channel" not in words


@pytest.mark.parametrize("steps", [(0,), (0, 5, 10)])
def test_no_change_is_claimed_where_none_was_measured(tmp_path, capsys, steps):
    path = run_of(tmp_path / "run", steps)
    summary = summarise(open_run(path), analyze_all(open_run(path)))
    assert summary["ledger"]["measured"] is None
    main(["analyze", str(path), "--no-figures"])
    words = " ".join(capsys.readouterr().out.split())
    assert "no two successive steps were recorded" in words
    assert "+0 nats/token" not in words


def test_a_diagnosis_asks_for_no_column_that_is_there(tmp_path):
    # Every group is mixed: there is nothing to say of unanimous ones, though all columns are recorded.
    writer = el.RunWriter(tmp_path / "run", method={"name": "grpo", "params": {}})
    for step in range(3):
        columns = {"prompt_id": ["a", "a"], "group_id": [0, 0], "sample": [0, 1], "correct": [True, False]}
        writer.write_rollouts(step, columns | {"reward": [1.0, 0.0], "advantage": [1.0, -1.0]})
    (skipped,) = (one for one in el.diagnose(writer.path).skipped if one.name == "phantom_advantages")
    assert skipped.missing == ()
    assert skipped.why.startswith("needs a step that has the share of unanimous groups")


def validated(tmp_path, rows):
    columns = dict(zip(("step", "benchmark", "greedy", "accuracy"), zip(*rows, strict=True), strict=True))
    results = Results({"validation": Table.of("validation", columns)}, {})
    return summarise(open_run(run_of(tmp_path / "run", (0,))), results)["validation"]


def test_passes_are_compared_over_the_benchmarks_that_both_have(tmp_path):
    rows = [(10, "MATH", True, 0.6), (20, "MATH", True, 0.65), (30, "MATH", True, 0.7), (30, "AIME", True, 0.1)]
    found = validated(tmp_path, rows)
    assert found["greedy"] == {"start": 0.6, "end": 0.7, "first_step": 10, "n_benchmarks": 1}
    assert found["n_benchmarks"] == 2


def test_ways_of_decoding_and_passes_of_other_benchmarks_are_kept_apart(tmp_path):
    rows = [(0, "A", True, 0.5), (5, "B", True, 0.2), (5, "C", True, 0.4), (5, "B", False, 0.1), (9, "B", False, 0.3)]
    found = validated(tmp_path, rows)
    assert found["greedy"] == pytest.approx({"start": 0.3, "end": 0.3, "first_step": 5, "n_benchmarks": 2})
    assert found["sampled"] == {"start": 0.1, "end": 0.3, "first_step": 5, "n_benchmarks": 1}
