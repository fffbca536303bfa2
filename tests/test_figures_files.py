"""Figures as files: equal bytes for equal tables, no stray settings, and a picture for the emptiest of runs."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import polars as pl
import pytest

from entropy_lab import recipes
from entropy_lab.errors import OutputError, ParameterError
from entropy_lab.plots import style
from entropy_lab.plots.collect import collect
from tests.made_up_study import ALL, METHODS, SINGLE, drawn, made_up_run, texts

# Nothing, one point, NaN


@pytest.mark.parametrize("name", ALL)
def test_a_table_that_is_no_figures_is_refused(name):
    with pytest.raises(ParameterError, match="has no panels"):
        recipes.load("figures", name).draw(SINGLE[0].tables["entropy"])


@pytest.mark.parametrize("name", ALL)
def test_no_run_draws_a_page_that_says_why(name, tmp_path):
    module = recipes.load("figures", name)
    figure = module.draw(collect(name, module.PANELS, []))
    assert "Not drawn" in " ".join(text.get_text() for text in texts(figure))
    style.save(figure, tmp_path / name, formats=("png",))


@pytest.mark.parametrize("name", ALL)
def test_empty_tables_and_nan_draw(name, tmp_path):
    module = recipes.load("figures", name)
    run = made_up_run(METHODS[6], 0)
    hollow = {key: replace(table, frame=table.frame.clear()) for key, table in run.tables.items()}
    absent = {key: replace(t, frame=t.frame.with_columns(pl.col(pl.Float64) * np.nan)) for key, t in run.tables.items()}
    gaps = pl.when(pl.int_range(pl.len()) % 3 == 0).then(pl.col(pl.Float64))
    holed = {key: replace(t, frame=t.frame.with_columns(gaps)) for key, t in run.tables.items() if key != "covariance"}
    for tables in (hollow, absent, holed):
        table = collect(name, module.PANELS, [replace(run, tables=tables)])
        style.save(module.draw(table), tmp_path / name, formats=("png",))


@pytest.mark.parametrize("name", ALL)
def test_the_base_policy_alone_draws(name, tmp_path):
    module = recipes.load("figures", name)
    table = collect(name, module.PANELS, [made_up_run(("base policy", "base", {}, 0.0), 0)])
    style.save(module.draw(table), tmp_path / name, formats=("png",))


# Files


def digests(paths):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


REBUILD = """
import json, sys
from pathlib import Path
from entropy_lab import recipes
from entropy_lab.plots import style
from entropy_lab.table import Table
folder = Path(sys.argv[1])
for name in ("figure1", "figure5", "table1"):
    style.save(recipes.load("figures", name).draw(Table.read(folder / f"{name}.parquet")), folder / "again" / name)
print(json.dumps([m for m in ("matplotlib.pyplot", "pandas", "scipy", "seaborn", "tkinter") if m in sys.modules]))
"""


def test_equal_tables_give_equal_bytes_in_another_process_without_pyplot(tmp_path):
    first = {}
    for name in ("figure1", "figure5", "table1"):
        table, figure = drawn("study", name)
        table.write(tmp_path / f"{name}.parquet")
        first |= digests(style.save(figure, tmp_path / name))
    words = [sys.executable, "-c", REBUILD, str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert digests((tmp_path / "again").iterdir()) == first
    assert json.loads(done.stdout) == []


def test_files_are_png_of_200_dpi_and_pdf_with_truetype_fonts(tmp_path):
    png, pdf = style.save(drawn("study", "figure3")[1], tmp_path / "figure3.of.mine")
    assert (png.name, pdf.name) == ("figure3.of.mine.png", "figure3.of.mine.pdf")
    width = int.from_bytes(png.read_bytes()[16:20], "big")
    assert width == 6.75 * 200
    assert b"/Type0" in pdf.read_bytes()
    assert b"/Type3" not in pdf.read_bytes()
    assert b"CreationDate" not in pdf.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([png.name, pdf.name])


def test_only_the_formats_asked_for_are_written(tmp_path):
    style.save(drawn("single", "figure3")[1], tmp_path / "new" / "folder" / "f", formats=("png",))
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["f.png"]


def test_a_folder_that_cannot_be_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        style.save(drawn("single", "figure3")[1], tmp_path / "file" / "figure3")


def test_drawing_leaves_the_users_settings_and_ignores_them(tmp_path):
    table, figure = drawn("single", "figure4")
    plain = digests(style.save(figure, tmp_path / "f"))
    with mpl.rc_context({"font.size": 20, "axes.facecolor": "black", "lines.linewidth": 9, "pdf.fonttype": 3}):
        before = dict(mpl.rcParams)
        again = recipes.load("figures", "figure4").draw(table)
        assert digests(style.save(again, tmp_path / "f")) == plain
        assert dict(mpl.rcParams) == before
