"""A task's problems in the files that verl reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import polars as pl

from entropy_lab.errors import OutputError
from entropy_lab.rl.tokens import BOXED
from entropy_lab.tasks import Problem

TRAIN: Final = "train.parquet"
_HELD_OUT: Final = "held_out-"


def data_files(folder: Path) -> tuple[Path, list[Path]]:
    """Give the files of a folder that `write_data` filled: of training, and of the benchmarks, in their order."""
    return folder / TRAIN, sorted(folder.glob(f"{_HELD_OUT}*.parquet"))


def write_data(
    folder: Path, source: str, training: Sequence[Problem], held_out: Mapping[str, Sequence[Problem]], prompt: str
) -> None:
    """Write training problems and benchmarks, one Parquet file each.

    Parameters
    ----------
    folder
        Where; made when it is not there.
    source
        ``data_source`` of the training problems; a benchmark's is its name.
    training
        Problems to train on.
    held_out
        Benchmark -> its problems.
    prompt
        How a problem is asked: ``chat``, ``chat-boxed`` or ``system-boxed``, see `ChatTokens`.

    Raises
    ------
    OutputError
        The files cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_data(folder, "sums", [Problem("s1", "1+1", "2")], {"hard": [Problem("s2", "7+8", "15")]}, "chat")
    >>> train, [hard] = data_files(folder)
    >>> pl.read_parquet(hard)["reward_model"].to_list()
    [{'style': 'rule', 'ground_truth': '15'}]
    """
    files = {TRAIN: (source, training)}
    names = (f"{_HELD_OUT}{number:02d}-{name}.parquet" for number, name in enumerate(held_out))
    files |= dict(zip(names, held_out.items(), strict=True))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, (name, problems) in files.items():
            pl.DataFrame(list(rows(problems, name, prompt))).write_parquet(folder / file)
    except OSError as error:
        raise OutputError(str(folder), f"cannot be written ({error})", "another place") from error


def rows(problems: Sequence[Problem], source: str, prompt: str) -> Iterator[dict[str, Any]]:
    """Lay out problems as verl's data set has them; the instruction stands where `ChatTokens` puts it.

    Parameters
    ----------
    problems, source, prompt
        See `write_data`.

    Yields
    ------
    dict
        ``extra_info`` holds the problem's name and its text.

    Examples
    --------
    >>> [row] = rows([Problem("s1", "1+1", "2")], "sums", "system-boxed")
    >>> [message["role"] for message in row["prompt"]], row["extra_info"]
    (['system', 'user'], {'index': 0, 'problem': 's1', 'text': '1+1'})
    """
    for index, problem in enumerate(problems):
        user = f"{problem.prompt}\n{BOXED}" if prompt == "chat-boxed" else problem.prompt
        system = [{"role": "system", "content": BOXED}] if prompt == "system-boxed" else []
        yield {
            "prompt": [*system, {"role": "user", "content": user}],
            "data_source": source,
            "reward_model": {"style": "rule", "ground_truth": problem.answer},
            "extra_info": {"index": index, "problem": problem.id, "text": problem.prompt},
        }
