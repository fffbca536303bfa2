"""The scalars of one framework, in whichever log it kept them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from entropy_lab.readers.log_kinds import LogFile
from entropy_lab.readers.logs import find_logs, of_dialect
from entropy_lab.readers.scalars import Dialect, Log, Scalars, join
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.tree import Tree


def spoken_logs(tree: Tree, dialect: Dialect) -> list[LogFile]:
    """Find the logs of a framework, by the names of their scalars."""
    return [log for log in find_logs(tree) if dialect.spoken(log.names)]


def described(logs: Sequence[LogFile], dialect: Dialect) -> list[str]:
    """Say of each log what gave the framework away."""
    return [f"{log.label}: {log.kind} with {', '.join(dialect.spoken(log.names)[:3])}" for log in logs]


def read_scalars(
    tree: Tree, sink: Sink, dialect: Dialect, more: Sequence[Log] = ()
) -> tuple[Scalars, Mapping[str, Any]]:
    """Join the logs of a framework's run.

    Parameters
    ----------
    tree, sink
        Files, and who takes notes.
    dialect
        The framework's.
    more
        Logs of kinds that only this framework writes, more exact than the others.

    Returns
    -------
    tuple of (dict, dict)
        The source's step -> name -> value; the settings that a log holds.
    """
    logs = of_dialect(find_logs(tree), dialect, tree, sink.options.run_name)
    known = {log.label for log in more}
    loaded = [*more, *(log.load(sink) for log in logs if log.label not in known)]
    settings = next((log.config for log in loaded if log.config), {})
    return join(loaded, sink, dialect.spell), settings
