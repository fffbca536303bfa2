"""The scalars of one framework, in whichever log it kept them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from entropy_lab.readers.log_kinds import LogFile
from entropy_lab.readers.logs import find_logs, of_dialect
from entropy_lab.readers.reader import Sighting
from entropy_lab.readers.scalars import Dialect, Log, Scalars, join
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.tree import Tree


def spoken_logs(tree: Tree, dialect: Dialect) -> list[LogFile]:
    """Find the logs of a framework, by the names of their scalars."""
    return [log for log in find_logs(tree) if dialect.spoken(log.names)]


def sighting(
    evidence: Sequence[str], versions: Sequence[str], logs: Sequence[LogFile], dialect: Dialect
) -> Sighting | None:
    """Put together what gave a framework away; None for nothing.

    Parameters
    ----------
    evidence, versions
        Of its own files, as in `Sighting`; a version that stands several times is named once.
    logs
        Logs in its dialect.
    dialect
        Names what gave the logs away.

    Examples
    --------
    >>> log = LogFile("run.log", "console log", frozenset({"actor/lr", "x"}), "", lambda _: Log("run.log", "text"))
    >>> sighting(["1.jsonl: input, output"], ["dump"], [log], Dialect(frozenset({"actor/lr"}), {}))
    Sighting(version='dump, console log', evidence=('1.jsonl: input, output', 'run.log: console log with actor/lr'))
    """
    said = [f"{log.label}: {log.kind} with {', '.join(dialect.spoken(log.names)[:3])}" for log in logs]
    kinds = dict.fromkeys([*versions, *(log.kind for log in logs)])
    return Sighting(", ".join(kinds), (*evidence, *said)) if evidence or said else None


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
