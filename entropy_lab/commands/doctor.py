"""``entropy-lab doctor``: whether our additions to other frameworks are there and work."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from typing import Final

from entropy_lab.cli import Doctor
from entropy_lab.commands.terminal import console
from entropy_lab.errors import UnknownNameError
from entropy_lab.integrations.checks import Check

FRAMEWORKS: Final = ("trl", "verl")


def run(command: Doctor) -> None:
    """Print what was found; leave with 1 where something is wrong with a framework that is named or installed."""
    for name in command.frameworks:
        if name not in FRAMEWORKS:
            raise UnknownNameError("doctor", f"there is no {name!r}", f"known: {', '.join(FRAMEWORKS)}")
    asked = command.frameworks or FRAMEWORKS
    found = {name: look(name, named=name in command.frameworks) for name in asked}
    if command.json:
        answer = {name: [asdict(check) for check in checks] for name, checks in found.items()}
        sys.stdout.write(json.dumps(answer, ensure_ascii=False) + "\n")
    else:
        screen = console()
        for name, checks in found.items():
            if not checks:
                screen.print(f"--  {name}: not installed, nothing to check")
            for check in checks:
                sign = "ok " if check.passed else "BAD"
                hint = f" Hint: {check.hint}" if check.hint and check.hint not in check.found else ""
                screen.print(f"{sign} {name} {check.about}: {check.found}{hint}", markup=False, soft_wrap=True)
    if not all(check.passed for checks in found.values() for check in checks):
        sys.exit(1)


def look(name: str, *, named: bool) -> list[Check]:
    """Look at a framework.

    Parameters
    ----------
    name
        One of `FRAMEWORKS`.
    named
        False where one that is not installed is nothing wrong.

    Returns
    -------
    list of Check
        Up to the first that is wrong; empty for one that is not installed and need not be.
    """
    if not named and find_spec(name) is None:
        return []
    checks: Callable[[], Iterator[Check]] = import_module(f"entropy_lab.integrations.{name}_checks").checks
    return list(checks())
