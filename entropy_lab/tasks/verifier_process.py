"""One child process of the verifier, as the parent sees it; `verifier_worker` is what runs in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Final

from entropy_lab.errors import MissingExtraError

INSTALL: Final = "pip install 'entropy-lab[math]'"
_WORKER: Final = Path(__file__).with_name("verifier_worker.py")
_GRACE: Final = 1.5
"""Seconds that a child may overrun its own time limit before it is killed."""
_START: Final = 60.0
"""Seconds in which a child must have loaded math-verify; on an idle machine it takes half a second."""


class VerifierProcess:
    """A child process that judges pairs of answers, begun anew when it dies or must be killed.

    Parameters
    ----------
    seconds
        Time limit of a pair.
    megabytes
        Limit of the child's address space.

    Examples
    --------
    >>> child = VerifierProcess(seconds=3, megabytes=512)
    >>> child.todo.append(("1/2", "0.5"))
    >>> child.ask()
    >>> _ = wait([child.pipe])
    >>> child.answer()
    (('1/2', '0.5'), True, '')
    >>> child.kill()
    -9
    """

    def __init__(self, seconds: int, megabytes: int) -> None:
        self._limits = seconds, megabytes
        self.todo: deque[tuple[str, str]] = deque()
        """Pairs of gold answer and answer, not asked yet."""
        self.pair: tuple[str, str] | None = None
        """What it is asked now."""
        self.deadline = 0.0
        """When it must have answered, on the monotonic clock."""
        self._begin()

    @property
    def pipe(self) -> int:
        """Where its answers come from."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def _begin(self) -> None:
        # Not multiprocessing: its spawn imports the parent's main program, which for a trainer is all of torch.
        # -P: beside the worker lies math.py, which must not pass for the standard library's.
        words = [sys.executable, "-P", str(_WORKER), *map(str, self._limits)]
        quiet = {**os.environ, "PYTHONWARNINGS": "ignore"}
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0, env=quiet
        )
        self._greeted = False

    def _greet(self) -> None:
        """Wait until it has loaded math-verify."""
        if self._greeted:
            return
        line = os.read(self.pipe, 1 << 16) if wait([self.pipe], timeout=_START) else b""
        if not line:
            wrong = f"its process cannot load math-verify (exit code {self.kill()})"
            raise MissingExtraError("math", wrong, "the extra `math`", f"{INSTALL}; python -c 'import math_verify'")
        self._greeted = True

    def ask(self) -> None:
        """Send the next pair.

        Raises
        ------
        MissingExtraError
            The child cannot load math-verify.
        """
        self.pair = self.todo.popleft()
        line = json.dumps(self.pair).encode() + b"\n"
        self._greet()
        try:
            self._send(line)
        except BrokenPipeError:  # it died while it had nothing to do
            self._renew()
            self._send(line)
        self.deadline = time.monotonic() + self._limits[0] + _GRACE

    def _send(self, line: bytes) -> None:
        assert self._process.stdin is not None
        while line:
            line = line[self._process.stdin.write(line) :]

    def answer(self) -> tuple[tuple[str, str], bool | None, str]:
        """Take the verdict on the pair, and why; a process that is late or dead is replaced."""
        assert self.pair is not None
        pair, self.pair = self.pair, None
        line = os.read(self.pipe, 1 << 16) if wait([self.pipe], timeout=0) else b""
        if not line:
            late = time.monotonic() > self.deadline
            code = self._renew()
            # The limit of processor time also ends what Python cannot interrupt.
            return pair, None, "timed out" if late or code == -signal.SIGXCPU else "process ended"
        correct, why = json.loads(line)
        if why == "out of memory":
            self._renew()  # what an allocation that failed left behind is anyone's guess
        return pair, correct, why

    def _renew(self) -> int:
        code = self.kill()
        self._begin()
        self._greet()
        return code

    def kill(self) -> int:
        """End the process, whatever it does; may be called again.

        Returns
        -------
        int
            The exit code that it had, or got by this.
        """
        assert self._process.stdout is not None
        if not self._process.stdout.closed and not wait([self.pipe], timeout=0):
            self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(0.2)  # its pipe closes a moment before it is gone
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        return self._process.wait()
