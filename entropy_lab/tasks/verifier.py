"""Verdicts of math-verify on boxed answers, from child processes that can be killed.

sympy can be asked for what takes hours or all memory (``9^{9^9}``), and a policy in training writes such things. Each
pair of answers is therefore judged in a child process with a time limit, a memory limit and a deadline that the parent
keeps. What a limit ended is not wrong but unverified. Linux and macOS.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import wait
from types import TracebackType
from typing import Final

from entropy_lab.errors import MissingExtraError, ParameterError
from entropy_lab.tasks.boxed import last_boxed, mended, other_base, too_much
from entropy_lab.tasks.verifier_process import INSTALL, VerifierProcess

NEEDS: Final[Mapping[str, str]] = {"math-verify": "0.9.0", "antlr4-python3-runtime": "4.13.2"}
"""Package -> its version; with others verdicts differ (antlr 4.11 cannot read ``50\\%``)."""
AS_TEXT: Final = "compared as text"
"""Why of a verdict on a gold answer that math-verify cannot parse: right is only what repeats it word for word."""


@dataclass(frozen=True)
class Verdict:
    """What is known of a response.

    Examples
    --------
    >>> Verdict(None, "timed out").correct is None
    True
    """

    correct: bool | None
    """None is "cannot tell": unverified, which is not wrong."""
    why: str = ""
    """For a wrong one ``no boxed answer`` or ``another base``; for an unverified one ``timed out``, ``out of memory``,
    ``too long``, ``too deep``, ``gold too long``, ``gold too deep``, ``gold not read`` or ``process ended``;
    `AS_TEXT` where math-verify cannot parse the gold answer; else empty."""


def require_math() -> None:
    """Make sure that the extra ``math`` is there, in the versions whose verdicts were measured.

    Raises
    ------
    MissingExtraError
        A package is missing, or has another version.

    Examples
    --------
    >>> require_math()
    """
    for package, needed in NEEDS.items():
        try:
            found = version(package)
        except PackageNotFoundError as error:
            raise MissingExtraError("math", f"{package} is not installed", "the extra `math`", INSTALL) from error
        if found != needed:
            raise MissingExtraError("math", f"{package} is {found}", f"{needed}: with others verdicts differ", INSTALL)


class Verifier:
    r"""A pool of child processes around math-verify; they start at the first use and end with this object or process.

    Threads may share one: they take turns.

    Parameters
    ----------
    workers
        Most child processes, about 60 MB each.
    seconds
        Time limit of one pair of answers; half of them take 1 ms, 99 of 100 at most 10 ms.
    megabytes
        Memory limit of a child process, of its address space (Linux).

    Raises
    ------
    MissingExtraError
        The extra ``math`` is not installed.
    ParameterError
        A number is below 1, or `megabytes` below 128.

    Examples
    --------
    >>> with Verifier(workers=1) as verifier:
    ...     verdicts = verifier.judge(["1/2", "1/2", "1/2"], [r"\boxed{0.5}", r"So \boxed{2}.", "It is 1/2."])
    >>> [verdict.correct for verdict in verdicts]
    [True, False, False]
    """

    def __init__(self, *, workers: int = 2, seconds: int = 3, megabytes: int = 512) -> None:
        for name, value, least in (("workers", workers, 1), ("seconds", seconds, 1), ("megabytes", megabytes, 128)):
            if value < least:
                raise ParameterError(name, f"is {value}", f"{least} or more")
        require_math()
        self.unverified: Counter[str] = Counter()
        """Reason -> responses that got no verdict for it, so far."""
        self._most, self._seconds, self._megabytes = workers, seconds, megabytes
        self._workers: list[VerifierProcess] = []
        self._lock = threading.Lock()
        self.close = weakref.finalize(self, _end, self._workers)
        """End the child processes; also called when this object or process ends."""

    def __enter__(self) -> Verifier:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def judge(self, golds: Sequence[str], responses: Sequence[str]) -> list[Verdict]:
        r"""Compare the last ``\boxed{}`` of each response with its gold answer.

        Equal pairs are judged once, and the pairs of one gold answer by one process, which reads it once.

        Parameters
        ----------
        golds
            Gold answers, without ``\boxed{}``.
        responses
            As many texts.

        Returns
        -------
        list of Verdict
            In this order.

        Raises
        ------
        ParameterError
            There are not as many of the one as of the other, or the verifier was closed.
        MissingExtraError
            A child process cannot load math-verify.
        """
        if len(golds) != len(responses):
            raise ParameterError("responses", f"are {len(responses)}", f"one for each of {len(golds)} gold answers")
        verdicts: dict[int, Verdict] = {}
        asked: dict[str, dict[str, list[int]]] = {}
        for row, (gold, response) in enumerate(zip(golds, responses, strict=True)):
            gold, answer = mended(gold), last_boxed(response)
            settled = _settled(gold, answer)
            if settled is not None:
                verdicts[row] = settled
            elif answer is not None:
                asked.setdefault(gold, {}).setdefault(mended(answer), []).append(row)
        with self._lock:
            judged = self._run([[(gold, answer) for answer in answers] for gold, answers in asked.items()])
        for (gold, answer), verdict in judged.items():
            verdicts.update(dict.fromkeys(asked[gold][answer], verdict))
        self.unverified.update(verdict.why for verdict in verdicts.values() if verdict.correct is None)
        return [verdicts[row] for row in range(len(golds))]

    def _run(self, groups: list[list[tuple[str, str]]]) -> dict[tuple[str, str], Verdict]:
        """Hand the pairs to the workers, a group to each, one pair at a time."""
        if not self.close.alive:
            raise ParameterError("verifier", "was closed", "a new one")
        judged: dict[tuple[str, str], Verdict] = {}
        queue = deque(groups)
        while len(self._workers) < min(self._most, len(groups)):
            self._workers.append(VerifierProcess(self._seconds, self._megabytes))
        try:
            while True:
                for worker in self._workers:
                    if worker.pair is None and (worker.todo or queue):
                        worker.todo = worker.todo or deque(queue.popleft())
                        worker.ask()
                busy = [worker for worker in self._workers if worker.pair is not None]
                if not busy:
                    return judged
                for worker in _ready(busy):
                    pair, correct, why = worker.answer()
                    judged[pair] = Verdict(correct, why)
        except BaseException:
            # An answer that nobody took would be taken for that of the next pair.
            _end(self._workers)
            raise


def _settled(gold: str, answer: str | None) -> Verdict | None:
    """Verdict that needs no math-verify, if there is one."""
    if answer is None:
        return Verdict(False, "no boxed answer")
    if too_much(gold):
        return Verdict(None, f"gold {too_much(gold)}")
    if too_much(answer):
        return Verdict(None, too_much(answer))
    return Verdict(False, "another base") if other_base(gold, answer) else None


def _ready(busy: list[VerifierProcess]) -> list[VerifierProcess]:
    """Wait for the first answer or deadline."""
    nearest = min(worker.deadline for worker in busy) - time.monotonic()
    answered = wait([worker.pipe for worker in busy], timeout=max(0.0, nearest))
    now = time.monotonic()
    return [worker for worker in busy if worker.pipe in answered or now > worker.deadline]


def _end(workers: list[VerifierProcess]) -> None:
    while workers:
        workers.pop().kill()
