"""Logs of scalars whose framework nobody recognised: names of ours are taken at their word, others are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from entropy_lab.readers.log_kinds import LogFile
from entropy_lab.readers.logs import find_logs, of_run
from entropy_lab.readers.reader import Reader, Sighting
from entropy_lab.readers.scalars import deliver, join
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.tree import Tree
from entropy_lab.readers.trl_logs import spell
from entropy_lab.schema import METRICS

NAMES: Final = {name: name for name in METRICS if name != "step"} | {"learning_rate": "lr"}
_KINDS: Final = ("W&B", "trackio", "MLflow", "TensorBoard")
HOW: Final = {
    "rollouts": "the trainer's own dump of rollouts, or entropy_lab.Recorder in the training loop, records them",
}


def container(name: str, title: str, kind: str) -> Reader:
    """Make the reader of one kind of log.

    Parameters
    ----------
    name, title
        As of the reader.
    kind
        The kind of `find_logs`.

    Examples
    --------
    >>> container("tensorboard", "TensorBoard", "TensorBoard").generic
    True
    """

    def recognise(tree: Tree) -> Sighting | None:
        logs = find_logs(tree, (kind,))
        return Sighting(title, tuple(_described(log) for log in logs)) if logs else None

    def convert(tree: Tree, sink: Sink) -> None:
        others = [log.label for log in find_logs(tree, tuple(other for other in _KINDS if other != kind))]
        if others:
            sink.note(f"not read beside {title}: {', '.join(others[:5])}; --format names another kind of log")
        convert_logs(tree, find_logs(tree, (kind,)), sink)

    return Reader(name, title, recognise, convert, HOW, generic=True, step_offset=0)


def _described(log: LogFile) -> str:
    shown = sorted(log.names)[:3]
    return f"{log.label}: {', '.join(shown)}{', …' if len(log.names) > 3 else ''}"


def convert_logs(tree: Tree, logs: Sequence[LogFile], sink: Sink) -> None:
    """Join logs and write their scalars; a name of ours is taken to mean what ours means."""
    loaded = [log.load(sink) for log in of_run(logs, tree, sink.options.run_name)]
    rows = join(loaded, sink, spell)
    config = next((log.config for log in loaded if log.config), None)
    if config:
        sink.facts["config"] = config
    if rows:
        sink.note("the source's step s is our step s: nobody says from where this framework counts")
        names = _ours({name for row in rows.values() for name in row})
        if names:
            known = ", ".join(sorted(names))
            sink.note(f"taken at their word, by name: {known}; entropy_audit checks what `entropy` is")
        deliver(rows, names, sink, spell)


def _ours(given: set[str]) -> dict[str, str]:
    """Find names of ours; ``Grad Norm`` is ``grad_norm`` where no other column is."""
    exact = {name: NAMES[name] for name in given & NAMES.keys()}
    spelled = {name: name.strip().lower().replace(" ", "_") for name in sorted(given - exact.keys())}
    taken = list(exact.values()) + [NAMES.get(key) for key in spelled.values()]
    more = {name: NAMES[key] for name, key in spelled.items() if key in NAMES and taken.count(NAMES[key]) == 1}
    return exact | more
