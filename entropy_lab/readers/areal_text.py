"""The texts in which AReaL's older releases dump rollouts: ``{version}/{query}.txt``, a coloured record a sample."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from entropy_lab.readers.records import Record
from entropy_lab.readers.scalars import as_number
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.tree import Tree, cannot_read

BEGIN: Final = b"idx: "
_COLOUR: Final = r"(?:\x1b\[\d+m)*"
_RECORD: Final = re.compile(
    r"^idx: (\d+)(?: / \d+)?, seqlen: (\d+), reward is ([^\n]+)\.\n"
    rf"prompt is \n{_COLOUR}(.*?)\x1b\[0m\nsequence is: \n{_COLOUR}(.*?)\x1b\[0m$",
    re.MULTILINE | re.DOTALL,
)
_WORDS: Final = {"True": 1.0, "False": 0.0}


def is_dump(tree: Tree, file: Path) -> bool:
    """Tell whether a file is such a text, by its first bytes."""
    return file.suffix == ".txt" and tree.head(file, 64).startswith(BEGIN)


def text_records(file: Path, label: str, sink: Sink) -> Iterator[Record]:
    r"""Yield the samples of a file under the keys that newer releases write; a last one that is cut off is left out.

    Parameters
    ----------
    file, label
        The text of one query, and how messages name it.
    sink
        Takes the warning.

    Raises
    ------
    RunFormatError
        The file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> from entropy_lab.readers.reader import Options
    >>> folder = Path(tempfile.mkdtemp())
    >>> head = "idx: 1 / 2, seqlen: 9, reward is 1.0.\n"
    >>> text = head + "prompt is \n\x1b[33m1+1=\x1b[0m\nsequence is: \n\x1b[33m2\x1b[0m\n"
    >>> _ = (folder / "q7.txt").write_text(text)
    >>> sample = next(text_records(folder / "q7.txt", "q7.txt", Sink(folder / "run", "areal", Options()))).values
    >>> sample["task_id"], sample["sample_idx"], sample["reward"], sample["completion"]
    ('q7', 0, 1.0, '2')
    """
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise cannot_read(label, error) from error
    end = 0
    for match in _RECORD.finditer(text):
        end = match.end()
        reward = _WORDS.get(match[3], as_number(match[3]))
        values = {
            "task_id": file.stem,
            "sample_idx": int(match[1]) - 1,
            "reward": reward,
            "total_tokens": int(match[2]),
        }
        yield Record(label, f"sample {match[1]}", {**values, "prompt": match[4], "completion": match[5]})
    if text.startswith("idx: ", end) or "\nidx: " in text[end:]:
        sink.warn(f"{label}: its last sample is cut off and left out")
