"""``entropy-lab copy``: a built-in recipe, study or preset as a file of the user's own."""

from __future__ import annotations

import sys
from typing import Final

from entropy_lab import recipes
from entropy_lab.cli import Copy
from entropy_lab.errors import UnknownNameError
from entropy_lab.presets.preset import PRESETS
from entropy_lab.studies.plan import STUDIES

_BUILT_IN: Final = {"studies": STUDIES, "presets": PRESETS}


def run(command: Copy) -> None:
    """Copy, and say how the copy is used."""
    kind, _, name = command.recipe.partition("/")
    _require_kind(command.recipe, kind, name)
    if kind in _BUILT_IN:
        file = recipes.copy_file(_BUILT_IN[kind].find(name), command.target)
    else:
        file = recipes.copy(command.recipe, command.target)
    path = file if file.is_absolute() else f"./{file}"
    use = {
        "analyses": f"entropy-lab analyze RUN {path}",
        "figures": f"entropy-lab figures STUDY {path}",
        "trainers": f"entropy-lab train {path} --out RUN",
        "studies": f"entropy-lab study {path} --out STUDY --dry-run",
        "presets": f"entropy-lab train grpo --preset {path} --out RUN",
    }[kind]
    sys.stdout.write(f"{file}\nuse it: {use}\n")


def _require_kind(recipe: str, kind: str, name: str) -> None:
    kinds = (*recipes.KINDS, *_BUILT_IN)
    if kind not in kinds or not name:
        meant = next((f"{each}/{recipe}" for each in recipes.KINDS if recipe in recipes.names(each)), "")
        hint = f"entropy-lab copy {meant}" if meant else "entropy-lab list"
        raise UnknownNameError(recipe, "is no recipe", f"KIND/NAME, KIND is one of {', '.join(kinds)}", hint)
