"""Importing a foreign directory whole or not at all, and not again while its files are as they were."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from entropy_lab.errors import OutputError, RunFormatError, UnknownNameError
from entropy_lab.files import cannot_write
from entropy_lab.readers.reader import Options, Reader, Sighting
from entropy_lab.readers.registry import recognised
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.tree import OWN_SUFFIX, Tree
from entropy_lab.run import Run, open_run
from entropy_lab.schema import METRICS, ROLLOUTS
from entropy_lab.writer import require_free

REVISION: Final = 2
"""Counts up when readers give other results: imports of an older revision are made again."""

_MOST_EVIDENCE: Final = 4

Say = Callable[[str], None]


def _nothing(_: str) -> None:
    pass


def is_ours(path: str | Path) -> bool:
    """Tell whether a directory is a run or a study of our own format, whole or damaged.

    Examples
    --------
    >>> is_ours("/nowhere")
    False
    """
    folder = Path(path)
    marks = ("run.json", "study.json", "rollouts/step-*.parquet", "runs/*/run.json")
    return any(True for mark in marks for _ in folder.glob(mark))


def open_any(
    path: str | Path,
    options: Options | None = None,
    *,
    out: str | Path | None = None,
    say: Say = _nothing,
) -> Run:
    """Open a run of any framework that has a reader; ours is opened where it is, others are imported first.

    Parameters
    ----------
    path
        A directory, or one log file.
    options
        What the user said about the source.
    out
        Where the import goes: a new directory, or an earlier import of the same source; default ``entropy-lab/`` inside
        the directory, or ``FILE.entropy-lab`` beside the file. Nothing is imported again while the source's files have
        the sizes and times they had, and the options are the same.
    say
        Takes lines for the user: what the source was taken for and why, and what was met.

    Returns
    -------
    Run
        Its ``info["imported"]`` says where it came from.

    Raises
    ------
    RunNotFoundError, RunFormatError, UnknownNameError, OutputError
        There is nothing, it cannot be read, or two formats claim it; the reader does not exist; the import cannot be
        written.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for step in (1, 2):
    ...     row = {"input": "1+1=", "output": "2", "score": 1.0, "step": step}
    ...     _ = (folder / f"{step}.jsonl").write_text(json.dumps(row) + chr(10))
    >>> run = open_any(folder)
    >>> run.info["imported"]["format"], run.scan().collect()["step"].to_list()
    ('verl', [0, 1])
    """
    options = options or Options()
    if options.format == OWN_SUFFIX or (is_ours(path) and options.format is None):
        return open_run(path, skip_invalid=options.skip_invalid)
    target = Path(out) if out is not None else default_target(Path(path))
    import_run(path, target, options, say=say)
    return open_run(target, skip_invalid=options.skip_invalid)


def default_target(path: Path) -> Path:
    """Name the place of an import that nobody named.

    Examples
    --------
    >>> default_target(Path("runs/a.log")).as_posix()
    'runs/a.log.entropy-lab'
    """
    return path / OWN_SUFFIX if path.is_dir() else path.with_name(f"{path.name}.{OWN_SUFFIX}")


def import_run(path: str | Path, out: str | Path, options: Options | None = None, *, say: Say = _nothing) -> Path:
    """Convert a foreign directory or file into a run; an interrupted import leaves no run.

    Parameters
    ----------
    path
        A directory, or one log file.
    out
        The run's directory: new, empty, or an earlier import, which is replaced when it is of other files or options.
    options, say
        As ``open_any``.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    RunNotFoundError, RunFormatError, UnknownNameError, OutputError
        As ``open_any``.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> row = {"input": "1+1=", "output": "2", "score": 1.0, "step": 1}
    >>> _ = (folder / "1.jsonl").write_text(json.dumps(row) + chr(10))
    >>> import_run(folder, folder / "out").name
    'out'
    """
    options, target = options or Options(), Path(out)
    _require_known(options)
    tree = Tree.of(path)
    reader, sighting = recognised(tree, options.format)
    say(f"{path}: taken for {reader.title}: {_spoken(sighting.evidence)}")
    before = fingerprint(tree, options, reader)
    known = _known(target)
    if known is None:
        require_free(target)
    elif known.get("fingerprint") == before:
        say(f"{target}: imported before, and the source has not changed since")
        _tell(known, say)
        return target
    imported = _import(tree, reader, sighting, options, target, before)
    if fingerprint(Tree.of(path), options, reader) != before:
        say(f"warning: {path}: files changed while they were read; run again to read the newest")
    say(f"{target}: {imported['rows']:,} rows imported")
    _tell(imported, say)
    return target


def _require_known(options: Options) -> None:
    for ours in options.columns:
        if ours not in ROLLOUTS and ours not in METRICS:
            close = get_close_matches(ours, [*ROLLOUTS, *METRICS], n=1)
            hint = f"--map {close[0]}={options.columns[ours]}" if close else "docs/run-format.md lists our columns"
            raise UnknownNameError(f"--map {ours}=…", "is no column of ours", "OURS=THEIRS", hint)


def _spoken(evidence: Sequence[str]) -> str:
    left = len(evidence) - _MOST_EVIDENCE
    return "; ".join([*evidence[:_MOST_EVIDENCE], *([f"and {left:,} more files"] if left > 0 else [])])


def fingerprint(tree: Tree, options: Options, reader: Reader) -> str:
    """Condense what decides an import: names, sizes and times of the files, the options, the readers' revision."""
    state = [(tree.label(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in tree.files]
    text = json.dumps([REVISION, reader.name, asdict(options), state], sort_keys=True)
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _import(
    tree: Tree, reader: Reader, sighting: Sighting, options: Options, target: Path, state: str
) -> Mapping[str, Any]:
    # The process' number in the name tells a later import which leftovers nobody is writing any more.
    temporary = target.with_name(f".{target.name}.{os.getpid():08x}.tmp")
    _sweep(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        sink = Sink(temporary, reader.name, options, reader.step_offset)
        sink.facts["name"] = tree.path.resolve().name
        reader.convert(tree, sink)
        _require_something(temporary, tree, reader)
        imported = sink.finish(
            {
                "format": reader.name,
                "version": sighting.version,
                "evidence": list(sighting.evidence),
                "source": str(tree.path.resolve()),
                "files": len(tree.files),
                "fingerprint": state,
            },
            reader.how_to_record,
        )
        _replace(temporary, target)
    except OutputError as error:  # named by the place that the user knows
        raise OutputError(str(target), error.wrong, "", "choose a folder with --out DIR") from error
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return imported


def _require_something(folder: Path, tree: Tree, reader: Reader) -> None:
    if not any((folder / part).exists() for part in ("rollouts", "evals", "metrics.jsonl")):
        wrong = f"holds no rollout and no scalar of {reader.title}"
        raise RunFormatError(str(tree.path), wrong, "files with at least one row")


def _tell(imported: Mapping[str, Any], say: Say) -> None:
    for text in imported.get("notes", ()):
        say(f"note: {text}")


def _known(target: Path) -> Mapping[str, Any] | None:
    """Read what an earlier import of ours left at a place; None when there is no such import."""
    try:
        imported = json.loads((target / "run.json").read_text(encoding="utf-8")).get("imported")
    except (OSError, ValueError, AttributeError):
        return None
    return imported if isinstance(imported, dict) else None


def _sweep(target: Path) -> None:
    """Remove what killed imports to the same place left half-written."""
    for left in target.parent.glob(f".{target.name}.*.tmp"):
        number = left.name.split(".")[-2]
        if len(number) == 8 and not _alive(int(number, 16)):
            shutil.rmtree(left, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _replace(temporary: Path, target: Path) -> None:
    """Put a finished import in its place; an older one goes away in one step, with what was derived from it."""
    old = target.with_name(f".{target.name}.old.{os.getpid():08x}.tmp")
    if target.exists():
        target.rename(old)
    temporary.rename(target)
    shutil.rmtree(old, ignore_errors=True)
