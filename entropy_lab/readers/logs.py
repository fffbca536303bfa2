"""The logs of scalars in a directory, whatever wrote them, and those of one run among them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from entropy_lab.errors import RunFormatError
from entropy_lab.readers.log_kinds import FINDERS, LogFile
from entropy_lab.readers.scalars import Dialect
from entropy_lab.readers.tree import Tree, cannot_read


def find_logs(tree: Tree, kinds: Iterable[str] = ()) -> tuple[LogFile, ...]:
    """Find the logs of a directory, the most exact kind first.

    Parameters
    ----------
    tree
        The directory's files.
    kinds
        Only these; default all.

    Raises
    ------
    RunFormatError
        A file that must be a log cannot be read.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "run.log"
    >>> _ = file.write_text("(TaskRunner pid=7) step:1 - actor/entropy:np.float64(0.5) - actor/lr:1e-6")
    >>> log = find_logs(Tree.of(file))[0]
    >>> log.kind, sorted(log.names)
    ('console log', ['actor/entropy', 'actor/lr'])
    """
    wanted = tuple(kinds) or tuple(FINDERS)
    return tuple(log for kind in wanted for log in _found(tree, kind))


def _found(tree: Tree, kind: str) -> list[LogFile]:
    if kind not in tree.memory:
        found: list[LogFile] = []
        for file in tree.files:
            try:
                found += FINDERS[kind](tree, file)
            except OSError as error:
                raise cannot_read(tree.label(file), error) from error
        tree.memory[kind] = found
    known: list[LogFile] = tree.memory[kind]
    return known


def of_dialect(logs: Sequence[LogFile], dialect: Dialect, tree: Tree, run_name: str | None) -> tuple[LogFile, ...]:
    """Keep the logs of one framework, and of one run where a log names its run.

    Raises
    ------
    RunFormatError
        As ``of_run``.
    """
    return of_run([log for log in logs if dialect.spoken(log.names)], tree, run_name)


def of_run(logs: Iterable[LogFile], tree: Tree, run_name: str | None) -> tuple[LogFile, ...]:
    """Keep the logs of one run, and those that do not name theirs.

    Parameters
    ----------
    logs
        Some of the tree's.
    tree
        Names the place in messages.
    run_name
        The run that the user named; None for the only one.

    Raises
    ------
    RunFormatError
        A database holds several runs and the user named none of them; with their names.
    """
    kept = tuple(log for log in logs if run_name is None or log.run_name in (run_name, ""))
    databases: dict[str, list[str]] = {}
    for log in kept:
        if log.kind in ("trackio", "MLflow"):
            databases.setdefault(log.label.split(":")[0], []).append(log.run_name)
    for label, names in databases.items():
        if len(names) > 1:
            shown = ", ".join(names[:8]) + (", …" if names[8:] else "")
            hint = f"--run-name {names[-1]}"
            raise RunFormatError(f"{tree.path}: {label}", f"holds {len(names)} runs: {shown}", "one run", hint)
    return kept
