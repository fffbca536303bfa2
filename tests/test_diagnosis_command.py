"""``entropy-lab diagnose``: what it prints, writes and exits with."""

import json

import numpy as np
import pytest

import entropy_lab as el
from entropy_lab.cli import main
from entropy_lab.diagnosis.registry import names


@pytest.fixture
def run(tmp_path):
    """Scalars of a run that collapses."""
    writer = el.RunWriter(tmp_path / "run", method={"name": "grpo", "params": {}})
    for step in range(50):
        entropy = (1 + 0.02 * (step % 3)) * np.exp(-max(step - 15, 0) / 20)
        writer.write_metrics({"step": step, "entropy": entropy, "reward": 0.4 + 0.01 * (step % 2)})
    return writer.path


def call(capsys, *words):
    try:
        main(["diagnose", *map(str, words)])
        code = 0
    except SystemExit as stop:
        code = stop.code
    said = capsys.readouterr()
    return code, said.out, said.err


def test_it_tells_the_worst_first_and_writes_nothing(run, capsys):
    before = sorted(run.rglob("*"))
    code, out, _ = call(capsys, run)
    assert code == 0
    for part in ("entropy collapse", "since step", "evidence", "why", "--clip-high", "checked and fine", "not checked"):
        assert part in out
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["collapse"], 1),
        (["explosion,collapse"], 1),
        (["explosion", "collapse"], 1),
        (["any"], 1),
        (["explosion"], 0),
    ],
)
def test_fail_on_sets_the_exit_code(run, capsys, words, code):
    done, out, err = call(capsys, run, "--json", "--fail-on", *words)
    assert done == code
    assert json.loads(out)["failed_on"] == (["collapse"] if code else [])
    assert ("failed on collapse" in err) == bool(code)


def test_a_note_does_not_fail(run, capsys):
    code, out, _ = call(capsys, run, "--baseline", run, "--fail-on", "any", "--json")
    told = json.loads(out)
    assert (code, told["findings"][0]["severity"], told["baseline"]) == (0, "note", "run")


def test_an_unknown_finding_is_refused_with_the_known_ones(run, capsys):
    code, _, err = call(capsys, run, "--fail-on", "colapse")
    assert code == 2
    assert "there is no finding 'colapse'" in err
    assert "did you mean collapse?" in err
    assert all(name in err for name in names())


def test_json_is_one_object_with_everything(run, capsys):
    _, out, _ = call(capsys, run, "--json")
    told = json.loads(out)
    finding = told["findings"][0]
    assert {"name", "severity", "what", "since", "evidence", "mechanism", "reference", "change", "data"} <= set(finding)
    assert finding["since"]["low"] <= 15 <= finding["since"]["high"]
    assert {skip["name"] for skip in told["skipped"]} | set(told["fine"]) | {"collapse"} == set(names())


def test_markdown_has_a_section_for_each_finding(run, capsys):
    code, out, _ = call(capsys, run, "--markdown")
    assert code == 0
    assert out.startswith("# Diagnosis of run\n")
    assert "## warning: entropy collapse, since step" in out
    assert "## Not checked" in out
    assert call(capsys, run, "--markdown", "--json")[0] == 2


def test_out_keeps_the_diagnosis(run, tmp_path, capsys):
    _, out, _ = call(capsys, run, "--json", "--out", tmp_path / "kept")
    assert (tmp_path / "kept" / "diagnosis.json").read_text() == out


def test_another_frameworks_log_is_read_where_it_lies(tmp_path, capsys):
    folder = tmp_path / "foreign"
    folder.mkdir()
    rows = [
        {"step": step, "entropy": 0.5 * np.exp(-max(step - 20, 0) / 25), "reward": 0.5, "frac_reward_zero_std": 0.4}
        for step in range(1, 61)
    ]
    (folder / "step_logs.json").write_text(json.dumps(rows))
    code, out, err = call(capsys, folder, "--json")
    told = json.loads(out)
    assert (code, told["framework"]) == (0, "trl")
    assert told["findings"][0]["name"] == "collapse"
    assert "epsilon_high" in told["findings"][0]["change"][0]
    assert "taken for TRL" in err
    assert [file.name for file in folder.iterdir()] == ["step_logs.json"]


def test_a_run_that_is_none_is_one_line(tmp_path, capsys):
    code, out, err = call(capsys, tmp_path / "nowhere")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1


def test_a_baseline_of_ours_stands_beside_another_frameworks_run(run, tmp_path, capsys):
    log = tmp_path / "log.csv"
    rows = [f"{step},{0.5 * np.exp(-max(step - 20, 0) / 25)},0.5" for step in range(60)]
    log.write_text("step,entropy,reward\n" + "\n".join(rows))
    code, out, _ = call(capsys, log, "--format", "table", "--baseline", run, "--json")
    assert code == 0
    assert json.loads(out)["findings"][0]["baseline"].startswith("the baseline shows it, too: entropy")
