"""What every task has, what tasks for models made in code have beside it, and tasks of a user's own."""

import re
from pathlib import Path

import numpy as np
import pytest

from entropy_lab import tasks
from entropy_lab.cli import main
from entropy_lab.errors import ParameterError, UnknownNameError

OWN = '''
"""A task of a user's own."""

from entropy_lab.tasks import Problem, Vocabulary  # classes of others do not count


class {name}:
    """Add two digits."""

    name = "sums"

    def __init__(self, largest: int = 9) -> None:
        self.largest = largest

    def problems(self, rng, n):
        return [self._problem(a, b) for a, b in rng.integers(0, self.largest + 1, (n, 2))]

    def verify(self, problem, completion, *, truncated=False):
        return None if truncated else completion == problem.answer

    def benchmarks(self, size):
        return {{"sums": [self._problem(1, b) for b in range(size)]}}

    def _problem(self, a, b):
        return Problem(f"{{a}}+{{b}}", f"{{a}}+{{b}}=", str(a + b))
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(OWN.format(name="Sums"))
    return tmp_path / "mine.py"


def test_a_task_of_ones_own_works_by_its_path(own):
    task = tasks.get("./mine.py", largest=3)
    assert isinstance(task, tasks.Task)
    assert (task.name, task.largest) == ("sums", 3)
    [problem] = task.problems(np.random.default_rng(0), 1)
    answers = [problem.answer, "x", "x"]
    assert tasks.verify_all(task, [problem] * 3, answers, [False, False, True]) == [True, False, None]


def test_a_function_task_makes_the_task_where_there_are_two(own):
    own.write_text(OWN.format(name="Sums") + "\n\nclass Others(Sums):\n    name = 'others'\n")
    with pytest.raises(ParameterError, match=r"has 2 tasks: Sums, Others; a function task\(\), or one class with"):
        tasks.get("mine.py")
    other = own.with_name("chosen.py")
    other.write_text(own.read_text() + "\n\ndef task(largest=1):\n    return Others(largest)\n")
    assert (tasks.get("chosen.py").name, tasks.get("chosen.py", largest=4).largest) == ("others", 4)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("x = 1", "has no task"),
        ("class Half:\n    def problems(self, rng, n): return []", "has no task"),
        ("def task(): return 3", "makes a int, which has no name, problems, verify, benchmarks"),
    ],
)
def test_a_file_without_a_task_is_refused(tmp_path, source, error):
    file = tmp_path / "mine.py"
    file.write_text(source)
    with pytest.raises(ParameterError, match=error):
        tasks.get(str(file))


def test_unknown_names_and_parameters_are_refused(own):
    with pytest.raises(UnknownNameError, match=r"no 'maths'; there are: countdown, countdown-4, math\. Hint"):
        tasks.get("maths")
    with pytest.raises(UnknownNameError, match="does not exist"):
        tasks.get("./theirs.py")
    with pytest.raises(ParameterError, match="unexpected keyword argument 'size'; its parameters: most_numbers"):
        tasks.get("countdown", size=3)
    with pytest.raises(ParameterError, match="missing a required argument: 'train'"):
        tasks.get("math")
    with pytest.raises(ParameterError, match="its parameters: largest"):
        tasks.get("mine.py", smallest=1)


def test_only_a_task_with_a_vocabulary_teaches_a_model_made_in_code(own):
    countdown = tasks.get("countdown")
    assert tasks.demonstrated(countdown) is countdown
    assert not isinstance(tasks.get("mine.py"), tasks.DemonstratedTask)
    with pytest.raises(ParameterError, match="'sums', which has no vocabulary"):
        tasks.demonstrated(tasks.get("mine.py"))


def test_a_batch_must_be_whole(own):
    task = tasks.get("mine.py")
    problems = task.problems(np.random.default_rng(0), 2)
    with pytest.raises(ParameterError, match="2 problems, 1 completions, 2 flags"):
        tasks.verify_all(task, problems, ["1"], [False, False])
    assert tasks.verify_all(task, [], [], []) == []


def test_a_task_that_verifies_in_batches_is_asked_once(own):
    own.write_text(
        OWN.format(name="Sums")
        + "\n    asked = 0\n    def verify_all(self, problems, completions, truncated):\n"
        + "        self.asked += 1\n        return [True] * len(problems)\n"
    )
    task = tasks.get("mine.py")
    problems = task.problems(np.random.default_rng(0), 5)
    assert tasks.verify_all(task, problems, ["x"] * 5, [False] * 5) == [True] * 5
    assert task.asked == 1


def test_list_names_every_task(capsys):
    main(["list"])
    listed = capsys.readouterr().out
    assert all(f"\n{name} " in listed for name in tasks.TASKS)
    assert "Mathematics problems" in listed


def test_the_task_of_the_tasks_page_works(tmp_path):
    page = (Path(__file__).parent.parent / "docs" / "tasks.md").read_text(encoding="utf-8")
    block = next(b for b in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "class Sums" in b)
    (tmp_path / "sums.py").write_text(block, encoding="utf-8")
    task = tasks.get(str(tmp_path / "sums.py"), largest=9)
    drawn = task.problems(np.random.default_rng(0), 81)
    held_out = task.benchmarks(200)["large"]
    assert len({problem.id for problem in drawn + held_out}) == 81 + 9
    assert tasks.verify_all(task, drawn[:2], [drawn[0].answer, "x"], [False, False]) == [True, False]
