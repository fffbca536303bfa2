"""Opening sinks by name: what is wrong is said before a run begins, and what a sink lacks of it is handed over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from entropy_lab.errors import EntropyLabError, MissingExtraError, OutputError, UnknownNameError
from entropy_lab.rl.sinks.sink import LoggedRun, Sink, Sinks
from entropy_lab.rl.sinks.validation import accuracies
from entropy_lab.run import Run, open_run

SINKS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "tensorboard": ("tensorboard_sink", "TensorBoardSink"),
        "wandb": ("wandb_sink", "WandbSink"),
        "trackio": ("trackio_sink", "TrackioSink"),
    }
)
"""Name of a sink, of its package and of its extra -> module and class."""


def require_sinks(names: Sequence[str]) -> None:
    """Refuse sinks that do not exist or are not installed, before a trainer spends time.

    Parameters
    ----------
    names
        Keys of `SINKS`.

    Raises
    ------
    UnknownNameError
        There is no such sink.
    MissingExtraError
        Its package is not installed.

    Examples
    --------
    >>> require_sinks(["wanbd"])
    Traceback (most recent call last):
    entropy_lab.errors.UnknownNameError: log_to: there is no 'wanbd'; there are: tensorboard, wandb, trackio
    """
    for name in names:
        if name not in SINKS:
            raise UnknownNameError("log_to", f"there is no {name!r}", f"there are: {', '.join(SINKS)}")
        if find_spec(name) is None:
            hint = f"pip install 'entropy-lab[{name}]'"
            raise MissingExtraError(f"log_to {name}", f"{name} is not installed", f"the extra `{name}`", hint)


def open_sinks(names: Sequence[str], path: Path) -> Sinks:
    """Open sinks for a run, and hand over what they lack of its record so far.

    Parameters
    ----------
    names
        Keys of `SINKS`; each is opened once.
    path
        Directory of the run, with its ``run.json``. When it goes on, what is to be made again must have been removed
        (`RunWriter.resume`).

    Returns
    -------
    Sinks
        Use it in a ``with`` statement.

    Raises
    ------
    UnknownNameError, MissingExtraError
        As `require_sinks`.
    OutputError
        A sink cannot be started.
    RunNotFoundError, RunFormatError
        The run cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from entropy_lab.writer import RunWriter
    >>> writer = RunWriter(tempfile.mkdtemp() + "/run", method={"name": "grpo", "params": {}})
    >>> with open_sinks([], writer.path) as sinks:
    ...     sinks.log(0, {"entropy": 0.5})
    """
    require_sinks(names)
    run = open_run(path)
    opened: dict[str, Sink] = {}
    with ExitStack() as failing:
        for name in dict.fromkeys(names):
            opened[name] = sink = _open(name, LoggedRun.of(run))
            failing.callback(sink.close, True)
        sinks = Sinks(opened)
        if opened:
            _hand_over(run, sinks)
        failing.pop_all()
    return sinks


def _open(name: str, run: LoggedRun) -> Sink:
    try:
        return _made(name, run)
    except EntropyLabError:
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise OutputError(f"log_to {name}", f"cannot be started ({said})", "", _HINTS.get(name, "")) from error


def _made(name: str, run: LoggedRun) -> Sink:
    module, kind = SINKS[name]
    make: Callable[[LoggedRun], Sink] = getattr(import_module(f"{__package__}.{module}"), kind)
    return make(run)


_HINTS: Final = {"wandb": "wandb login, or WANDB_MODE=offline"}


def _hand_over(run: Run, sinks: Sinks) -> None:
    """Log what is recorded already; a sink takes what it does not have."""
    validated: dict[int, dict[str, Any]] = {}
    for answers in run.evals():
        if answers.height:
            validated[answers["step"][0]] = accuracies(answers)
    for row in run.metrics().iter_rows(named=True):
        sinks.log(row["step"], row | validated.get(row["step"], {}))
