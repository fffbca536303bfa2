"""Mathematics problems from files, verified by math-verify."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from entropy_lab.errors import ParameterError
from entropy_lab.tasks.problem_files import SUFFIXES, ProblemFile, read_problems, shared
from entropy_lab.tasks.task import Problem
from entropy_lab.tasks.verifier import Verifier

Paths = str | Path | Sequence[str | Path]


class Math:
    r"""Mathematics problems from JSON lines or Parquet files; the answer stands in the response's last ``\boxed{}``.

    Training problems that also occur in a held-out set are left out of training, with a warning.

    Parameters
    ----------
    train
        File of the training problems; see `read_problems`.
    held_out
        Files of the benchmarks, easiest first, each named by its file; a text may list several, with commas. A folder
        stands for the problem files in it, by name, without the training file.
    workers
        Most child processes that verify.
    seconds
        Time limit of one comparison.

    Raises
    ------
    MissingExtraError
        The extra ``math`` is not installed.
    ProblemFileError
        A file cannot be read.
    ParameterError
        Two held-out files have the same name, or nothing is left to train on.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "mine.jsonl"
    >>> _ = file.write_text('{"problem": "What is 1/2 + 1/2?", "answer": "1"}')
    >>> task = Math(file, workers=1)
    >>> [problem] = task.problems(np.random.default_rng(0), 1)
    >>> task.verify(problem, r"It is \boxed{\frac{2}{2}}."), task.verify(problem, "It is 1.")
    (True, False)
    """

    def __init__(self, train: str | Path, held_out: Paths = (), *, workers: int = 2, seconds: int = 3) -> None:
        self._verifier = Verifier(workers=workers, seconds=seconds)
        training = read_problems(train)
        self._held_out: dict[str, list[Problem]] = {}
        for file in map(read_problems, _files(held_out, Path(train))):
            if file.path.stem in self._held_out:
                raise ParameterError("held_out", f"has two files {file.path.stem}", "each benchmark with another name")
            _warn_of_gaps(file)
            self._held_out[file.path.stem] = file.problems
        _warn_of_gaps(training)
        self._training = _without(training, self._held_out)

    @property
    def name(self) -> str:
        """``math``."""
        return "math"

    @property
    def unverified(self) -> Mapping[str, int]:
        """Reason -> completions that got no verdict for it, so far; see `Verdict`."""
        return Counter(self._verifier.unverified)

    def problems(self, rng: np.random.Generator, n: int) -> list[Problem]:
        """Draw different training problems.

        Parameters
        ----------
        rng
            Source of randomness.
        n
            How many, up to the size of the training file.

        Returns
        -------
        list of Problem
            In random order.

        Raises
        ------
        ParameterError
            When `n` is negative, or there are fewer.
        """
        if not 0 <= n <= len(self._training):
            raise ParameterError("n", f"is {n}", f"0 to {len(self._training):,} different training problems")
        return [self._training[i] for i in rng.permutation(len(self._training))[:n]]

    def verify(self, problem: Problem, completion: str, *, truncated: bool = False) -> bool | None:
        r"""Compare the last ``\boxed{}`` with the gold answer.

        Parameters
        ----------
        problem
            A problem of any such file.
        completion
            The response without end-of-sequence.
        truncated
            Not used: an answer that stands there counts, as it does in verl and TRL.

        Returns
        -------
        bool or None
            False also without a box; None when there is no verdict, see `unverified`.
        """
        return self.verify_all([problem], [completion], [truncated])[0]

    def verify_all(
        self, problems: Sequence[Problem], completions: Sequence[str], truncated: Sequence[bool]
    ) -> list[bool | None]:
        """Verify many completions at once: some 1,200 of a real policy's a second and worker.

        Parameters
        ----------
        problems, completions, truncated
            As many of each; see `verify`.

        Returns
        -------
        list of bool or None
            In this order.
        """
        judged = self._verifier.judge([problem.answer for problem in problems], completions)
        return [verdict.correct for verdict in judged]

    def benchmarks(self, size: int) -> dict[str, list[Problem]]:
        """Held-out problem sets, in the order of their files.

        Parameters
        ----------
        size
            Most problems of a set.

        Returns
        -------
        dict of str to list of Problem
            File name without suffix -> problems in the file's order. Of a larger set those with the smallest hash of
            their id: the same ones at every call, and among them those of every smaller `size`.

        Raises
        ------
        ParameterError
            When `size` is below 1.
        """
        if size < 1:
            raise ParameterError("size", f"is {size}", "1 or more")
        return {name: _sample(problems, size) for name, problems in self._held_out.items()}

    def close(self) -> None:
        """End the child processes; they also end with this object and with the program."""
        self._verifier.close()


def _files(held_out: Paths, train: Path) -> list[Path]:
    if isinstance(held_out, str):
        held_out = [name for name in held_out.split(",") if name]
    listed = [held_out] if isinstance(held_out, Path) else held_out
    files: list[Path] = []
    for each in map(Path, listed):
        if each.is_dir():
            inside = sorted(file for file in each.iterdir() if file.suffix in SUFFIXES)
            files += [file for file in inside if file.resolve() != train.resolve()]
        else:
            files.append(each)
    return files


def _sample(problems: list[Problem], size: int) -> list[Problem]:
    def order(i: int) -> str:
        return hashlib.sha256(problems[i].id.encode("utf-8", "surrogatepass")).hexdigest()

    return [problems[i] for i in sorted(sorted(range(len(problems)), key=order)[:size])]


def _warn_of_gaps(file: ProblemFile) -> None:
    parts = []
    if file.no_gold:
        parts.append(f"{len(file.no_gold)} rows without a problem or a gold answer")
    if file.repeated:
        parts.append(f"{len(file.repeated)} rows that repeat a problem")
    if parts:
        warnings.warn(f"{file.path}: left out {' and '.join(parts)} (entropy-lab data {file.path})", stacklevel=3)


def _without(training: ProblemFile, held_out: Mapping[str, list[Problem]]) -> list[Problem]:
    """Training problems that occur in no benchmark: a policy must not be measured on what it was trained on."""
    found = {name: [mine.id for mine, _ in shared(training.problems, problems)] for name, problems in held_out.items()}
    for name, ids in found.items():
        if ids:
            some = ", ".join(ids[:3]) + (" …" if ids[3:] else "")
            warnings.warn(
                f"{training.path}: left out {len(ids)} problems that are also in {name}: {some}", stacklevel=3
            )
    known = {each for ids in found.values() for each in ids}
    left = [problem for problem in training.problems if problem.id not in known]
    if not left:
        raise ParameterError("train", f"{training.path} has no problem that is not held out", "another file")
    return left
