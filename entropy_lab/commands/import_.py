"""``entropy-lab import``: another framework's run as one of ours."""

from __future__ import annotations

from entropy_lab.cli import Import_
from entropy_lab.commands.opening import options_of, tell
from entropy_lab.commands.terminal import console
from entropy_lab.errors import OutputError
from entropy_lab.readers import import_run, is_ours
from entropy_lab.run import open_run


def run(command: Import_) -> None:
    """Import, and say what can be done with it."""
    if is_ours(command.run) and command.format is None:
        hint = f"entropy-lab analyze {command.run}"
        raise OutputError(str(command.run), "is of our own format already", "another framework's output", hint)
    import_run(command.run, command.out, options_of(command, skip_invalid=command.skip_invalid), say=tell)
    made = open_run(command.out)
    parts = [f"{len(made.step_files)} steps of rollouts", f"{len(made.eval_files)} validation passes"]
    parts.append(f"scalars of {made.metrics().height} steps")
    console().print(f"{command.out}: {', '.join(parts)}\nnext: entropy-lab analyze {command.out}", soft_wrap=True)
