"""What belongs to the whole process and a foreign library changes: random generators, threads, environment."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put back, at the end, what the block did to the process.

    That is the global generators of Python, NumPy and PyTorch (GPUs included), the number of PyTorch's threads, the
    function that sets it (vLLM replaces it by one that does nothing), and the environment variables.

    Examples
    --------
    >>> before = torch.get_rng_state()
    >>> with undisturbed():
    ...     _ = torch.rand(1), random.random(), os.environ.update(MINE="1")
    >>> torch.equal(torch.get_rng_state(), before), "MINE" in os.environ
    (True, False)
    """
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    set_num_threads, n_threads, environment = torch.set_num_threads, torch.get_num_threads(), dict(os.environ)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if gpus:
            torch.cuda.set_rng_state_all(gpus)
        torch.set_num_threads = set_num_threads
        torch.set_num_threads(n_threads)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
