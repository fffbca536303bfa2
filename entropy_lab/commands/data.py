"""``entropy-lab data``: how to get problem files, and whether one's own are sound."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import combinations
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from entropy_lab.cli import Data
from entropy_lab.commands.terminal import console
from entropy_lab.errors import MissingExtraError
from entropy_lab.tasks import math_sets
from entropy_lab.tasks.problem_files import ProblemFile, read_problems, shared
from entropy_lab.tasks.verifier import AS_TEXT, Verifier


def run(command: Data) -> None:
    """Print the script that fetches six sets from the hub; or check files."""
    if not command.files:
        sys.stdout.write(Path(math_sets.__file__).read_text(encoding="utf-8"))
        return
    files = [read_problems(path) for path in command.files]
    screen = console()
    with _verifier(command.workers, screen) as verifier:
        for file in files:
            _show(file, screen)
            if verifier is not None:
                _show_golds(file, verifier, screen)
    for one, other in combinations(files, 2):
        if both := shared(one.problems, other.problems):
            pairs = _some([f"{mine.id} = {theirs.id}" for mine, theirs in both])
            screen.print(f"[yellow]shared[/] by {one.path} and {other.path}: {len(both)} ({pairs})", soft_wrap=True)


def _verifier(workers: int, screen: Console) -> Verifier | nullcontext[None]:
    try:
        return Verifier(workers=workers)
    except MissingExtraError as error:
        screen.print(f"[yellow]gold answers are not checked[/]: {error}", soft_wrap=True)
        return nullcontext()


def _show(file: ProblemFile, screen: Console) -> None:
    identity = file.columns.id or "a hash of the problem"
    columns = f"columns {file.columns.problem}, {file.columns.answer}; id: {identity}"
    screen.print(f"{file.path}: {file.n_rows:,} rows, {len(file.problems):,} problems ({columns})", soft_wrap=True)
    left_out = {
        "without a problem or a gold answer": list(map(str, file.no_gold)),
        "repeated": [f"{line} = {earlier}" for line, earlier in file.repeated.items()],
        "repeated with another gold answer": list(map(str, file.other_gold)),
    }
    for what, lines in left_out.items():
        if lines:
            screen.print(f"  [yellow]{what}[/]: {len(lines)} (lines {_some(lines)})", soft_wrap=True)


def _show_golds(file: ProblemFile, verifier: Verifier, screen: Console) -> None:
    golds = [problem.answer for problem in file.problems]
    verdicts = verifier.judge(golds, [f"\\boxed{{{gold}}}" for gold in golds])
    kinds = {
        "not accepted as their own answer": [verdict.correct is False for verdict in verdicts],
        "without a verdict": [verdict.correct is None for verdict in verdicts],
        "that math-verify cannot parse, right only when repeated word for word": [
            verdict.correct is True and verdict.why == AS_TEXT for verdict in verdicts
        ],
    }
    if not any(map(any, kinds.values())):
        screen.print(f"  [green]all {len(golds):,} gold answers can be verified[/]")
    for what, flags in kinds.items():
        those = [problem for problem, flag in zip(file.problems, flags, strict=True) if flag]
        if those:
            some = _some([f"{problem.id}: {problem.answer}" for problem in those])
            screen.print(f"  [yellow]gold answers {what}[/]: {len(those)} ({escape(some)})", soft_wrap=True)


def _some(items: Sequence[str]) -> str:
    return ", ".join(items[:5]) + (" …" if items[5:] else "")
