"""The tasks by name: one line for each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import MappingProxyType
from typing import Final

from entropy_lab.errors import UnknownNameError
from entropy_lab.tasks.countdown import Countdown
from entropy_lab.tasks.task import Task

TASKS: Final = MappingProxyType[str, Callable[[], Task]](
    {
        "countdown": Countdown,
        "countdown-4": partial(Countdown, most_numbers=4),
    }
)


def get(name: str) -> Task:
    """Make the task with a name.

    Parameters
    ----------
    name
        A key of `TASKS`.

    Returns
    -------
    Task
        A new instance.

    Raises
    ------
    UnknownNameError
        When there is no such task.

    Examples
    --------
    >>> get("countdown").name
    'countdown'
    """
    if name not in TASKS:
        raise UnknownNameError("task", f"there is no {name!r}", f"there are: {', '.join(TASKS)}")
    return TASKS[name]()
