"""Verifiable tasks: problems, and a verdict on every answer."""

from entropy_lab.tasks.registry import TASKS, about, get
from entropy_lab.tasks.task import (
    BatchVerifier,
    DemonstratedTask,
    Demonstration,
    Problem,
    Task,
    Vocabulary,
    demonstrated,
    verify_all,
)

__all__ = [
    "TASKS",
    "BatchVerifier",
    "DemonstratedTask",
    "Demonstration",
    "Problem",
    "Task",
    "Vocabulary",
    "about",
    "demonstrated",
    "get",
    "verify_all",
]
