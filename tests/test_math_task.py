"""The task math: what it trains on, what it holds out, and the command that checks its files."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from entropy_lab import tasks
from entropy_lab.cli import main
from entropy_lab.errors import MissingExtraError, ParameterError, ProblemFileError
from entropy_lab.tasks import math_sets, verifier
from entropy_lab.tasks.problem_files import read_problems

SETS = Path(__file__).parent.parent.parent / "shared" / "data" / "math"


def write(path, problems, **more):
    rows = [{"id": f"{path.stem}/{k}", "problem": text, "answer": answer} for k, (text, answer) in enumerate(problems)]
    path.write_text("".join(json.dumps(row | more) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "train.jsonl", [(f"What is ${k} + 1$?", str(k + 1)) for k in range(30)])
    write(tmp_path / "b.jsonl", [(f"What is ${k} \\cdot 2$?", str(2 * k)) for k in range(10)])
    write(tmp_path / "a.jsonl", [(f"What is ${k} - 7$?", str(k - 7)) for k in range(5)])
    (tmp_path / "notes.txt").write_text("not a problem file")
    return tmp_path


@pytest.fixture
def make(folder):
    pytest.importorskip("math_verify", reason="the extra math is not installed")
    made = []

    def math(*args, **kwargs):
        made.append(tasks.get("math", **dict(zip(("train", "held_out"), args, strict=False)), workers=1, **kwargs))
        return made[-1]

    yield math
    for task in made:
        task.close()


def test_training_problems_are_drawn_once_and_by_the_seed(make):
    task = make("train.jsonl")
    assert (task.name, isinstance(task, tasks.BatchVerifier)) == ("math", True)
    drawn = task.problems(np.random.default_rng(3), 20)
    assert len({problem.id for problem in drawn}) == 20
    assert drawn == task.problems(np.random.default_rng(3), 20)
    assert sorted(task.problems(np.random.default_rng(4), 30), key=repr) == sorted(
        task.problems(np.random.default_rng(5), 30), key=repr
    )
    with pytest.raises(ParameterError, match="n: is 31; 0 to 30 different training problems"):
        task.problems(np.random.default_rng(0), 31)


@pytest.mark.parametrize(
    ("held_out", "names"),
    [
        ((), []),
        ("", []),
        ("b.jsonl,a.jsonl", ["b", "a"]),
        (".", ["a", "b"]),
        (Path("a.jsonl"), ["a"]),
        (["b.jsonl", Path("a.jsonl")], ["b", "a"]),
    ],
)
def test_held_out_sets_keep_their_order(make, held_out, names):
    task = make("train.jsonl", held_out)
    sets = task.benchmarks(100)
    assert list(sets) == names
    assert [len(sets[name]) for name in names] == [{"a": 5, "b": 10}[name] for name in names]


def test_a_smaller_benchmark_is_part_of_a_larger_one_in_the_files_order(make):
    task = make("train.jsonl", "b.jsonl")
    whole = task.benchmarks(10)["b"]
    assert [problem.id for problem in whole] == [f"b/{k}" for k in range(10)]
    smaller = {size: [whole.index(problem) for problem in task.benchmarks(size)["b"]] for size in range(1, 11)}
    for size in range(1, 10):
        assert smaller[size] == sorted(smaller[size])
        assert set(smaller[size]) < set(smaller[size + 1])
    assert smaller[5] != list(range(5))  # a file may be sorted by subject: its first problems stand for nothing
    with pytest.raises(ParameterError, match="size: is 0"):
        task.benchmarks(0)


def test_verdicts(make):
    task = make("train.jsonl")
    one, two = sorted(task.problems(np.random.default_rng(0), 30), key=lambda problem: int(problem.answer))[:2]
    completions = [r"\boxed{1}", r"\boxed{\frac{4}{2}}", r"\boxed{3}", "2", r"\boxed{9^{9^9}" + "9" * 2000 + "}"]
    verdicts = tasks.verify_all(task, [one, two, two, two, two], completions, [False, True, False, False, True])
    assert verdicts == [True, True, False, False, None]  # an answer counts though the response was cut off after it
    assert task.unverified == {"too long": 1}
    assert task.verify(one, r"\boxed{1.0}") is True


def test_problems_that_are_held_out_are_not_trained_on(make, folder):
    write(folder / "c.jsonl", [("what is 3+1?", "4"), ("What is $9!$?", "362880")])
    with pytest.warns(UserWarning, match="left out 1 problems that are also in c: train/3"):
        task = make("train.jsonl", "c.jsonl")
    assert len(task.problems(np.random.default_rng(0), 29)) == 29
    assert "train/3" not in {problem.id for problem in task.problems(np.random.default_rng(0), 29)}
    with (
        pytest.warns(UserWarning, match="also in train"),
        pytest.raises(ParameterError, match="no problem that is not held out"),
    ):
        make("train.jsonl", "train.jsonl")


def test_gaps_of_a_file_are_told(make, folder):
    write(folder / "gaps.jsonl", [("a?", "1"), ("b?", ""), ("A?", "1")])
    with pytest.warns(UserWarning, match="1 rows without a problem or a gold answer and 1 rows that repeat a problem"):
        make("gaps.jsonl")


def test_bad_files_are_refused(make, folder):
    with pytest.raises(ProblemFileError, match=r"nothing\.jsonl: does not exist"):
        make("nothing.jsonl")
    (folder / "more").mkdir()
    write(folder / "more" / "a.jsonl", [("x?", "1")])
    with pytest.raises(ParameterError, match="two files a"):
        make("train.jsonl", "a.jsonl,more/a.jsonl")


def test_data_checks_files(make, folder, capsys):
    write(folder / "odd.jsonl", [("a?", "1"), ("a?", "2"), ("b?", ""), ("c?", "$t(0,4]$"), ("What is $0+1$?", "1")])
    main(["data", "odd.jsonl", "train.jsonl", "--workers", "1"])
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "odd.jsonl: 5 rows, 3 problems (columns problem, answer; id: id)",
        "  without a problem or a gold answer: 1 (lines 3)",
        "  repeated: 1 (lines 2 = 1)",
        "  repeated with another gold answer: 1 (lines 2)",
        "  gold answers that math-verify cannot parse, right only when repeated word for word: 1 (odd/3: $t(0,4]$)",
        "train.jsonl: 30 rows, 30 problems (columns problem, answer; id: id)",
        "  all 30 gold answers can be verified",
        "shared by odd.jsonl and train.jsonl: 1 (odd/4 = train/0)",
    ]
    with pytest.raises(SystemExit) as stop:
        main(["data", "nothing.jsonl"])
    assert stop.value.code == 2


def test_data_says_when_gold_answers_cannot_be_checked(folder, capsys, monkeypatch):
    monkeypatch.setattr(verifier, "NEEDS", {"no-such-package": "1"})
    main(["data", "a.jsonl"])
    said = capsys.readouterr().out
    assert "gold answers are not checked: math: no-such-package is not installed" in said
    assert "a.jsonl: 5 rows, 5 problems" in said
    with pytest.raises(MissingExtraError, match="pip install"):
        tasks.get("math", train="a.jsonl")


def test_data_prints_a_script_that_runs(folder, capsys):
    main(["data"])
    script = capsys.readouterr().out
    (folder / "fetch.py").write_text(script, encoding="utf-8")
    assert [name for name in math_sets.SETS if name not in script.partition('"""\n\nimport')[0]] == []
    code = "import fetch, json; print(json.dumps(sorted(fetch.SETS)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder)
    assert json.loads(done.stdout) == sorted(math_sets.SETS)


def test_rows_of_the_hub_become_a_problem_file(folder):
    """Rows in the shape that the hub's datasets have."""
    hub = {
        "math_train": {"problem": "a?", "level": "Level 5", "type": "Algebra", "solution": r"It is $\boxed{1}$."},
        "math500": {"problem": "a?", "solution": "…", "answer": "1", "subject": "x", "unique_id": "test/1.json"},
        "aime24": {"id": 60, "problem": "a?", "solution": "…", "answer": "1", "url": "", "year": "2024"},
        "aime25": {"problem": "a?", "answer": "1", "id": "0"},
        "amc23": {"id": 0, "answer": "1", "question": "a?", "url": ""},
        "olympiadbench": {"id": 1606, "question": "a?", "solution": ["…"], "final_answer": ["1"], "unit": None},
    }
    assert list(hub) == list(math_sets.SETS)
    for name, row in hub.items():
        rows = list(math_sets.problem_rows([row], math_sets.SETS[name][3]))
        file = folder / f"{name}.jsonl"
        file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        [problem] = read_problems(file).problems
        assert (problem.prompt, problem.answer) == ("a?", "1")
    several = math_sets.problem_rows([{"id": 1, "question": "a?", "final_answer": ["1", "$2$"]}], {"x": "final_answer"})
    assert list(several) == [{"x": "1, $2$"}]


@pytest.mark.skipif(not SETS.is_dir(), reason=f"no {SETS}")
def test_the_six_sets_make_a_task(make):
    with pytest.warns(UserWarning, match="left out") as warned:
        task = make(SETS / "math_train.jsonl", SETS)
    gaps, both = (str(each.message) for each in warned)
    assert "left out 2 rows without a problem or a gold answer and 3 rows that repeat a problem" in gaps
    assert "left out 1 problems that are also in olympiadbench675: math_train/4487" in both
    sizes = {name: len(problems) for name, problems in task.benchmarks(1000).items()}
    assert sizes == {"aime24": 30, "aime25": 30, "amc23": 40, "math500": 500, "olympiadbench675": 675}
    assert len(task.problems(np.random.default_rng(0), 7494)) == 7494
