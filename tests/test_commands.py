"""The commands from a run on disk to files, words and JSON."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure

import entropy_lab as el
import entropy_lab.figure
from entropy_lab.cli import main


def write_run(folder, method="grpo", seed=0, n_steps=4):
    rng = np.random.default_rng([seed, len(method)])
    estimator = el.advantages.get(method)
    described = {"name": method, "params": dict(estimator.params), "label": estimator.label}
    writer = el.RunWriter(folder, method=described, group_size=4, seed=seed, model="m")
    for step in range(n_steps):
        correct = rng.random((16, 4)) < rng.random((16, 1))
        n = correct.size
        columns = {
            "prompt_id": [f"q{i // 4}" for i in range(n)],
            "group_id": np.arange(n) // 4,
            "sample": np.arange(n) % 4,
            "epoch": np.full(n, step // 2),
            "correct": correct.ravel(),
            "reward": correct.ravel().astype(float),
            "advantage": estimator(correct.astype(float)).ravel(),
            "n_tokens": rng.integers(1, 9, n),
            "entropy": rng.random(n) * 0.5**step,
            "logp": -rng.random(n),
            "logp_after": -rng.random(n),
        }
        writer.write_rollouts(step, columns)
        writer.write_metrics({"step": step, "clip_fraction_low": 0.1, "clip_fraction_high": 0.2})
        answers = {"benchmark": ["e"] * 8, "problem_id": [f"p{i // 2}" for i in range(8)], "sample": [0, 1] * 4}
        writer.write_evals(step, {**answers, "greedy": [False] * 8, "correct": rng.random(8) < 0.5})
    return writer.path


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    for method in ("grpo", "reinforce"):
        for seed in (0, 1):
            write_run(folder / "runs" / f"{method}-seed{seed}", method, seed)
    return folder


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


def outcome(run):
    """Numbers and metadata of a run's tables, and the bytes of its figures."""
    tables = {file.name: el.Table.read(file) for file in (run / "analysis").iterdir()}
    numbers = {name: (table.frame.write_json(), dict(table.metadata)) for name, table in tables.items()}
    return numbers, {file.name: file.read_bytes() for file in (run / "figures").iterdir()}


def test_analyze_writes_tables_and_figures_says_so_and_does_the_same_again(run, capsys):
    main(["analyze", str(run)])
    output = capsys.readouterr()
    assert output.err == ""
    assert all(line == line.rstrip() for line in output.out.splitlines())
    words = " ".join(output.out.split())
    for expected in ("GRPO", "0 to 3 (4 recorded)", "nats/token", "slope over accuracy", "all-solved", "figure2"):
        assert expected in words
    assert {path.stem for path in (run / "analysis").iterdir()} == {
        *("advantages", "covariance", "entropy", "entropy_audit", "ledger", "likelihood", "solve_rates", "training"),
        *("counterfactual", "group_size", "validation"),
    }
    for name in ("figure1", "figure2", "figure5"):
        assert (run / "figures" / f"{name}.png").stat().st_size > 10_000
        assert (run / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    first = outcome(run)
    main(["analyze", str(run)])
    assert outcome(run) == first


def test_json_is_one_object_and_its_numbers_are_the_tables(run, capsys):
    main(["analyze", str(run), "--json", "--no-figures"])
    output = capsys.readouterr()
    assert output.err == ""
    summary = json.loads(output.out)
    entropy = pl.read_parquet(summary["tables"]["entropy"])["entropy"]
    assert summary["entropy"]["start"] == entropy[0]
    assert summary["entropy"]["change"] == pytest.approx(entropy[-1] / entropy[0] - 1)
    rates = pl.read_parquet(summary["tables"]["solve_rates"])
    assert summary["solve_rates"]["none_solved"] == {"start": rates["none_solved"][0], "end": rates["none_solved"][-1]}
    likelihood = pl.read_parquet(summary["tables"]["likelihood"])
    assert summary["likelihood"]["increment_correct"] == pytest.approx(likelihood["increment_correct"].mean())
    assert summary["steps"] == {"first": 0, "last": 3, "n": 4}
    assert summary["figures"] == []


def test_a_run_of_evals_alone_is_analysed(run, capsys):
    shutil.rmtree(run / "rollouts")
    main(["analyze", str(run), "--json", "--no-figures"])
    summary = json.loads(capsys.readouterr().out)
    assert list(summary["tables"]) == ["validation"]
    assert "covariance" in summary["skipped"]


def test_figures_of_a_study(study, tmp_path, capsys):
    main(["figures", str(study), "--out", str(tmp_path)])
    words = " ".join(capsys.readouterr().out.split())
    assert "GRPO × 2" in words
    assert {path.stem for path in (tmp_path / "figures").glob("*.png")} == {f"figure{i}" for i in range(1, 6)} | {
        "table1"
    }
    assert "| GRPO |" in (tmp_path / "figures/table1.md").read_text()
    rows = el.Table.read(tmp_path / "tables/figure4.parquet").frame
    means = rows.filter((pl.col("panel") == "a") & (pl.col("series") == "GRPO")).sort("x")
    by_hand = [el.analyze(study / "runs" / f"grpo-seed{s}", "entropy").frame["entropy"].to_numpy() for s in (0, 1)]
    np.testing.assert_allclose(means["y"], np.mean(by_hand, axis=0), rtol=1e-12)
    np.testing.assert_allclose(means["low"], np.min(by_hand, axis=0), rtol=1e-12)
    assert means["n_seeds"].to_list() == [2] * 4
    assert not (study / "figures").exists()


def test_one_figure_by_name(study, tmp_path):
    main(["figures", str(study), "figure3", "--out", str(tmp_path)])
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"figure3.png", "figure3.pdf"}


def test_a_figure_of_ones_own(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["copy", "figures/figure3", "mine.py"])
    main(["figures", str(study), "./mine.py", "--out", "."])
    assert (tmp_path / "figures" / "mine.png").exists()


def test_a_run_that_kept_only_its_tables_is_drawn(run, tmp_path):
    main(["analyze", str(run), "--no-figures"])
    shutil.rmtree(run / "rollouts")
    shutil.rmtree(run / "evals")
    main(["figures", str(run), "--out", str(tmp_path)])
    assert (tmp_path / "figures" / "figure2.png").exists()


@pytest.mark.parametrize("kind", ["path", "run", "study", "analysis", "figure table"])
def test_draw_takes_whatever_there_is(study, kind):
    path = study / "runs" / "grpo-seed0"
    source = {
        "path": lambda: path,
        "run": lambda: el.open_run(path),
        "study": lambda: el.open_study(study),
        "analysis": lambda: el.analyze(path, "covariance"),
        "figure table": lambda: el.figure.collected(el.open_study(study), "figure1"),
    }[kind]()
    figure = el.draw(source, "figure1")
    assert isinstance(figure, Figure)
    assert figure.axes[2].get_ylabel() == "covariance (nats/token)"


def test_a_directory_without_runs_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["figures", str(tmp_path)])
    assert "holds no run" in capsys.readouterr().err
