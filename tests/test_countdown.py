"""The countdown task: its verifier against brute force, its demonstrations, and what is held out."""

import ast
import operator
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entropy_lab import tasks
from entropy_lab.errors import ParameterError, UnknownNameError
from entropy_lab.tasks.countdown import Countdown, fewest_steps, held_out
from entropy_lab.tasks.task import EOS, PAD, Problem, Vocabulary

TASK = Countdown()
SMALLER = Countdown(most_numbers=4)
both_sizes = pytest.mark.parametrize("task", [TASK, SMALLER], ids=lambda task: task.name)
APPLY = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}


def key(problem):
    digits, target = problem.id.split(">")
    return tuple(sorted(map(int, digits))), int(target)


def every_line(numbers, steps):
    """All lists of steps that the rules allow, written as text with the last result: an independent enumeration."""
    if steps == 0:
        yield "", None
        return
    for i, j in permutations(range(len(numbers)), 2):
        rest = [numbers[k] for k in range(len(numbers)) if k not in (i, j)]
        for sign in "+-*":
            expression = f"{numbers[i]}{sign}{numbers[j]}"
            result = eval(expression)
            if 1 <= result <= 99:
                for text, last in every_line([*rest, result], steps - 1):
                    yield f"{expression}={result}" + (f",{text}" if text else ""), result if last is None else last


def slow_verdict(numbers, target, text):
    """Judge a completion with Python's parser instead of the task's own pattern."""
    available, last = list(numbers), None
    for step in text.split(","):
        try:
            comparison = ast.parse(step.replace("=", "=="), mode="eval").body
            left, right = comparison.left.left.value, comparison.left.right.value
            result = comparison.comparators[0].value
            computed = APPLY[type(comparison.left.op)](left, right)
        except (SyntaxError, AttributeError, KeyError):
            return False
        if step != f"{left}{step[len(str(left))]}{right}={result}" or computed != result or not 1 <= result <= 99:
            return False
        for number in (left, right):
            if number not in available:
                return False
            available.remove(number)
        available.append(result)
        last = result
    return last == target


@pytest.mark.parametrize("numbers", [(7, 2), (3, 3), (8, 1, 2), (9, 9, 9), (5, 6, 5)])
def test_verifier_accepts_exactly_the_lines_that_reach_the_target(numbers):
    lines = [line for steps in range(1, len(numbers)) for line in every_line(list(numbers), steps)]
    for target in {last for _, last in lines}:
        problem = TASK.problem(numbers, target)
        accepted = {text for text, _ in lines if TASK.verify(problem, text)}
        assert accepted == {text for text, last in lines if last == target}


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_verifier_agrees_with_an_independent_one_on_damaged_solutions(data):
    drawn = TASK.demonstrations(np.random.default_rng(data.draw(st.integers(0, 10_000))), 1)[0]
    text = drawn.completion
    position = data.draw(st.integers(0, len(text)))
    characters = st.sampled_from(TASK.vocabulary.characters)
    damage = data.draw(st.sampled_from(["replace", "insert", "delete"]))
    after = text[position + (damage != "insert") :]
    damaged = text[:position] + (data.draw(characters) if damage != "delete" else "") + after
    numbers = [int(digit) for digit in drawn.problem.id.split(">")[0]]
    assert TASK.verify(drawn.problem, damaged) == slow_verdict(numbers, int(drawn.problem.answer), damaged)


@pytest.mark.parametrize(
    "completion",
    [
        "",  # nothing
        "8+1=9",  # a right step that stops short of the target
        "9*2=18",  # 9 is not there yet
        "2*9=18",  # nor on the right
        "8+1=9,9*8=72,8+1=9,2*9=18",  # takes 8 three times
        "8+1=9,2*9=18,",  # goes on without a step
        "8+1=9,2*9=19",  # wrong arithmetic
        "8+1=9,2*09=18",  # a number is written one way only
        "1-2=-1,8+8=16,2+16=18",  # below 1 on the way
        "8*8=64,64*2=128,128-2=126",  # above 99
        "8+1=9,2*9=18␀",  # padding was sampled
        "٨+1=9,2*9=18",  # another script's digit
    ],
)
def test_verifier_refuses(completion):
    problem = TASK.problem((8, 1, 2, 8), 18)
    assert TASK.verify(problem, "8+1=9,2*9=18") is True
    assert TASK.verify(problem, completion) is False


def test_a_truncated_solution_is_wrong():
    assert TASK.verify(TASK.problem((7, 2), 9), "7+2=9", truncated=True) is False


def test_verifier_refuses_a_foreign_prompt():
    with pytest.raises(ParameterError, match="812__>18:"):
        TASK.verify(Problem("x", "What is 2 + 2?", "4"), "2+2=4")
    with pytest.raises(ParameterError, match="812_>18:"):
        SMALLER.verify(TASK.problem((7, 2), 9), "7+2=9")


@both_sizes
def test_demonstrations_are_valid_varied_and_fit_the_response_limit(task):
    drawn = task.demonstrations(np.random.default_rng(0), 2000)
    assert all(task.verify(each.problem, each.completion) for each in drawn)
    assert {each.completion.count("=") for each in drawn} == {1, 2, 3}
    assert {len(each.problem.prompt) for each in drawn} == {len(task.problem((7, 2), 9).prompt)}
    assert max(len(each.completion) for each in drawn) + 1 <= 26
    assert all(target not in numbers for numbers, target in (key(each.problem) for each in drawn))


@both_sizes
def test_no_benchmark_problem_occurs_in_training_or_warm_start(task):
    rng = np.random.default_rng(1)
    seen = {key(problem) for problem in task.problems(rng, 3000)}
    seen |= {key(each.problem) for each in task.demonstrations(rng, 3000)}
    asked = {key(problem) for problems in task.benchmarks(200).values() for problem in problems}
    assert asked
    assert not asked & seen
    assert all(held_out(*each) for each in asked)
    assert not any(held_out(*each) for each in seen)


def test_about_one_problem_in_five_is_held_out():
    keys = {
        ((a, b, c), target) for a in range(1, 10) for b in range(a, 10) for c in range(b, 10) for target in range(1, 99)
    }
    share = np.mean([held_out(numbers, target) for numbers, target in keys])
    assert share == pytest.approx(0.2, abs=0.01)  # 16,170 keys: standard error .003


@both_sizes
def test_benchmarks_are_graded_distinct_and_the_same_at_every_call(task):
    benchmarks = task.benchmarks(40)
    assert len(benchmarks) == 5
    assert benchmarks == task.benchmarks(40)
    for name, problems in benchmarks.items():
        n_numbers, n_steps = map(int, name.removeprefix("countdown-").split("x"))
        assert len({key(problem) for problem in problems}) == len(problems) == 40
        for problem in problems:
            numbers, target = key(problem)
            assert len(numbers) == n_numbers
            reached = [{last for _, last in every_line(list(numbers), steps)} for steps in range(1, n_steps + 1)]
            assert [target in each for each in reached] == [False] * (n_steps - 1) + [True]


def test_a_larger_benchmark_begins_with_the_smaller_one():
    small, large = TASK.benchmarks(5), TASK.benchmarks(9)
    assert all(large[name][:5] == problems for name, problems in small.items())


def test_the_sizes_share_their_held_out_problems():
    ids = [{problem.id for problem in task.benchmarks(9)["countdown-4x2"]} for task in (TASK, SMALLER)]
    assert ids[0] == ids[1]
    with pytest.raises(ParameterError, match="most_numbers"):
        Countdown(most_numbers=6)


def test_training_problems_are_distinct_and_follow_the_generator():
    first, again, other = (TASK.problems(np.random.default_rng(seed), 500) for seed in (3, 3, 4))
    assert first == again != other
    assert len({problem.id for problem in first}) == 500


@pytest.mark.parametrize(
    ("numbers", "target", "steps"), [((8, 1), 8, 0), ((2, 3), 6, 1), ((1, 2, 9), 27, 2), ((1, 1), 9, None)]
)
def test_fewest_steps(numbers, target, steps):
    assert fewest_steps(numbers, target, 3) == steps


@given(st.text(alphabet=TASK.vocabulary.characters, max_size=30))
def test_decoding_undoes_encoding(text):
    ids = TASK.vocabulary.encode(text)
    assert TASK.vocabulary.decode([*ids, EOS, PAD, 5]) == text
    assert all(2 <= token < TASK.vocabulary.size for token in ids)


def test_vocabulary_refuses_other_characters_and_shows_padding():
    with pytest.raises(ParameterError, match="x"):
        Vocabulary("01").encode("0x")
    assert Vocabulary("01").decode([2, PAD, 3]) == "0␀1"


@pytest.mark.parametrize("n", [-1, 10_001])
def test_impossible_numbers_of_problems_are_refused(n):
    with pytest.raises(ParameterError, match=str(n)):
        TASK.problems(np.random.default_rng(0), n)
    with pytest.raises(ParameterError, match=str(n)):
        TASK.benchmarks(n)


def test_registry_knows_both_sizes_by_name():
    sizes = [name for name in tasks.TASKS if name.startswith("countdown")]
    assert [tasks.get(name).name for name in sizes] == sizes == ["countdown", "countdown-4"]
    with pytest.raises(UnknownNameError, match="countdown"):
        tasks.get("countup")
