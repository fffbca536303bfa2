"""``entropy-lab copy``: a built-in recipe, study or preset as a file of the user's own."""

from __future__ import annotations

import sys

from entropy_lab import recipes
from entropy_lab.cli import Copy
from entropy_lab.presets.preset import PRESETS
from entropy_lab.studies.plan import STUDIES


def run(command: Copy) -> None:
    """Copy, and say how the copy is used."""
    kind, _, name = command.recipe.partition("/")
    if kind in (built_in := {"studies": STUDIES, "presets": PRESETS}):
        file = recipes.copy_file(built_in[kind].find(name), command.target)
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
