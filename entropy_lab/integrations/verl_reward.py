r"""A reward function for verl: a task's verdict, or verl's own comparison of boxed answers.

``reward.custom_reward_function.path=pkg://entropy_lab.integrations.verl_reward``, name ``compute_score``; its further
arguments are ``+reward.custom_reward_function.reward_kwargs.NAME=VALUE``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

from entropy_lab.tasks import Problem, Task, get


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,
    task: str = "",
    **params: Any,
) -> dict[str, float]:
    """Verify a response.

    Parameters
    ----------
    data_source
        Data set; not used.
    solution_str
        The response without special tokens.
    ground_truth
        Reference answer.
    extra_info
        Of the data set's row: ``problem``, the problem's name, and ``text``, the problem.
    task
        Name (or path) of one of our tasks that verifies; empty for verl's comparison of boxed answers of MATH. The
        task ``math`` cannot stand beside verl: math-verify and Hydra need different releases of antlr4.
    **params
        Parameters of the task.

    Returns
    -------
    dict of str to float
        ``score`` and ``acc``: 1 for a right response, else 0, also where a task cannot tell.

    Examples
    --------
    >>> problem = get("countdown").problem((7, 2), 5)
    >>> about = {"text": problem.prompt, "problem": problem.id}
    >>> compute_score("countdown", "7-2=5", problem.answer, about, task="countdown")
    {'score': 1.0, 'acc': 1.0}
    """
    if task:
        about = extra_info or {}
        problem = Problem(str(about.get("problem", "")), str(about.get("text", "")), ground_truth)
        right = _task(task, tuple(sorted(params.items()))).verify(problem, solution_str) is True
    else:
        right = bool(import_module("verl.utils.reward_score.math_reward").compute_score(solution_str, ground_truth))
    return {"score": float(right), "acc": float(right)}


@cache
def _task(name: str, params: tuple[tuple[str, Any], ...]) -> Task:
    return get(name, **dict(params))
