"""Opening what a diagnosis is asked for, without leaving anything behind."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from entropy_lab.readers import Options, default_target, is_ours, open_any
from entropy_lab.run import Run


def _nothing(_: str) -> None:
    pass


@contextmanager
def opened(
    path: str | Path, options: Options | None = None, *, out: Path | None = None, say: Callable[[str], None] = _nothing
) -> Iterator[Run]:
    r"""Open a run of any framework; another framework's is imported for as long as it is looked at.

    Parameters
    ----------
    path
        A run of ours, or a directory or log file of another framework.
    options
        What the user said about it.
    out
        Keep the import here. An import that there is already beside the files is used.
    say
        Takes lines for the user.

    Yields
    ------
    Run
        The run.

    Raises
    ------
    RunNotFoundError, RunFormatError, UnknownNameError, OutputError
        As ``readers.open_any``.

    Examples
    --------
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "log.csv").write_text("step,entropy\n" + "".join(f"{i},0.5\n" for i in range(3)))
    >>> with opened(folder) as run:
    ...     run.metrics().height
    3
    >>> [file.name for file in folder.iterdir()]
    ['log.csv']
    """
    kept = default_target(Path(path))
    if out is not None or is_ours(path) or (kept / "run.json").exists():
        yield open_any(path, options, out=out, say=say)
    else:
        with tempfile.TemporaryDirectory() as folder:
            # Where the import is for these moments is no news.
            yield open_any(
                path, options, out=Path(folder) / "run", say=lambda line: None if folder in line else say(line)
            )
