"""Where verl's dumps of rollouts and validation answers lie, and which of the two a folder holds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from entropy_lab.readers.settings import look_up
from entropy_lab.readers.step_folders import home
from entropy_lab.readers.tree import Tree

KEYS: Final = frozenset({"input", "output", "score"})
"""What every row has."""

_NUMBERED: Final = re.compile(r"\d+\.jsonl")
_NAMED_STEP: Final = re.compile(r".*step[_-]?(\d+)\.jsonl", re.IGNORECASE)
_STEP_FOLDER: Final = re.compile(r"(?:global_?)?step[_-]?(\d+)", re.IGNORECASE)
_TRAINING_NAME: Final = re.compile(r"(^|[_-])(train|training|rollouts?)([_-]|$)")
_VALIDATION_PARENTS: Final = frozenset({"val", "valid", "validation", "eval"})
_VALIDATION_NAME: Final = re.compile(r"(^|[_-])(val|valid|validation|eval)([_-]|$)|(^|[_-])test$")


@dataclass(frozen=True)
class Dump:
    """The dump files of one folder.

    Parameters
    ----------
    folder
        As its owner would name it.
    files
        Sorted by name.
    steps
        Step -> file, of files that are named by their step; empty where the rows say it.
    keys
        Of the first row.
    validation
        Why the files hold answers of validation passes; empty when they hold training rollouts.
    """

    folder: str
    files: tuple[Path, ...]
    steps: Mapping[int, Path]
    keys: tuple[str, ...]
    validation: str

    @property
    def version(self) -> str:
        """Which trainer and releases write these keys."""
        if self.validation:
            return "validation dump"
        if "uid" in self.keys:
            return "V1 rollout dump"
        return "V0 rollout dump (0.6 and later)" if "gts" in self.keys else "V0 rollout dump (0.4, 0.5)"

    @property
    def evidence(self) -> str:
        """What gave it away."""
        more = f" and {len(self.files) - 1:,} more" if self.files[1:] else ""
        name = self.files[0].name if self.folder in ("", ".") else f"{self.folder}/{self.files[0].name}"
        return f"{name}{more}: {', '.join(self.keys)}"


def find_dumps(tree: Tree, settings: Mapping[str, Any] | None = None) -> list[Dump]:
    """Find the folders of dump files, by the first line of one file each.

    Validation is told by ``trainer.validation_data_dir``, by the key ``reward``, which only validation writes, by a
    pass before training (``0.jsonl``) or by the folder's name.
    """
    folders: dict[Path, list[Path]] = {}
    for file in tree.having(lambda file: file.suffix == ".jsonl"):
        folders.setdefault(_folder_of(file), []).append(file)
    dumps = []
    for folder, files in folders.items():
        numbered = [file for file in files if _NUMBERED.fullmatch(file.name)]
        # Of a folder of numbered files, one that has a row is looked at; others are looked at each.
        first = next((row for file in numbered if (row := tree.first_object(file))), None)
        kept = numbered if first is not None and first.keys() >= KEYS else []
        steps = {int(file.stem): file for file in kept}
        for file in files:
            row = None if _NUMBERED.fullmatch(file.name) else tree.first_object(file)
            if row is None or not row.keys() >= KEYS:
                continue
            named = _STEP_FOLDER.fullmatch(file.parent.name) if file.parent != folder else None
            if "step" not in row:
                named = named or _NAMED_STEP.fullmatch(file.name)
            if named and int(named[1]) not in steps:
                steps[int(named[1])] = file
            elif "step" not in row:
                continue
            first, kept = first or row, [*kept, file]
        if kept and first is not None:
            label = "." if folder == tree.path or tree.path.is_file() else tree.label(folder)
            why = _why_validation(folder, steps, first, settings or {})
            dumps.append(Dump(label, tuple(kept), dict(sorted(steps.items())), tuple(first), why))
    return dumps


def _folder_of(file: Path) -> Path:
    """Give a dump's folder; a folder named by a step, with files of any other name, is only a part of it."""
    own = _STEP_FOLDER.fullmatch(file.parent.name) and not _NUMBERED.fullmatch(file.name)
    return file.parent.parent if own else file.parent


def _why_validation(
    folder: Path, steps: Mapping[int, Path], first: Mapping[str, Any], settings: Mapping[str, Any]
) -> str:
    """Say why a folder holds validation answers; empty when it holds training rollouts."""
    for setting, verdict in (("trainer.validation_data_dir", True), ("trainer.rollout_data_dir", False)):
        named = look_up(settings, setting)
        if isinstance(named, str) and Path(named).name == folder.name:
            return f"it is {setting}" if verdict else ""
    place = home(folder / "file")
    named = bool(_VALIDATION_NAME.search(place.name.lower()) or place.parent.name.lower() in _VALIDATION_PARENTS)
    # Trainers of one's own may write the key in training, too, or count training from 0; hardly both.
    is_training = bool(_TRAINING_NAME.search(place.name.lower())) and not named
    if "reward" in first and (0 in steps or not is_training):
        return "it has the key reward, which only validation writes"
    if 0 in steps and not is_training:
        return "it has a pass before training"
    return "its name says so" if named else ""
