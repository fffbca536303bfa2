"""`entropy-lab doctor` where the frameworks are not installed; tests/full_verl_commands.py runs it where one is."""

import json
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

import entropy_lab as el
from entropy_lab.cli import main
from entropy_lab.errors import MissingExtraError, ParameterError
from entropy_lab.integrations import verl_checks
from entropy_lab.integrations.checks import in_turn
from entropy_lab.integrations.verl_releases import SUPPORTED

WITHOUT_VERL = pytest.mark.skipif(find_spec("verl") is not None, reason="verl is installed here")


def answers(*words):
    """What the command prints as JSON, and its exit code."""
    try:
        main(["doctor", "--json", *words])
    except SystemExit as stop:
        return stop.code
    return 0


@WITHOUT_VERL
def test_what_is_not_installed_is_wrong_only_when_it_is_named(capsys):
    assert answers() == 0
    assert json.loads(capsys.readouterr().out)["verl"] == []
    assert answers("verl") == 1
    [check] = json.loads(capsys.readouterr().out)["verl"]
    assert not check["passed"]
    assert "pip install 'entropy-lab[verl]'" in check["found"]


@WITHOUT_VERL
def test_people_read_the_same(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["doctor", "verl"])
    assert stop.value.code == 1
    assert capsys.readouterr().out.startswith("BAD verl release: verl: verl is not installed")


def test_an_unknown_framework_is_refused(capsys):
    assert answers("vrel") == 2
    assert "known: trl, verl" in capsys.readouterr().err


@pytest.mark.parametrize("release", ["0.8.0", "0.10.0", "1.0", "main"])
def test_other_releases_are_refused(release):
    with pytest.raises(MissingExtraError, match=r"0\.9, tested"):
        SUPPORTED.require(release)


def test_the_plugin_is_an_entry_point_of_this_package():
    project = tomllib.loads((Path(el.__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert find_spec(project["entry-points"][verl_checks.GROUP][verl_checks.NAME]) is not None
    oldest, above = SUPPORTED.oldest, (SUPPORTED.newest[0], SUPPORTED.newest[1] + 1)
    [verl] = [each for each in project["optional-dependencies"]["verl"] if each.startswith("verl")]
    assert verl.startswith(f"verl>={oldest[0]}.{oldest[1]}.")
    assert verl.endswith(f",<{above[0]}.{above[1]}")


@pytest.mark.parametrize(("policy", "seen"), [("auto", True), ("none", False), ("a, entropy_lab", True), ("a", False)])
def test_the_policy_is_read_as_verl_reads_it(monkeypatch, policy, seen):
    monkeypatch.setenv(verl_checks.POLICY, policy)
    if seen:
        assert policy in verl_checks._policy()
    else:
        with pytest.raises(ParameterError, match="a list with entropy_lab"):
            verl_checks._policy()


def test_nothing_is_looked_at_behind_what_is_wrong():
    def broken():
        raise OSError("no device\nat all")

    looked = []
    found = list(in_turn([("a", broken, "mend it"), ("b", lambda: looked.append("b") or "", "")]))
    assert [(check.passed, check.found, check.hint) for check in found] == [(False, "OSError: no device", "mend it")]
    assert not looked
