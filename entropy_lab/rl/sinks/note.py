"""What a sink must know to go on with a run: a small file in the run's directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from entropy_lab.errors import RunFormatError
from entropy_lab.files import replacing

FILE: Final = "sinks.json"


def read_note(run: Path, sink: str) -> dict[str, Any]:
    """Read what a sink wrote down.

    Parameters
    ----------
    run
        Directory of the run.
    sink
        Name of the sink.

    Returns
    -------
    dict
        Empty when it wrote nothing.

    Raises
    ------
    RunFormatError
        The file cannot be read.

    Examples
    --------
    >>> read_note(Path("/nowhere"), "wandb")
    {}
    """
    note: dict[str, Any] = _read(run / FILE).get(sink, {})
    return note


def write_note(run: Path, sink: str, note: dict[str, Any]) -> None:
    """Write down what a sink must know, whole or not at all; notes of other sinks stay.

    Parameters
    ----------
    run
        Directory of the run.
    sink
        Name of the sink.
    note
        JSON values.

    Raises
    ------
    OutputError
        It cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> run = Path(tempfile.mkdtemp())
    >>> write_note(run, "wandb", {"id": "a1"})
    >>> write_note(run, "trackio", {"name": "run"})
    >>> read_note(run, "wandb")
    {'id': 'a1'}
    """
    notes = {**_read(run / FILE), sink: note}
    with replacing(run / FILE) as temporary:
        temporary.write_text(json.dumps(notes, indent=1) + "\n", encoding="utf-8")


def _read(file: Path) -> dict[str, Any]:
    try:
        notes = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    except (OSError, ValueError) as error:
        raise RunFormatError(
            str(file), f"cannot be read ({error})", "JSON", "remove it: sinks then begin anew"
        ) from error
    if not (isinstance(notes, dict) and all(isinstance(note, dict) for note in notes.values())):
        raise RunFormatError(str(file), "is not an object of objects", "", "remove it: sinks then begin anew")
    return notes
