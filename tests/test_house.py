"""The house: what may import what, what loads lazily, where recipes are found."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import entropy_lab as el
from entropy_lab import recipes
from entropy_lab.cli import main
from entropy_lab.errors import OutputError, ParameterError, UnknownNameError

PACKAGE = Path(el.__file__).parent
HEAVY = ("torch", "transformers", "vllm", "matplotlib", "seaborn")

# A module may import modules of a lower floor, and of its own; what is not named stands on the floor of its folder.
FLOORS = {
    **dict.fromkeys(("errors",), 0),
    **dict.fromkeys(("schema", "files", "json_values", "prompt_names", "built_in", "configuration", "loading"), 1),
    **dict.fromkeys(("advantages", "tasks"), 1),
    **dict.fromkeys(("bootstrap", "covariance", "means", "solve_rates", "pass_at_k", "validation"), 2),
    **dict.fromkeys(("entropy_change", "scale_fit", "step_change", "entropy_definitions", "entropy_inference"), 2),
    **dict.fromkeys(("trends", "levels", "change_points"), 2),
    **dict.fromkeys(("entropy_pressure", "prompt_sums", "policy_distance", "group_bias"), 2),
    **dict.fromkeys(("step_files", "run", "writer", "amending", "table", "consistency"), 3),
    **dict.fromkeys(("batches", "fold", "study", "rl", "readers", "recording", "integrations"), 4),
    **dict.fromkeys(("entropy_sums", "entropy_columns", "token_columns", "rollout_parts", "channels"), 4),
    **dict.fromkeys(("recipes", "presets"), 5),
    **dict.fromkeys(("plots",), 6),
    **dict.fromkeys(("analysis", "figure", "summary", "claims", "diagnosis"), 7),
    **dict.fromkeys(("studies", "monitoring"), 8),
    **dict.fromkeys(("cli", "commands"), 9),
}


def imports(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(dotted):
    parts = dotted.split(".")
    return parts[1] if parts[0] == "entropy_lab" and len(parts) > 1 else None


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem != "__init__")


@pytest.mark.parametrize("file", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(file):
    own = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert own in FLOORS, f"give {own} a floor"
    for name in imports(file):
        if (other := room(name)) and other in FLOORS:
            assert FLOORS[other] <= FLOORS[own], f"{own} imports {other}"


@pytest.mark.parametrize("file", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_torch_stays_in_its_room(file):
    # Files of torch.save are read by torch, inside the function: see test_analysing_loads_no_torch.
    if file.relative_to(PACKAGE).parts[0] not in ("rl", "integrations") and file.name != "torch_file.py":
        assert not {name.split(".")[0] for name in imports(file)} & {"torch", "transformers", "vllm"}


@pytest.mark.parametrize("kind", recipes.KINDS)
def test_recipes_import_no_recipe_and_stay_short(kind):
    for name in recipes.names(kind):
        file = recipes.find(kind, name)
        assert not {n.split(".")[0] for n in imports(file)} & set(recipes.KINDS)
        assert len(file.read_text().splitlines()) <= (350 if kind == "trainers" else 175), file


def test_the_library_names_no_recipe():
    stems = {f'"{name}"' for name in recipes.names("figures")}
    for file in MODULES:
        code = file.read_text(encoding="utf-8")
        strings = {f'"{node.value}"' for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)}
        assert not strings & stems, file


@pytest.mark.parametrize("words", [["-c", "import entropy_lab"], ["-m", "entropy_lab.cli", "--help"]])
def test_start_loads_nothing_heavy(words):
    code = "import sys, runpy; sys.argv = sys.argv[1:]\n"
    if words[0] == "-c":
        code += words[1]
    else:
        code += f"""
try:
    runpy.run_module({words[1]!r}, run_name='__main__', alter_sys=True)
except SystemExit as stop:
    assert not stop.code
"""
    code += f"\nloaded = [name for name in {(*HEAVY, 'pandas', 'scipy', 'polars', 'numpy')!r} if name in sys.modules]"
    code += "\nsys.stderr.write(','.join(loaded))"
    done = subprocess.run([sys.executable, "-c", code, *words[1:]], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_analysing_loads_no_torch(tmp_path):
    writer = el.RunWriter(tmp_path / "run", method={"name": "grpo", "params": {}})
    writer.write_rollouts(
        0, {"prompt_id": ["a"], "group_id": [0], "sample": [0], "reward": [1.0], "correct": [True], "epoch": [0]}
    )
    code = f"""
import sys, entropy_lab as el
el.analyze({str(writer.path)!r}, 'solve_rates')
sys.stderr.write(','.join(name for name in {HEAVY!r} if name in sys.modules))"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr == ""


def test_public_names_resolve():
    for name in el.__all__:
        assert getattr(el, name) is not None
    assert set(el.__all__) <= set(dir(el))
    with pytest.raises(AttributeError):
        _ = el.nothing


MINE = """
NEEDS = ("reward",)
def analyze(run, *, scale: float = 1.0):
    import polars as pl
    from entropy_lab.table import Table
    return Table("mine", run.scan().select(pl.col("reward").sum() * scale).collect())
"""


@pytest.fixture
def run(tmp_path):
    writer = el.RunWriter(tmp_path / "run", method={"name": "grpo", "params": {}})
    key = {"prompt_id": ["a", "a"], "group_id": [0, 0], "sample": [0, 1]}
    writer.write_rollouts(0, {**key, "reward": [1.0, 0.5], "correct": [True, False], "epoch": np.zeros(2, int)})
    return writer.path


def test_an_analysis_of_ones_own_runs_by_path(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "analyses").mkdir()
    (tmp_path / "analyses" / "__init__.py").write_text("raise RuntimeError('a folder of the user is never imported')")
    (tmp_path / "mine.py").write_text(MINE)
    assert el.analyze(run, "./mine.py", scale=2.0).frame.item() == 3.0
    main(["analyze", "run", "./mine.py", "--param", "./mine.py.scale=4", "--json", "--no-figures"])
    assert json.loads(capsys.readouterr().out)["tables"] == {"./mine.py": "run/analysis/mine.parquet"}
    assert el.Table.read(run / "analysis/mine.parquet").frame.item() == 6.0


def test_copy_gives_a_working_file_and_overwrites_nothing(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["copy", "analyses/solve_rates", "."])
    assert "entropy-lab analyze RUN ./solve_rates.py" in capsys.readouterr().out
    copied, built_in = (el.analyze(run, name).frame for name in ("./solve_rates.py", "solve_rates"))
    assert copied.equals(built_in)
    with pytest.raises(OutputError, match="exists already"):
        recipes.copy("analyses/solve_rates", tmp_path)


def test_two_analyses_may_not_share_a_table(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["copy", "analyses/solve_rates", "."])
    with pytest.raises(SystemExit):
        main(["analyze", "run", "solve_rates", "./solve_rates.py"])
    assert "same table" in capsys.readouterr().err
    assert not (run / "analysis").exists()


@pytest.mark.parametrize("name", ["analysis/covariance", "covariance", "analyses/", "analyses/covarianc"])
def test_copy_of_nothing_is_refused(tmp_path, name):
    with pytest.raises(UnknownNameError):
        recipes.copy(name, tmp_path)


def test_a_file_that_is_no_recipe_is_refused(tmp_path):
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(ParameterError, match="has no function analyze"):
        recipes.load("analyses", str(tmp_path / "empty.py"))


def test_list_shows_everything(capsys):
    main(["list"])
    output = capsys.readouterr().out
    assert {"covariance", "figure1", "grpo", "asym_grpo", "countdown"} <= set(output.split())
