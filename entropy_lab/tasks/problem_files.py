"""Problem files: JSON lines or Parquet with a problem and its gold answer in each row."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from entropy_lab.errors import ProblemFileError
from entropy_lab.tasks.boxed import last_boxed, too_much
from entropy_lab.tasks.task import Problem

SUFFIXES: Final = (".jsonl", ".parquet")
PROBLEM: Final = ("problem", "question", "prompt")
ANSWER: Final = ("answer", "gold", "solution")
ID: Final = ("id", "unique_id", "problem_id")
_FORMATTING: Final = re.compile(r"\\(?:left|right|displaystyle)(?![a-zA-Z])|\\[,;:! ]|[\s${}]")
_AFTER_HASHES: Final = re.compile(r"####\s*(.+?)\s*\Z")


class Columns(NamedTuple):
    """Which columns of a file are used."""

    problem: str
    answer: str
    id: str | None
    """None: the id is made from the problem's text."""


@dataclass(frozen=True)
class ProblemFile:
    """The problems of a file, and what was left out of them.

    Examples
    --------
    >>> ProblemFile(Path("mine.jsonl"), Columns("problem", "answer", None), [], [3], {}, []).n_rows
    1
    """

    path: Path
    columns: Columns
    problems: list[Problem]
    """In the file's order, each with another text and id."""
    no_gold: list[int]
    """Lines (from 1; rows of a Parquet file) left out for want of a problem, or of a gold answer to give a verifier."""
    repeated: dict[int, int]
    """Line left out -> the earlier line with the same problem, by `wording`."""
    other_gold: list[int]
    """Those of the repeated lines whose gold answer is written in another way than the earlier line's."""

    @property
    def n_rows(self) -> int:
        """Rows of the file."""
        return len(self.problems) + len(self.no_gold) + len(self.repeated)


def wording(problem: str) -> str:
    r"""Reduce a problem to its wording, to find it again in another file.

    White space, dollar signs, braces, sizes of brackets and the case of letters are formatting; everything else counts.

    Parameters
    ----------
    problem
        Text of a problem.

    Returns
    -------
    str
        Equal for the same problem typed twice.

    Examples
    --------
    >>> wording(r"Find $x^{2}$ at  $x = 3$.") == wording(r"find $$x^2$$ at $x=3$.")
    True
    """
    return _FORMATTING.sub("", unicodedata.normalize("NFKC", problem)).casefold()


def read_problems(path: str | Path) -> ProblemFile:
    r"""Read a problem file.

    The columns are the first that are there of ``problem``, ``question``, ``prompt``; of ``answer``, ``gold``,
    ``solution``; and of ``id``, ``unique_id``, ``problem_id``, without which the id is a hash of the wording. Of a
    worked solution the gold answer is the last ``\boxed{}``, else what follows ``####``, else the text itself.

    Rows without a gold answer are left out, as are all but the first of the rows with the same wording.

    Parameters
    ----------
    path
        A file that ends in ``.jsonl`` or ``.parquet``.

    Returns
    -------
    ProblemFile
        With at least one problem.

    Raises
    ------
    ProblemFileError
        There is no such file, it is of another kind or broken, lacks a column, has a value of another type, repeats an
        id, or has no problem that can be used.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "mine.jsonl"
    >>> _ = file.write_text('{"id": 7, "question": "What is 2+2?", "solution": "It is \\\\boxed{4}."}')
    >>> read_problems(file).problems
    [Problem(id='7', prompt='What is 2+2?', answer='4')]
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        hint = "one JSON object in each line" if path.suffix == ".json" else ""
        raise ProblemFileError(str(path), "is no problem file", f"its name ends in {' or '.join(SUFFIXES)}", hint)
    if not path.is_file():
        raise ProblemFileError(str(path), "does not exist", "a .jsonl or .parquet file", "entropy-lab data")
    rows = _parquet_rows(path) if path.suffix == ".parquet" else _json_rows(path)
    first = next(rows, None)
    if first is None:
        raise ProblemFileError(str(path), "is empty", "one problem or more")
    columns = Columns(_column(path, first, PROBLEM), _column(path, first, ANSWER), _id_column(first))
    return _collected(path, columns, [first, *rows])


def shared(first: Sequence[Problem], second: Sequence[Problem]) -> list[tuple[Problem, Problem]]:
    """Find problems that two sets share, by their wording.

    Parameters
    ----------
    first, second
        Problems.

    Returns
    -------
    list of (Problem, Problem)
        Those of `first` with their counterparts in `second`.

    Examples
    --------
    >>> shared([Problem("a", "What is $2+2$?", "4")], [Problem("b", "What is $2 + 2$?", "4")])[0][1].id
    'b'
    """
    known = {wording(problem.prompt): problem for problem in second}
    return [(each, known[key]) for each in first if (key := wording(each.prompt)) in known]


def _collected(path: Path, columns: Columns, rows: Sequence[Mapping[str, Any]]) -> ProblemFile:
    file = ProblemFile(path, columns, [], [], {}, [])
    seen: dict[str, tuple[int, Problem]] = {}
    ids: dict[str, int] = {}
    for line, row in enumerate(rows, 1):
        prompt, answer = (_text(path, line, row, column) for column in columns[:2])
        gold = _gold(answer)
        key = wording(prompt)
        if not key or not gold or too_much(gold):
            file.no_gold.append(line)
            continue
        if key in seen:
            file.repeated[line] = seen[key][0]
            if gold != seen[key][1].answer:
                file.other_gold.append(line)
            continue
        name = _text(path, line, row, columns.id) if columns.id else ""
        name = name or hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        if name in ids:
            wrong = f"has the {columns.id} {name!r} of line {ids[name]}, which is another problem"
            raise ProblemFileError(f"{path}, line {line}", wrong, "an id of its own, or none")
        ids[name] = line
        seen[key] = line, Problem(name, prompt, gold)
        file.problems.append(seen[key][1])
    if not file.problems:
        raise ProblemFileError(str(path), f"has no gold answer in {file.n_rows} rows", f"in column {columns.answer}")
    return file


def _gold(answer: str) -> str:
    boxed = last_boxed(answer)
    if boxed is not None:
        return boxed.strip()
    after = _AFTER_HASHES.search(answer)
    return after[1] if after else answer.strip()


def _text(path: Path, line: int, row: Mapping[str, Any], column: str) -> str:
    value = row.get(column)
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    if value is None and column in row:
        return ""
    wrong = f"has {column} {str(value)[:40]!r} of type {type(value).__name__}" if column in row else f"has no {column}"
    raise ProblemFileError(f"{path}, line {line}", wrong, "a text or a number")


def _column(path: Path, row: Mapping[str, Any], names: Sequence[str]) -> str:
    for name in names:
        if name in row:
            return name
    found = ", ".join(map(str, row)) or "nothing"
    raise ProblemFileError(str(path), f"has no column {', '.join(names[:-1])} or {names[-1]}", f"it has {found}")


def _id_column(row: Mapping[str, Any]) -> str | None:
    return next((name for name in ID if name in row), None)


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (UnicodeDecodeError, OSError) as error:
        raise ProblemFileError(str(path), f"cannot be read ({error})", "a text file in UTF-8") from error
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            wrong = f"is no JSON ({error})"
            raise ProblemFileError(f"{path}, line {number}", wrong, "one JSON object in each line") from error
        if not isinstance(row, dict):
            wrong = f"is a JSON {type(row).__name__}"
            raise ProblemFileError(f"{path}, line {number}", wrong, "one JSON object in each line")
        yield row


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    import polars as pl

    try:
        names = pl.read_parquet_schema(path).keys()
        wanted: list[str] = [name for name in (*PROBLEM, *ANSWER, *ID) if name in names]
        # Without a column of ours the first row still has to say what there is.
        frame = pl.read_parquet(path, columns=wanted or None)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ProblemFileError(str(path), f"cannot be read ({reason})", "a Parquet file") from error
    yield from frame.iter_rows(named=True)
