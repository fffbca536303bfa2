"""Countdown: reach a target from a few digits with ``+ - *``, one checked step after another.

The prompt holds 2 to 5 digits, padded with ``_`` to five, and a two-digit target: ``8128_>18:``. The completion is a
comma-separated list of steps, each of which takes two available numbers and puts back their sum, difference or
product, a number in 1..99; the last result is the target, and not every number has to be used: ``8+1=9,2*9=18``. Most
problems have several solutions, which gives the policy something to be uncertain about.

There are two sizes of it: with at most five numbers, and with at most four (``8128>18:``).
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from functools import cache
from itertools import combinations
from typing import Final

import numpy as np

from entropy_lab.errors import ParameterError
from entropy_lab.tasks.task import Demonstration, Problem, Vocabulary

_STEP: Final = re.compile(r"([1-9][0-9]?)([-+*])([1-9][0-9]?)=([1-9][0-9]?)")
_LARGEST: Final = 99
_CHAINED: Final = 0.9
"""Share of the steps that go on from the last result."""
_HELD_OUT_ONE_IN: Final = 5
_BENCHMARK_SEED: Final = 20260406
_BENCHMARKS: Final = {
    4: ((3, 1), (4, 1), (3, 2), (4, 2), (4, 3)),
    5: ((3, 1), (5, 1), (3, 2), (4, 2), (5, 2)),
}
"""Most numbers of a problem -> numbers given and steps needed, from easy to hard.

With two numbers there are 112 problems in all, too few.
"""


def held_out(numbers: tuple[int, ...], target: int) -> bool:
    """Whether a problem belongs to the benchmarks, whatever the order of its numbers.

    A stable hash (CRC-32) of the sorted numbers and the target sends one problem in five to the benchmarks.

    Parameters
    ----------
    numbers
        The given numbers, in any order.
    target
        The number to reach.

    Returns
    -------
    bool
        True for problems that training never sees.

    Examples
    --------
    >>> held_out((8, 1, 2, 8), 18) == held_out((1, 2, 8, 8), 18)
    True
    """
    return zlib.crc32(f"{sorted(numbers)}>{target}".encode()) % _HELD_OUT_ONE_IN == 0


def _apply(left: int, sign: str, right: int) -> int:
    if sign == "+":
        return left + right
    return left - right if sign == "-" else left * right


def fewest_steps(numbers: tuple[int, ...], target: int, limit: int) -> int | None:
    """Length of the shortest solution, in steps.

    Parameters
    ----------
    numbers
        The given numbers.
    target
        The number to reach.
    limit
        Longest solution looked for.

    Returns
    -------
    int or None
        From 0 (the target is given) to `limit`; None when there is no solution of at most `limit` steps.

    Examples
    --------
    >>> fewest_steps((8, 1, 2, 8), 18, 3), fewest_steps((1, 1), 9, 1)
    (2, None)
    """
    frontier = {tuple(sorted(numbers))}
    for steps in range(limit + 1):
        if any(target in available for available in frontier):
            return steps
        if steps < limit:
            frontier = {after for available in frontier for after in _after_one_step(available)}
    return None


def _after_one_step(available: tuple[int, ...]) -> set[tuple[int, ...]]:
    states = set()
    for i, j in combinations(range(len(available)), 2):
        low, high = available[i], available[j]
        rest = available[:i] + available[i + 1 : j] + available[j + 1 :]
        for result in (low + high, high - low, low * high):
            if 1 <= result <= _LARGEST:
                states.add(tuple(sorted((*rest, result))))
    return states


class Countdown:
    """Reach a target from a few digits with ``+ - *``, one checked step after another.

    The module's text has the rules.

    Parameters
    ----------
    most_numbers
        Most numbers of a problem, 4 or 5.

    Raises
    ------
    ParameterError
        When `most_numbers` is another number.

    Examples
    --------
    >>> task = Countdown()
    >>> problem = task.problem((8, 1, 2, 8), 18)
    >>> problem.prompt
    '8128_>18:'
    >>> task.verify(problem, "8+1=9,2*9=18"), task.verify(problem, "8+1=9,2*9=18", truncated=True)
    (True, False)
    """

    vocabulary: Final = Vocabulary("0123456789_>:,=+-*")

    def __init__(self, most_numbers: int = 5) -> None:
        if most_numbers not in _BENCHMARKS:
            raise ParameterError("most_numbers", f"is {most_numbers}", "4 or 5")
        self._width = most_numbers
        self._prompt = re.compile(rf"(?=[1-9_]{{{most_numbers}}}>)([1-9]{{2,}})_*>([0-9]{{2}}):")

    @property
    def name(self) -> str:
        """``countdown``, or ``countdown-4`` with at most four numbers."""
        return "countdown" if self._width == max(_BENCHMARKS) else f"countdown-{self._width}"

    def problem(self, numbers: tuple[int, ...], target: int) -> Problem:
        """Word a problem.

        Parameters
        ----------
        numbers
            Two to `most_numbers` digits 1..9, in the order shown.
        target
            Number in 1..99.

        Returns
        -------
        Problem
            With the prompt, less its padding, as its id.

        Examples
        --------
        >>> Countdown().problem((7, 2), 5)
        Problem(id='72>05', prompt='72___>05:', answer='5')
        """
        digits = "".join(map(str, numbers))
        return Problem(f"{digits}>{target:02d}", f"{digits:_<{self._width}}>{target:02d}:", str(target))

    def problems(self, rng: np.random.Generator, n: int) -> list[Problem]:
        """Draw different training problems: 2 numbers or more, and the last of 1 to 3 random steps as the target.

        Parameters
        ----------
        rng
            Source of randomness.
        n
            How many, up to 10,000.

        Returns
        -------
        list of Problem
            No two with the same prompt and none held out. There are few problems of two numbers, so a large `n` has
            a smaller share of them than a quarter.

        Raises
        ------
        ParameterError
            When `n` is negative or above 10,000.

        Examples
        --------
        >>> drawn = Countdown().problems(np.random.default_rng(0), 100)
        >>> len({problem.prompt for problem in drawn})
        100
        """
        if not 0 <= n <= 10_000:
            raise ParameterError("n", f"is {n}", "0 to 10,000 different training problems")
        found: dict[str, Problem] = {}
        while len(found) < n:
            problem = self._training(rng).problem
            found.setdefault(problem.id, problem)
        return list(found.values())

    def demonstrations(self, rng: np.random.Generator, n: int) -> list[Demonstration]:
        """Draw training problems with the steps that made them.

        Parameters
        ----------
        rng
            Source of randomness.
        n
            How many; problems may repeat.

        Returns
        -------
        list of Demonstration
            Every completion is valid; none of the problems is held out.

        Examples
        --------
        >>> task = Countdown()
        >>> drawn = task.demonstrations(np.random.default_rng(0), 5)
        >>> all(task.verify(each.problem, each.completion) for each in drawn)
        True
        """
        return [self._training(rng) for _ in range(n)]

    def verify(self, problem: Problem, completion: str, *, truncated: bool = False) -> bool | None:
        """Check every step of a completion.

        Parameters
        ----------
        problem
            The problem, whose prompt says what is available.
        completion
            The response without end-of-sequence.
        truncated
            True when end-of-sequence was not reached: wrong, whatever stands there.

        Returns
        -------
        bool
            True when each step takes two available numbers, its result is right and in 1..99, and the last result is
            the target. This task can always tell, so never None.

        Raises
        ------
        ParameterError
            When the prompt is not one of this task.

        Examples
        --------
        >>> task = Countdown()
        >>> task.verify(task.problem((7, 2), 5), "7-2=5"), task.verify(task.problem((7, 2), 9), "7+2=8")
        (True, False)
        """
        prompt = self._prompt.fullmatch(problem.prompt)
        if prompt is None:
            example = self.problem((8, 1, 2), 18).prompt
            raise ParameterError("problem", f"has the prompt {problem.prompt!r}", f"e.g. {example!r}")
        if truncated:
            return False
        available, result = Counter(map(int, prompt[1])), 0
        for text in completion.split(","):
            step = _STEP.fullmatch(text)
            if step is None:
                return False
            left, right, result = int(step[1]), int(step[3]), int(step[4])
            available.subtract((left, right))
            if min(available[left], available[right]) < 0 or _apply(left, step[2], right) != result:
                return False
            available[result] += 1
        return result == int(prompt[2])

    def benchmarks(self, size: int) -> dict[str, list[Problem]]:
        """Five graded held-out problem sets, ``countdown-NxS``: N numbers, shortest solution of S steps.

        Parameters
        ----------
        size
            Most problems of a set.

        Returns
        -------
        dict of str to list of Problem
            The same at every call; a larger `size` adds problems after those of a smaller one. A set has the same
            problems in both sizes of the task, worded with their padding. No two problems of a set have the same
            numbers and target. The two sets of three numbers end at about 200 problems: no more are held out.

        Raises
        ------
        ParameterError
            When `size` is not in 1..2000.

        Examples
        --------
        >>> list(Countdown().benchmarks(10))
        ['countdown-3x1', 'countdown-5x1', 'countdown-3x2', 'countdown-4x2', 'countdown-5x2']
        """
        if not 1 <= size <= 2000:
            raise ParameterError("size", f"is {size}", "1 to 2000 problems")
        return {
            f"countdown-{n}x{steps}": [self.problem(*each) for each in _benchmark(n, steps, size)]
            for n, steps in _BENCHMARKS[self._width]
        }

    def _training(self, rng: np.random.Generator) -> Demonstration:
        while True:
            n_numbers = int(rng.integers(2, self._width + 1))
            n_steps = min(int(rng.integers(1, 4)), n_numbers - 1)
            numbers, target, completion = _hindsight(rng, n_numbers, n_steps)
            if not held_out(numbers, target):
                return Demonstration(self.problem(numbers, target), completion)


@cache
def _benchmark(n_numbers: int, n_steps: int, size: int) -> list[tuple[tuple[int, ...], int]]:
    """Numbers and targets of a held-out set; it takes a second to find them, and every run asks for the same."""
    rng = np.random.default_rng([_BENCHMARK_SEED, n_numbers, n_steps])
    found: dict[tuple[tuple[int, ...], int], tuple[tuple[int, ...], int]] = {}
    # The cap ends the search among three numbers, where fewer problems may be held out than are asked for.
    for _ in range(3000 + 200 * size):
        numbers, target, _ = _hindsight(rng, n_numbers, n_steps)
        key = tuple(sorted(numbers)), target
        if key not in found and held_out(numbers, target) and fewest_steps(numbers, target, n_steps) == n_steps:
            found[key] = numbers, target
            if len(found) == size:
                break
    return list(found.values())


def _hindsight(rng: np.random.Generator, n_numbers: int, n_steps: int) -> tuple[tuple[int, ...], int, str]:
    """Draw numbers, then random steps; the last result, if it is not a given number, is the target."""
    while True:
        numbers = tuple(int(number) for number in rng.integers(1, 10, n_numbers))
        available, steps = list(numbers), []
        for index in range(n_steps):
            step = _random_step(rng, available, chained=index > 0 and rng.random() < _CHAINED)
            if step is None:
                break
            steps.append(step)
        if len(steps) == n_steps and available[-1] not in numbers:
            return numbers, available[-1], ",".join(steps)


def _random_step(rng: np.random.Generator, available: list[int], *, chained: bool) -> str | None:
    """Replace two of the available numbers by their result, put last; None when the draw leaves 1..99."""
    left = available.pop(-1 if chained else int(rng.integers(len(available))))
    right = available.pop(int(rng.integers(len(available))))
    if rng.random() < 0.5:
        left, right = right, left
    sign = "+-*"[int(rng.integers(3))]
    if sign == "-" and left < right:
        left, right = right, left
    result = _apply(left, sign, right)
    if not 1 <= result <= _LARGEST:
        return None
    available.append(result)
    return f"{left}{sign}{right}={result}"
