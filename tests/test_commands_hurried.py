"""What a hurried user types, and runs that lack something: one line, no traceback, no table that says nothing."""

import json
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

import entropy_lab as el
from entropy_lab.cli import main


def write_run(folder, *, verdicts=True, steps=4, epoch=0):
    rng = np.random.default_rng(0)
    writer = el.RunWriter(folder, method={"name": "grpo", "params": {}}, group_size=4)
    for step in range(steps):
        right = rng.random(32) < 0.5
        columns = {"prompt_id": np.repeat([f"q{i}" for i in range(8)], 4), "group_id": np.repeat(np.arange(8), 4)}
        columns |= {"sample": np.tile(np.arange(4), 8), "reward": 2.0 * right - 1, "epoch": np.full(32, epoch)}
        columns |= {"correct": right if verdicts else [None] * 32, "advantage": rng.normal(size=32)}
        columns |= {"n_tokens": np.full(32, 5), "entropy": np.full(32, 0.5), "logp": -rng.random(32)}
        writer.write_rollouts(step, columns)
    return writer.path


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


def said(capsys, *words):
    main(list(map(str, words)))
    return " ".join(capsys.readouterr().out.split())


def refused(capsys, *words):
    with pytest.raises(SystemExit) as leaving:
        main(list(map(str, words)))
    assert leaving.value.code == 2
    line = capsys.readouterr().err
    assert line.startswith("entropy-lab: ")
    assert line.count("\n") == 1
    return line


def test_the_version_is_the_package_s(capsys):
    assert said(capsys, "--version") == f"entropy-lab {el.__version__}"


@pytest.mark.parametrize(("typed", "meant"), [("analyse", "did you mean analyze?"), ("xyzzy", "entropy-lab --help")])
def test_a_command_that_there_is_not(capsys, typed, meant):
    assert refused(capsys, typed, "run").endswith(f"Hint: {meant}\n")


def test_a_recipe_without_its_kind(capsys):
    assert "Hint: entropy-lab copy analyses/covariance" in refused(capsys, "copy", "covariance")
    assert "studies, presets" in refused(capsys, "copy", "nothing/such")


@pytest.mark.parametrize("part", ["rollouts", "rollouts/step-000001.parquet", "run.json"])
def test_a_part_of_a_run_leads_to_the_run(run, capsys, part):
    before = sorted(run.rglob("*"))
    for command in ("analyze", "diagnose", "check", "watch"):
        assert f"is a part of the run {run}; a whole run. Hint: entropy-lab {command} {run}" in refused(
            capsys, command, run / part
        )
    assert sorted(run.rglob("*")) == before


def test_a_part_is_read_where_its_format_is_named(run, capsys, tmp_path):
    words = ("--format", "table", "--out", tmp_path / "out", "--no-figures")
    assert "steps 1 to 1" in said(capsys, "analyze", run / "rollouts/step-000001.parquet", *words)


@pytest.mark.parametrize("words", [("--correct-above", "0"), ("--map", "reward=score"), ("--run-name", "a")])
def test_an_option_that_would_do_nothing_is_refused(run, capsys, words):
    for command in ("analyze", "diagnose", "check", "watch"):
        assert refused(capsys, command, run, *words).startswith(f"entropy-lab: {words[0]}: changes nothing in {run}")


def test_verdicts_can_be_made_from_the_rewards_of_a_run(tmp_path, capsys):
    run, judged = write_run(tmp_path / "run", verdicts=False), tmp_path / "judged"
    said(capsys, "import", run / "rollouts", "--correct-above", "0", "--out", judged)
    rows = el.open_run(judged).scan().collect()
    assert rows["correct"].to_list() == (rows["reward"] > 0).to_list()


@pytest.mark.parametrize("spelling", ["TABLE", "Table"])
def test_a_framework_is_known_however_it_is_spelled(tmp_path, capsys, spelling):
    (tmp_path / "log.csv").write_text("step,entropy\n0,0.5\n")
    assert "no rollouts" in said(capsys, "diagnose", tmp_path / "log.csv", "--format", spelling)


def test_a_run_without_verdicts_says_so_and_lists_no_empty_table(tmp_path, capsys):
    run = write_run(tmp_path / "run", verdicts=False)
    words = said(capsys, "analyze", run)
    assert "solve_rates: no rollout has a verdict, `correct` is null (record it, or" in words
    listed = words.partition(" tables ")[2]
    assert "covariance" not in listed
    assert "training" in listed
    assert not (run / "figures/figure1.png").exists()  # nothing in it would be of this run
    summary = json.loads(said(capsys, "analyze", run, "--json", "--no-figures"))
    empty = {name for name, path in summary["tables"].items() if not len(pl.read_parquet(path))}
    assert set(summary["empty"]["analyses"]) == empty
    assert "solve_rates no row: no rollout has a verdict" in said(capsys, "check", run)


def test_what_did_not_change_is_said_once(tmp_path, capsys):
    words = said(capsys, "analyze", write_run(tmp_path / "run", steps=1, epoch=3), "--no-figures")
    assert "entropy 0.5 nats/token " in words
    assert "of groups, epoch 3 none-solved" in words
    assert "→" not in words


def test_one_analysis_leaves_the_other_panels_in_the_figures(run, tmp_path, capsys, monkeypatch):
    main(["analyze", str(run), "covariance", "entropy", "solve_rates"])
    whole = {name: (run / f"figures/{name}.png").read_bytes() for name in ("figure1", "figure2")}
    monkeypatch.chdir(tmp_path)
    main(["copy", "analyses/covariance", "."])
    main(["analyze", str(run), "solve_rates", "./covariance.py"])
    assert {name: (run / f"figures/{name}.png").read_bytes() for name in whole} == whole
    (run / "figures/figure2.png").unlink()
    main(["analyze", str(run), "./covariance.py"])
    assert not (run / "figures/figure2.png").exists()  # it shows no covariance


def test_a_warning_is_given_once_however_often_the_file_is_read(run, capsys):
    (run / "metrics.jsonl").write_text('{"step": 0}\n{"step": 1, "ent')
    main(["check", str(run)])
    assert capsys.readouterr().err.count("is cut off") == 1


def test_scalars_alone_are_said_to_be_all(tmp_path, capsys):
    (tmp_path / "log.csv").write_text("step,entropy,reward\n" + "".join(f"{i},0.5,{i}\n" for i in range(5)))
    words = said(capsys, "analyze", tmp_path / "log.csv", "--out", tmp_path / "out")
    assert "log.csv, method unknown" in words
    assert "training: this run did not record any rollouts" in words
    assert words.count("did not record") == 2  # rollouts, and the columns of validation passes
    assert {path.name for path in (tmp_path / "out/figures").glob("*.png")} == {"figure2.png", "figure5.png"}


def test_only_scalars_that_there_are_are_drawn(tmp_path, capsys):
    (tmp_path / "log.csv").write_text("step,loss,reward\n" + "".join(f"{i},0.5,{i}\n" for i in range(5)))
    said(capsys, "analyze", tmp_path / "log.csv", "--out", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out/figures").glob("*.png")} == {"figure5.png"}


def test_a_reader_that_leaves_early_is_no_finding():
    listing = subprocess.Popen([sys.executable, "-m", "entropy_lab.cli", "list"], stdout=subprocess.PIPE)
    listing.stdout.close()
    assert listing.wait() == 141


def test_a_trainer_without_any_word_asks_for_what_it_needs(capsys):
    with pytest.raises(SystemExit) as leaving:
        main(["train", "grpo"])
    assert leaving.value.code == 2
    assert "--out" in "".join(capsys.readouterr())
