"""``entropy-lab copy``: a built-in recipe as a file of the user's own."""

from __future__ import annotations

import sys

from entropy_lab import recipes
from entropy_lab.cli import Copy


def run(command: Copy) -> None:
    """Copy, and say how the copy is used."""
    file = recipes.copy(command.recipe, command.target)
    kind = command.recipe.partition("/")[0]
    path = file if file.is_absolute() else f"./{file}"
    use = {
        "analyses": f"entropy-lab analyze RUN {path}",
        "figures": f"entropy-lab figures STUDY {path}",
        "trainers": f"entropy-lab train {path} --out RUN",
    }[kind]
    sys.stdout.write(f"{file}\nuse it: {use}\n")
