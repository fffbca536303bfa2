"""Studies: what a file plans, what is refused before anything is run, and that a killed study goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

import entropy_lab as el
from entropy_lab.analysis import analyze_all
from entropy_lab.cli import main
from entropy_lab.errors import OutputError, ParameterError, UnknownNameError
from entropy_lab.files import alone
from entropy_lab.studies import plan as plans
from entropy_lab.studies import runner
from entropy_lab.studies.worker import Job, make_run, read_timings

TINY = """
name = "mine"
seeds = 2
[defaults]
steps = 2
train_prompts = 8
prompts_per_step = 4
group_size = 4
mini_batches = 2
warm_start_steps = 2
eval_every = 1
eval_problems = 4
eval_samples = 2
model = { hidden = 32, layers = 1, heads = 2, kv_heads = 1, head_dim = 16, feed_forward = 32 }
[settings.five]
label = "up to five"
task = "countdown"
[methods.base]
advantage = "grpo"
lr = 0.0
steps = 1
[methods.pos]
label = "Pos-Only"
advantage = "pos_only"
advantage_params = { beta_pos = 0.75 }
seeds = 1
"""


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ENTROPY_LAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def tiny(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(TINY)
    return file


def contents(study):
    """Everything a study holds but times: the bytes of its tables, and run.json without its date."""
    found = {}
    for file in sorted(study.glob("runs/**/*")):
        if file.name == "run.json":
            found[str(file.relative_to(study))] = {**json.loads(file.read_text()), "created": None}
        elif file.is_file():
            found[str(file.relative_to(study))] = file.read_bytes()
    return found


def test_methods_meet_settings_and_seeds_with_common_random_numbers(tiny):
    runs = plans.read_plan(str(tiny)).runs()
    assert [run.name for run in runs] == ["five-base-seed0", "five-pos-seed0", "five-base-seed1"]
    for run in runs:
        assert {run.values[name] for name in ("seed", "data_seed", "warm_start_seed")} == {run.seed}
    assert runs[0].values["label"] == "base"
    assert runs[1].values["label"] == "Pos-Only"
    assert runs[1].values["setting"] == "up to five"
    assert [runs[0].values["steps"], runs[1].values["steps"]] == [1, 2]


def test_the_built_in_study_has_every_method_of_the_paper_in_two_settings():
    plan = plans.read_plan("tiny")
    assert len(plan.settings) == 2
    made = {
        (values["advantage"], *sorted(values.get("advantage_params", {}).items())) for values in plan.methods.values()
    }
    for beta in (0.25, 0.5, 0.75, 0.9):
        assert ("pos_only", ("beta_pos", beta)) in made
    for beta in (0.25, 0.5, 0.75):
        assert ("neg_only", ("beta_neg", beta)) in made
    assert {name for name, *_ in made} >= {
        *("reinforce", "grpo", "dr_grpo", "pass_at_k", "ent_increase", "ent_decrease", "asym_grpo"),
        *("entropy_advantage", "asym_grpo_schedule", "entropy_target", "token_asym_grpo"),
    }
    assert all(len(plan.runs(seeds)) > 40 for seeds in (1, 5))
    labels = [(run.setting, run.values["label"], run.seed) for run in plan.runs()]
    assert len(set(labels)) == len(labels)


def test_a_study_is_made_analysed_and_found_finished(tiny, tmp_path, capsys):
    words = ["study", str(tiny), "--out", str(tmp_path / "study"), "--jobs", "1"]
    main([*words, "--dry-run"])
    assert "3 runs" in capsys.readouterr().out
    assert not (tmp_path / "study").exists()
    main(words)
    assert "3 of 3 runs" in capsys.readouterr().out
    study = el.open_study(tmp_path / "study")
    assert [run.info["setting"] for run in study.runs] == ["up to five"] * 3
    assert [run.method["name"] for run in study.runs] == ["base", "base", "pos_only"]
    assert not any(run.step_files for run in study.runs)
    assert not (study.path / "unfinished").exists()
    table = el.Table.read(study.runs[2].path / "analysis" / "entropy.parquet")
    assert table.frame["entropy"].dtype == pl.Float32
    assert table.units["entropy"] == "nats/token"
    before = contents(study.path)
    main(words)
    main([*words, "--dry-run"])
    assert "still to make: nothing" in capsys.readouterr().out
    assert contents(study.path) == before
    assert set(read_timings(study.path / "timings.json")) == {run.path.name for run in study.runs}
    main(["figures", str(study.path)])
    assert (study.path / "figures" / "figure2.png").exists()


def test_kept_tables_equal_those_of_the_whole_run(tiny, tmp_path):
    plan = plans.read_plan(str(tiny))
    run = plan.runs()[1]
    for keep in (True, False):
        make_run(Job("grpo", "", run.values, tmp_path / "place" / run.name, tmp_path / str(keep) / run.name, keep))
    whole = analyze_all(el.open_run(tmp_path / "True" / run.name)).tables
    for name, table in whole.items():
        kept = el.Table.read(tmp_path / "False" / run.name / "analysis" / f"{name}.parquet")
        assert dict(kept.metadata) == json.loads(json.dumps(dict(table.metadata)))
        for column in table.columns:
            ours, theirs = kept.frame[column], table.frame[column]
            if theirs.dtype == pl.Float64:
                assert ours.is_null().equals(theirs.is_null())
                assert ours.drop_nulls().to_list() == pytest.approx(theirs.drop_nulls().to_list(), rel=1e-6), column
            else:
                assert ours.equals(theirs)


def test_a_killed_study_goes_on_and_ends_the_same(tiny, tmp_path):
    command = [sys.executable, "-m", "entropy_lab.cli", "study", str(tiny), "--out", str(tmp_path / "killed")]
    for run in plans.read_plan(str(tiny)).runs():
        make_run(
            Job("grpo", "", run.values, tmp_path / "place" / run.name, tmp_path / "whole" / "runs" / run.name, False)
        )
    killed = tmp_path / "killed"
    process = subprocess.Popen([*command, "--jobs", "1"], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(killed.glob("unfinished/*/*/rollouts/*.parquet")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert set(contents(killed)) < set(contents(tmp_path / "whole"))
    subprocess.run([*command, "--jobs", "1"], check=True, capture_output=True)
    assert contents(killed) == contents(tmp_path / "whole")
    assert not (killed / "unfinished").exists()


@pytest.mark.parametrize(
    ("old", "new", "error", "said"),
    [
        ("seeds = 2", "seed = 2", UnknownNameError, "did you mean seeds"),
        ("seeds = 2", 'seeds = "2"', ParameterError, "whole number"),
        ("[settings.five]", "[setting.five]", UnknownNameError, "did you mean settings"),
        ('label = "Pos-Only"', "label = 3", ParameterError, "methods.pos.label"),
        ("seeds = 1", "seeds = 0", ParameterError, "1 or more"),
        ("lr = 0.0", "seed = 4", ParameterError, "numbers the seeds itself"),
        ("[methods.pos]", '[methods."a/b"]', ParameterError, "letters, digits"),
        ("seeds = 2", "seeds = ", ParameterError, "is not TOML"),
        ('[settings.five]\nlabel = "up to five"\ntask = "countdown"', "", ParameterError, "is missing"),
    ],
)
def test_a_file_that_is_no_study_is_refused(tiny, old, new, error, said):
    assert old in TINY
    tiny.write_text(TINY.replace(old, new, 1))
    with pytest.raises(error, match=said):
        plans.read_plan(str(tiny))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("lr = 0.0", "learning_rate = 0.0", "there is no setting 'learning_rate'"),
        ("steps = 2", 'steps = "2"', "steps: is '2'"),
        ("hidden = 32", "hiden = 32", "did you mean hidden"),
        ("hidden = 32", "hidden = 32.5", "hidden: is 32.5"),
        ("beta_pos = 0.75", "beta_pos = -1", "beta_pos"),
        ('advantage = "pos_only"', 'advantage = "pos_onl"', "did you mean pos_only"),
        ("prompts_per_step = 4", "prompts_per_step = 3", "multiple"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_is_made(tiny, tmp_path, capsys, old, new, said):
    assert old in TINY
    tiny.write_text(TINY.replace(old, new, 1))
    with pytest.raises(SystemExit) as stop:
        main(["study", str(tiny), "--out", str(tmp_path / "study")])
    assert stop.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("words", [["--jobs", "0"], ["--seeds", "0"]])
def test_impossible_numbers_are_refused(tiny, tmp_path, capsys, words):
    with pytest.raises(SystemExit):
        main(["study", str(tiny), "--out", str(tmp_path / "study"), *words])
    assert "1 or more" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("name", ["tini", "./none.toml"])
def test_an_unknown_study_is_refused(name):
    with pytest.raises(UnknownNameError, match="tiny"):
        plans.read_plan(name)


def test_a_built_in_study_is_listed_and_copied(tmp_path, capsys):
    main(["list"])
    assert "2604.04894" in capsys.readouterr().out
    main(["copy", "studies/tiny", str(tmp_path / "mine.toml")])
    assert plans.read_plan(str(tmp_path / "mine.toml")) == plans.read_plan("tiny")
    with pytest.raises(SystemExit):
        main(["copy", "studies/tini", str(tmp_path / "other.toml")])
    assert "there are: tiny" in capsys.readouterr().err


def test_a_finished_run_of_other_settings_is_refused(tiny, tmp_path):
    plan = plans.read_plan(str(tiny))
    run = plan.runs()[0]
    make_run(Job("grpo", "", run.values, tmp_path / "place" / run.name, tmp_path / "study" / "runs" / run.name, False))
    runner.check_plan(plan, plan.runs(), tmp_path / "study")
    tiny.write_text(TINY.replace("warm_start_steps = 2", "warm_start_steps = 3"))
    changed = plans.read_plan(str(tiny))
    with pytest.raises(ParameterError, match="was made with warm_start_steps 2, the study says 3"):
        runner.check_plan(changed, changed.runs(), tmp_path / "study")


def test_a_run_made_before_a_setting_existed_has_its_default(tiny, tmp_path):
    """A trainer that learns something new must not make finished runs look different."""

    def check(text):
        tiny.write_text(text)
        plan = plans.read_plan(str(tiny))
        runner.check_plan(plan, plan.runs(), tmp_path / "study")

    run = plans.read_plan(str(tiny)).runs()[0]
    made = tmp_path / "study" / "runs" / run.name
    make_run(Job("grpo", "", run.values, tmp_path / "place" / run.name, made, False))
    about = json.loads((made / "run.json").read_text())
    assert about["config"].pop("old_logp") == "trainer"
    assert about["config"]["model"].pop("feed_forward") == 32
    (made / "run.json").write_text(json.dumps(about))
    with pytest.raises(ParameterError, match="was made with model"):
        check(TINY)
    check(TINY.replace(", feed_forward = 32", ", feed_forward = 256"))
    with pytest.raises(ParameterError, match="was made with old_logp 'trainer', the study says 'sampler'"):
        check(TINY.replace("feed_forward = 32 }", 'feed_forward = 256 }\nold_logp = "sampler"'))


def test_two_processes_do_not_make_one_study(tiny, tmp_path):
    plan = plans.read_plan(str(tiny))
    with alone(tmp_path / "study"), pytest.raises(OutputError, match="another process"):
        list(runner.run_study(plan, plan.runs(), tmp_path / "study", jobs=1, keep_rollouts=False))


def test_a_run_that_fails_is_reported_and_the_others_are_made(tiny, tmp_path, capsys, monkeypatch):
    trainer = tmp_path / "mine.py"
    source = (Path(runner.__file__).parents[2] / "trainers" / "grpo.py").read_text()
    trainer.write_text(
        source.replace("    setup = prepare(config)\n", "    setup = prepare(config)\n    assert config.lr, 'broken'\n")
    )
    tiny.write_text(f'trainer = "{trainer}"\n{TINY}')
    with pytest.raises(SystemExit) as stop:
        main(["study", str(tiny), "--out", str(tmp_path / "study"), "--jobs", "1", "--seeds", "1"])
    assert stop.value.code == 2
    told = capsys.readouterr()
    assert "1 of 2 runs" in told.out
    assert "five-base-seed0: AssertionError: broken" in told.out
    assert "1 of 2 runs failed" in told.err
    (log,) = (tmp_path / "study" / "unfinished").glob("*/*.log")
    assert "Traceback" in log.read_text()
