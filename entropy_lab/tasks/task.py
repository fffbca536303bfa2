"""What a task is to the training backend: problems and a verifier; for models made in code, a vocabulary too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

import numpy as np

from entropy_lab.errors import ParameterError

PAD: Final = 0
EOS: Final = 1
_PAD_SIGN: Final = "␀"


@dataclass(frozen=True)
class Vocabulary:
    """Characters as token ids: 0 is padding, 1 is end-of-sequence, then one id for each character.

    Parameters
    ----------
    characters
        The characters a task needs, each once.

    Examples
    --------
    >>> Vocabulary("01+=").size
    6
    """

    characters: str

    @property
    def size(self) -> int:
        """Number of token ids, padding and end-of-sequence included."""
        return len(self.characters) + 2

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without end-of-sequence.

        Parameters
        ----------
        text
            Text over the characters of the vocabulary.

        Returns
        -------
        list of int
            One id in [2, size) for each character; empty for an empty text.

        Raises
        ------
        ParameterError
            When a character is not in the vocabulary.

        Examples
        --------
        >>> Vocabulary("01+=").encode("1+0")
        [3, 4, 2]
        """
        unknown = sorted(set(text) - set(self.characters))
        if unknown:
            raise ParameterError("text", f"has characters {unknown}", f"the vocabulary is {self.characters!r}")
        return [self.characters.index(character) + 2 for character in text]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids, up to the first end-of-sequence.

        Parameters
        ----------
        ids
            Token ids in [0, size).

        Returns
        -------
        str
            The characters; a sampled padding token shows as ``␀``, which no vocabulary holds, so that a verifier
            sees it.

        Examples
        --------
        >>> Vocabulary("01+=").decode([3, 4, 2, 1, 0])
        '1+0'
        """
        characters = []
        for token in ids:
            if token == EOS:
                break
            characters.append(_PAD_SIGN if token == PAD else self.characters[token - 2])
        return "".join(characters)


@dataclass(frozen=True)
class Problem:
    """One problem of a task.

    Parameters
    ----------
    id
        Name of the problem, the same in every step, run and version.
    prompt
        What the policy is given.
    answer
        Reference answer, for the record; the verifier may accept many completions.
    """

    id: str
    prompt: str
    answer: str


@dataclass(frozen=True)
class Demonstration:
    """A problem with one valid completion (end-of-sequence left out)."""

    problem: Problem
    completion: str


@runtime_checkable
class Task(Protocol):
    """A source of verifiable problems, as texts: subclassing is not needed, only these members.

    Problems that `problems` draws never occur in `benchmarks`.
    """

    @property
    def name(self) -> str:
        """Name in the registry, or one of the user's own."""
        ...

    def problems(self, rng: np.random.Generator, n: int) -> list[Problem]:
        """Draw `n` different training problems."""
        ...

    def verify(self, problem: Problem, completion: str, *, truncated: bool = False) -> bool | None:
        """Verdict on a completion; `truncated` says that end-of-sequence was not reached; None is "cannot tell"."""
        ...

    def benchmarks(self, size: int) -> dict[str, list[Problem]]:
        """Held-out problem sets of at most `size` problems, easiest first; the same at every call."""
        ...


@runtime_checkable
class DemonstratedTask(Task, Protocol):
    """A task that a model made in code can learn from nothing: it brings the vocabulary and valid completions.

    Problems that `demonstrations` draws never occur in `benchmarks`.
    """

    @property
    def vocabulary(self) -> Vocabulary:
        """Characters of prompts and completions."""
        ...

    def demonstrations(self, rng: np.random.Generator, n: int) -> list[Demonstration]:
        """Draw `n` training problems, each with a random valid completion; problems may repeat."""
        ...


@runtime_checkable
class BatchVerifier(Protocol):
    """A task that verifies many completions faster than one after another."""

    def verify_all(
        self, problems: Sequence[Problem], completions: Sequence[str], truncated: Sequence[bool]
    ) -> list[bool | None]:
        """Verdicts in the order of the completions, each as `Task.verify` would give it."""
        ...


def demonstrated(task: Task) -> DemonstratedTask:
    """Give the task back as one with a vocabulary and demonstrations, or refuse it.

    Parameters
    ----------
    task
        Any task.

    Returns
    -------
    DemonstratedTask
        The same object.

    Raises
    ------
    ParameterError
        When it has no vocabulary or no demonstrations: it is for models that come with a tokenizer.

    Examples
    --------
    >>> from entropy_lab.tasks import get
    >>> demonstrated(get("countdown")).vocabulary.size
    20
    """
    if not isinstance(task, DemonstratedTask):
        wrong = f"is {task.name!r}, which has no vocabulary and no demonstrations for a model made in code"
        raise ParameterError("task", wrong, "a task with them, such as countdown", "use it with a pretrained model")
    return task


def verify_all(
    task: Task, problems: Sequence[Problem], completions: Sequence[str], truncated: Sequence[bool]
) -> list[bool | None]:
    """Verify a whole step's completions: in one batch where the task can, else one after another.

    Parameters
    ----------
    task
        Verifies.
    problems
        The problem of each completion.
    completions
        Responses without end-of-sequence.
    truncated
        Whether each of them stopped before end-of-sequence.

    Returns
    -------
    list of bool or None
        Verdicts in this order; None is "cannot tell".

    Raises
    ------
    ParameterError
        When there are not as many of each.

    Examples
    --------
    >>> from entropy_lab.tasks import get
    >>> task = get("countdown")
    >>> verify_all(task, [task.problem((7, 2), 5)] * 2, ["7-2=5", "7+2=9"], [False, False])
    [True, False]
    """
    if not len(problems) == len(completions) == len(truncated):
        sizes = f"{len(problems)} problems, {len(completions)} completions, {len(truncated)} flags"
        raise ParameterError("verify_all", f"got {sizes}", "as many of each")
    if isinstance(task, BatchVerifier):
        return task.verify_all(problems, completions, truncated)
    together = zip(problems, completions, truncated, strict=True)
    return [task.verify(problem, completion, truncated=cut) for problem, completion, cut in together]
