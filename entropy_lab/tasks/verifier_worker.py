"""The child process of the verifier: one line of JSON for each pair of answers that comes in.

`entropy_lab.tasks.verifier` runs this file by its path, so that the child loads math-verify and nothing else: neither
this package nor the parent's main program. It must therefore not import entropy_lab.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

_LOOK_FOR_PARENT = 2.0
"""Seconds between looks whether the parent still lives; usually its end of the pipe closes first."""


class _TimedOut(BaseException):
    """Not an Exception: sympy and math-verify catch those."""


def main(seconds: int, megabytes: int) -> None:
    """Answer ``[gold, answer]`` with ``[correct, why]`` until standard input is closed.

    Parameters
    ----------
    seconds
        Time for one pair. Where Python cannot interrupt itself, two more of processor time end the process.
    megabytes
        Address space of this process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides
    signal.signal(signal.SIGALRM, _ring)
    reply = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not pass for an answer
    logging.disable(logging.CRITICAL)
    _limit(resource.RLIMIT_AS, megabytes << 20)
    judge = _judge()
    reply.write(json.dumps("ready") + "\n")
    reply.flush()
    for line in _lines(sys.stdin.fileno()):
        gold, answer = json.loads(line)
        reply.write(json.dumps(_bounded(judge, gold, answer, seconds)) + "\n")
        reply.flush()


def _lines(pipe: int) -> Iterator[bytes]:
    """Give what comes in, one line at a time, until the pipe is closed or the parent is gone."""
    parent, line = os.getppid(), b""
    while True:
        while not select.select([pipe], [], [], _LOOK_FOR_PARENT)[0]:
            if os.getppid() != parent:
                return
        read = os.read(pipe, 1 << 16)
        if not read:
            return
        line += read
        if line.endswith(b"\n"):  # the parent waits for the answer before it sends another
            yield line
            line = b""


def _ring(*_: object) -> None:
    raise _TimedOut


def _limit(what: int, value: int) -> None:
    with suppress(ValueError, OSError):  # macOS knows no limit of the address space
        resource.setrlimit(what, (value, resource.getrlimit(what)[1]))


def _near_limit() -> bool:
    """Whether this process has held so much memory that an allocation may have failed."""
    # Not getrusage: its peak is handed down from the parent, a trainer of gigabytes, through fork and exec.
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:  # macOS, which knows no limit either
        return False
    peak = next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM:"))
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return limit != resource.RLIM_INFINITY and peak > 0.8 * limit


def _bounded(
    judge: Callable[[str, str], tuple[bool | None, str]], gold: str, answer: str, seconds: int
) -> tuple[bool | None, str]:
    # C code that looks at no signal (gmpy2, where sympy finds it) is ended by the system.
    _limit(resource.RLIMIT_CPU, int(time.process_time()) + seconds + 2)
    began = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        verdict = judge(gold, answer)
    except _TimedOut:
        return None, "timed out"
    except MemoryError:
        return None, "out of memory"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    # Inside sympy somebody may have caught the alarm, or MemoryError; what came after it is no verdict.
    if time.monotonic() - began >= seconds:
        return None, "timed out"
    return verdict if verdict[0] or not _near_limit() else (None, "out of memory")


def _judge() -> Callable[[str, str], tuple[bool | None, str]]:
    from math_verify import parse, verify

    def parsed(answer: str) -> list[Any]:
        # In a box, or 1,3 becomes 1.3 and words are searched for a number. No timeout: its alarm would clear ours.
        found: list[Any] = parse(f"\\boxed{{{answer}}}", parsing_timeout=None)
        return found

    parsed_gold = lru_cache(4096)(parsed)

    def judge(gold: str, answer: str) -> tuple[bool | None, str]:
        golds = parsed_gold(gold)
        if not golds:
            return None, "gold not read"
        correct = verify(golds, parsed(answer), allow_set_relation_comp=True, timeout_seconds=None)
        return bool(correct), "compared as text" if all(isinstance(each, str) for each in golds) else ""

    return judge


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
