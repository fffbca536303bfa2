"""The tasks by name, one line for each; and a user's own, by the path of its file."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from entropy_lab.errors import ParameterError, UnknownNameError
from entropy_lab.loading import load_file
from entropy_lab.tasks.countdown import Countdown
from entropy_lab.tasks.math import Math
from entropy_lab.tasks.task import Task

Factory = Callable[..., Task]

TASKS: Final = MappingProxyType[str, Factory](
    {
        "countdown": Countdown,
        "countdown-4": partial(Countdown, most_numbers=4),
        "math": Math,
    }
)
_MEMBERS: Final = ("name", "problems", "verify", "benchmarks")


def get(name: str, **params: Any) -> Task:
    """Make the task with a name, or the one in a Python file.

    Parameters
    ----------
    name
        A key of `TASKS`; or the path of a file, which ends in ``.py``, that has a function ``task`` that makes the
        task, or one class with the members of `Task`.
    **params
        Parameters of the task.

    Returns
    -------
    Task
        A new instance.

    Raises
    ------
    UnknownNameError
        When there is no such task, or no such file.
    ParameterError
        When the task has no such parameter, lacks one or refuses its value; or the file has no task.

    Examples
    --------
    >>> get("countdown").name, get("countdown", most_numbers=4).name
    ('countdown', 'countdown-4')
    """
    if name.endswith(".py"):
        factory = _own(Path(name))
    elif name in TASKS:
        factory = TASKS[name]
    else:
        hint = "a file of your own is named by its path, ./NAME.py"
        raise UnknownNameError("task", f"there is no {name!r}", f"there are: {', '.join(TASKS)}", hint)
    signature = inspect.signature(factory)
    try:
        signature.bind(**params)
    except TypeError as error:
        takes = ", ".join(signature.parameters) or "none"
        raise ParameterError(f"task {name}", str(error), f"its parameters: {takes}", "docs/tasks.md") from error
    made = factory(**params)
    lacks = [member for member in _MEMBERS if not hasattr(made, member)]
    if lacks:
        raise ParameterError(name, f"makes a {type(made).__name__}, which has no {', '.join(lacks)}", _needed())
    return made


def about(name: str) -> str:
    """Say in one line what a task is.

    Parameters
    ----------
    name
        A key of `TASKS`.

    Returns
    -------
    str
        First line of its documentation, and the parameters that set it apart.

    Examples
    --------
    >>> about("countdown-4")
    'Reach a target from a few digits with + - *, one checked step after another. (most_numbers=4)'
    """
    factory = TASKS[name]
    first = (
        (inspect.getdoc(factory.func if isinstance(factory, partial) else factory) or "")
        .partition("\n")[0]
        .replace("``", "")
    )
    apart = factory.keywords if isinstance(factory, partial) else {}
    return " ".join([first, *(f"({key}={value})" for key, value in apart.items())])


def _own(path: Path) -> Factory:
    """Find what makes the task of a user's file."""
    if not path.is_file():
        raise UnknownNameError(str(path), "does not exist", "the path of a task", "docs/tasks.md")
    module = load_file(path.resolve(), "task")
    factory = getattr(module, "task", None)
    if callable(factory):
        return factory  # type: ignore[no-any-return]  # `get` looks at what it makes
    own = [each for each in vars(module).values() if isinstance(each, type) and each.__module__ == module.__name__]
    classes = [each for each in own if all(hasattr(each, member) for member in _MEMBERS[1:])]
    if len(classes) != 1:
        wrong = (
            f"has {len(classes)} tasks: {', '.join(each.__name__ for each in classes)}" if classes else "has no task"
        )
        raise ParameterError(str(path), wrong, f"a function task(), or {_needed()}", "docs/tasks.md")
    return classes[0]


def _needed() -> str:
    return f"one class with {', '.join(_MEMBERS)}"
