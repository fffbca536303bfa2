"""Verifiable tasks for the embedded trainer."""

from entropy_lab.tasks.registry import TASKS, get
from entropy_lab.tasks.task import Demonstration, Problem, Task, Vocabulary

__all__ = ["TASKS", "Demonstration", "Problem", "Task", "Vocabulary", "get"]
