"""``entropy-lab train``: hand the words of the command line to a trainer's own configuration."""

from __future__ import annotations

from entropy_lab.studies.command_line import from_command_line
from entropy_lab.studies.settings import load_trainer


def run(trainer: str, words: list[str]) -> None:
    """Load a trainer, fill its ``Config`` from the command line and call its ``main``.

    Parameters
    ----------
    trainer
        Name or path of a recipe.
    words
        What followed the name.

    Raises
    ------
    MissingExtraError
        The trainer needs torch or transformers, and they are not installed.
    UnknownNameError, ParameterError
        There is no such preset, or it does not fit the trainer.
    """
    module = load_trainer(trainer)
    first = (module.__doc__ or "").partition("\n\n")[0]
    module.main(from_command_line(module.Config, words, prog=f"entropy-lab train {trainer}", about=first))
