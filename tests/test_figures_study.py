"""``entropy-lab figures STUDY`` on runs of which only the tables of their analyses are left, in two settings."""

import json
import subprocess
import sys
from dataclasses import replace

import polars as pl
import pytest

from entropy_lab import open_run
from entropy_lab.cli import main
from entropy_lab.errors import ParameterError
from entropy_lab.figure import collected, tables_of
from entropy_lab.table import Table
from tests.made_up_study import METHODS, MORE_METHODS, SETTINGS, made_up_run, write_study

SMALL = [
    replace(made_up_run(method, seed, n_steps=30), model=setting)
    for setting in SETTINGS
    for method in (METHODS[0], METHODS[6], METHODS[9], MORE_METHODS[0])
    for seed in range(3)
]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("study"), SMALL)


def test_figures_of_a_study_are_drawn_without_torch(study, tmp_path):
    code = "import sys; from entropy_lab.cli import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    words = [sys.executable, "-c", code, "figures", str(study), "figure3", "table1", "--out", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    for setting in SETTINGS:
        assert f"REINFORCE × 3; GRPO × 3; AsymGRPO × 3; base policy × 3 ({setting})" in done.stdout.replace("\n", " ")
    assert {file.name for file in (tmp_path / "figures").iterdir()} == {
        *("figure3.png", "figure3.pdf", "table1.png", "table1.pdf", "table1.md")
    }
    assert all(setting in (tmp_path / "figures/table1.md").read_text(encoding="utf-8") for setting in SETTINGS)
    table = Table.read(tmp_path / "tables/figure3.parquet")
    assert set(table.frame["model"]) == set(SETTINGS)


def test_a_setting_is_a_row_and_stands_before_the_model(study):
    run = open_run(study / "runs/run0000")
    assert run.info["model"].startswith("Qwen3")
    assert tables_of(run).model == SETTINGS[0]
    table = collected(study, "figure4")
    assert list(dict.fromkeys(panel["model"] for panel in table.metadata["panels"])) == list(SETTINGS)


def test_without_a_setting_the_model_is_the_row(study, tmp_path):
    info = json.loads((study / "runs/run0000/run.json").read_text()) | {"setting": None}
    (tmp_path / "run.json").write_text(json.dumps(info))
    assert tables_of(open_run(tmp_path), {}).model == info["model"]


def test_one_seed_twice_clashes_within_a_setting_only(tmp_path):
    same = [replace(SMALL[3], model=setting) for setting in SETTINGS]
    found = collected(write_study(tmp_path / "two", same), "figure4").frame
    assert found.filter(pl.col("panel") == "a")["n_seeds"].unique().to_list() == [1]
    with pytest.raises(ParameterError, match="give one of them another label or setting"):
        collected(write_study(tmp_path / "one", [same[0], same[0]]), "figure4")


def test_the_base_policys_step_is_not_taken_for_the_last_validation(study, tmp_path, capsys):
    main(["figures", str(study), "table1", "--out", str(tmp_path)])
    capsys.readouterr()
    assert "Last validation, step 30; " in (tmp_path / "figures/table1.md").read_text(encoding="utf-8")
    steps = Table.read(tmp_path / "tables/table1.parquet").metadata["steps"]
    assert {row["step"] for row in steps if row["series"] == "base policy"} == {0}
