"""Files of one step each, in one folder or in those of a run that was started again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from entropy_lab.errors import RunFormatError
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.tree import Tree, natural

What = TypeVar("What")


def one_run(folders: Mapping[Path, Mapping[int, What]], tree: Tree, sink: Sink) -> dict[int, What]:
    """Join the folders of one run: a later start goes on where it was left, and counts from its first step on.

    Parameters
    ----------
    folders
        Folder -> the source's step -> its file or files.
    tree, sink
        Name the folders, and take notes.

    Returns
    -------
    dict
        Step -> file or files, by step.

    Raises
    ------
    RunFormatError
        Two folders begin at the same step: they are of several runs.

    Examples
    --------
    >>> import tempfile
    >>> from entropy_lab.readers.reader import Options
    >>> root = Path(tempfile.mkdtemp())
    >>> folders = {root / "exp_001": {1: "a1", 2: "a2"}, root / "exp_002": {2: "b2", 3: "b3"}}
    >>> sink = Sink(root / "run", "nemo_rl", Options())
    >>> one_run(folders, Tree(root, ()), sink)
    {1: 'a1', 2: 'b2', 3: 'b3'}
    """
    parts = sorted(((path, steps) for path, steps in folders.items() if steps), key=lambda part: natural(part[0]))
    parts.sort(key=lambda part: min(part[1]))
    joined: dict[int, What] = {}
    before: Path | None = None
    for folder, steps in parts:
        first = min(steps)
        if before is not None:
            names = f"{tree.label(before)} and {tree.label(folder)}"
            if first == min(joined):
                wrong = f"holds {names}, which both begin at step {first}: several runs"
                raise RunFormatError(str(tree.path), wrong, "one run", f"entropy-lab analyze {before}")
            sink.note(
                f"{tree.label(folder)} goes on where {tree.label(before)} was left: it counts from step {first} on"
            )
        joined = {step: what for step, what in joined.items() if step < first} | dict(steps)
        before = folder
    return dict(sorted(joined.items()))


def by_folder(files: Iterable[tuple[int, Path]]) -> dict[Path, dict[int, Path]]:
    """Sort files into their folders, with the step that each is of.

    Examples
    --------
    >>> by_folder([(1, Path("a/1.pt")), (2, Path("a/2.pt"))])[Path("a")][2].name
    '2.pt'
    """
    folders: dict[Path, dict[int, Path]] = {}
    for step, file in files:
        folders.setdefault(file.parent, {})[step] = file
    return folders


def home(file: Path) -> Path:
    """Give the folder of a file, with a name also where the path begins there.

    Examples
    --------
    >>> home(Path("step_1/rank_0.jsonl")).name, home(Path("rank_0.jsonl")) == Path.cwd()
    ('step_1', True)
    """
    return file.parent if file.parent.name not in ("", "..") else file.resolve().parent
