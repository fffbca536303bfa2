"""What trainers print: lines that state their step, and the Trainer's ``{'loss': 0.1, …}``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from entropy_lab.readers.console_records import recorded_lines
from entropy_lab.readers.console_styles import Printed, styled_lines
from entropy_lab.readers.scalars import Log, as_number

_ANSI: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_DICT: Final = re.compile(r"\{'[^{}]*\}")
_ENTRY: Final = re.compile(r"'([^']+)': *(?:'([^']*)'|\"([^\"]*)\"|([^,}]+))")
_OF_STEPS: Final = re.compile(r"(\d+)/\d+")
_MOST_LINES: Final = 60
_BAR: Final = re.compile(r"(?:^|\]|Train:)\s*\d+%\|[^|]*\| (\d+)/(\d+) \[")


def step_lines(file: Path, size: int | None = None) -> Iterator[Printed]:
    """Yield the lines that state their step, without their colours.

    Parameters
    ----------
    file
        A text; bytes that are not UTF-8 are replaced.
    size
        Read only about this many bytes.
    """
    for find in (styled_lines, recorded_lines):
        yield from find(_ANSI.sub("", line) if "\x1b" in line else line for line in _lines(file, size))


def printed_dicts(file: Path, size: int | None = None) -> Iterator[Printed]:
    """Yield the dictionaries that transformers' Trainer prints, with the step of the progress bar before them.

    Numbers may be quoted (transformers 5) or ``nan`` (unsloth), a terminal may have broken the line, and ms-swift
    writes the step into the dictionary.
    """
    step = None
    for line in _whole_dicts(_lines(file, size)):
        at = 0
        while match := _BAR.search(line, at):
            step, at = int(match[1]), match.end()
        for found in _DICT.findall(line):
            entries = {name: a or b or c for name, a, b, c in _ENTRY.findall(found)}
            own = _OF_STEPS.fullmatch(entries.pop("global_step/max_steps", ""))
            step = int(own[1]) if own else step
            values = {name: number for name, text in entries.items() if (number := as_number(text)) is not None}
            if values:
                yield Printed(step, values)


def _whole_dicts(lines: Iterator[str]) -> Iterator[str]:
    """Put dictionaries together that a terminal's width cut into lines."""
    held, n_held = "", 0
    for line in lines:
        held, n_held = held + line.rstrip("\n"), n_held + 1
        if held.rfind("{'") > held.rfind("}") and n_held < _MOST_LINES:
            continue
        yield held
        held, n_held = "", 0
    if held:
        yield held


def _lines(file: Path, size: int | None) -> Iterator[str]:
    with file.open(encoding="utf-8", errors="replace") as stream:  # \r of progress bars ends a line, too
        for line in stream:
            yield line
            if size is not None:
                size -= len(line)
                if size < 0:
                    return


def log_of_steps(file: Path, label: str) -> Log:
    """Read lines that state their step as a log."""
    log = Log(label, "console log")
    for line in step_lines(file):
        log.add(line.step or 0, line.values)
    return log
