"""Writing files whole or not at all, and values that files can hold."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from entropy_lab.errors import OutputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it to ``path`` on success, remove it on failure.

    A reader therefore never sees half a file, and a failure leaves what was there. Missing folders are made.

    Parameters
    ----------
    path
        The file to make or replace.

    Yields
    ------
    Path
        The temporary path to write to, in the same folder (a rename within one file system is atomic).

    Raises
    ------
    OutputError
        The operating system refuses: read-only folder, full disk, a file where a folder should be.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "new" / "text"
    >>> with replacing(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text(), [p.name for p in target.parent.iterdir()]
    ('whole', ['text'])
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    if _marked_read_only(path):
        raise cannot_write(path, PermissionError(errno.EACCES, "the folder is read-only"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OutputError:
        raise
    except OSError as error:
        raise cannot_write(path, error) from error
    except Exception as error:
        if (refused := _told_in_words(error)) is None:
            raise
        raise cannot_write(path, refused) from error
    finally:
        if temporary.exists():
            temporary.unlink()


def leftovers(folder: Path) -> list[Path]:
    """Find the temporary files of `replacing` in a folder: with nobody writing there, a killed process left them.

    Parameters
    ----------
    folder
        It need not exist.

    Returns
    -------
    list of Path
        By name.

    Examples
    --------
    >>> leftovers(Path("/nowhere"))
    []
    """
    return sorted(path for path in folder.glob(".*.tmp") if re.fullmatch(r"\..+\.[0-9a-f]{8}\.tmp", path.name))


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, which the system lets go of when the process ends, however it ends.

    Parameters
    ----------
    folder
        Made when missing; the lock is its file ``.lock``.

    Raises
    ------
    OutputError
        Another process holds it, or the folder cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with alone(folder), alone(folder):  # doctest: +ELLIPSIS
    ...     pass
    Traceback (most recent call last):
    entropy_lab.errors.OutputError: ...: is being made by another process; one at a time
    """
    from filelock import FileLock, Timeout  # of the extra `train`: reading and analysing do without

    lock = FileLock(folder / ".lock", blocking=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise OutputError(str(folder), "is being made by another process", "one at a time") from error
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        yield
    finally:
        lock.release()


def _marked_read_only(path: Path) -> bool:
    """Tell whether nobody may write to the nearest folder that exists: root could, against its owner's wish."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    return not folder.stat().st_mode & 0o222


def _told_in_words(error: Exception) -> OSError | None:
    """Find the system's refusal in another error's text: libraries in Rust (polars, safetensors) raise their own."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found else None


def cannot_write(path: Path, error: OSError) -> OutputError:
    """Word the error of a path that the operating system refuses to write."""
    return OutputError(
        str(path), f"cannot be written ({error.strerror or error})", "", "choose a folder with --out DIR"
    )
