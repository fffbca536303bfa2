"""Exceptions of entropy-lab, and the one place that words their messages.

Every error a user can cause reads ``WHERE: what is wrong, with the value; what is allowed. Hint: the next command.``
Each class also inherits from the builtin that a caller would expect, so ``except ValueError`` keeps working.
"""

from __future__ import annotations

from collections.abc import Sequence


def message(where: str, wrong: str, allowed: str = "", hint: str = "") -> str:
    """Word one error line.

    Parameters
    ----------
    where
        File, column, option or function that the error is about.
    wrong
        What is wrong, with the offending value.
    allowed
        What would have been accepted.
    hint
        The next command, or the change that mends it.

    Returns
    -------
    str
        One line without a line break.

    Examples
    --------
    >>> message("run.json", "version is 7", "supported: 1", "entropy-lab check RUN")
    'run.json: version is 7; supported: 1. Hint: entropy-lab check RUN'
    """
    line = f"{where}: {wrong}" + (f"; {allowed}" if allowed else "")
    line = line + (f". Hint: {hint}" if hint else "")
    return " ".join(line.split())


class EntropyLabError(Exception):
    """Base of every error that entropy-lab raises on purpose.

    Examples
    --------
    >>> str(ParameterError("ddof", "is 3", "0 or 1"))
    'ddof: is 3; 0 or 1'
    """

    def __init__(self, where: str, wrong: str, allowed: str = "", hint: str = "") -> None:
        self.where, self.wrong = where, wrong
        super().__init__(message(where, wrong, allowed, hint))

    def __str__(self) -> str:
        # KeyError would print the repr of its argument, OSError a tuple: the message is always the first argument.
        return str(self.args[0])


class RunNotFoundError(EntropyLabError, FileNotFoundError):
    """There is no run (or study) at a path."""


class RunFormatError(EntropyLabError, ValueError):
    """A file of a run breaks the run format."""


class ProblemFileError(EntropyLabError, ValueError):
    """A file of problems for a task cannot be read."""


class MissingColumnError(EntropyLabError, KeyError):
    """An analysis needs columns that this run does not have; they are in ``columns``."""

    def __init__(self, where: str, columns: Sequence[str], hint: str = "") -> None:
        self.columns = tuple(columns)
        super().__init__(where, f"needs {', '.join(columns)}, which this run did not record", "", hint)


class ParameterError(EntropyLabError, ValueError):
    """A parameter is outside its range, or an array has the wrong shape."""


class UnknownNameError(EntropyLabError, LookupError):
    """No recipe, estimator, task, column or method has this name."""


class MissingExtraError(EntropyLabError, ImportError):
    """A feature needs an optional dependency that is not installed."""


class EngineError(EntropyLabError, RuntimeError):
    """A rollout engine does not start, or does not have the policy that is trained."""


class OutputError(EntropyLabError, OSError):
    """A result could not be written."""
