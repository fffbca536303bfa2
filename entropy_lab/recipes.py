"""Finding and loading recipes: one-file trainers, analyses and figures, built in or the user's own.

A built-in recipe is what a researcher writes in a folder of their own: the same shape and no registration. It is found
by name in the installed package, or in the checkout; a user's own is named by its path.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from types import ModuleType
from typing import Final, Literal

from entropy_lab.errors import OutputError, ParameterError, UnknownNameError
from entropy_lab.files import replacing
from entropy_lab.loading import load_file

Kind = Literal["trainers", "analyses", "figures"]
KINDS: Final[tuple[Kind, ...]] = ("trainers", "analyses", "figures")
MAIN: Final = {"trainers": "main", "analyses": "analyze", "figures": "draw"}
"""The function that makes a file a recipe of its kind."""


def folder(kind: Kind) -> Path:
    """Give the folder of the built-in recipes: the wheel's copy, else the checkout's."""
    package = Path(__file__).parent
    installed = package / "_recipes" / kind
    return installed if installed.is_dir() else package.parent / kind


def names(kind: Kind) -> tuple[str, ...]:
    """List the built-in recipes of a kind.

    Examples
    --------
    >>> "covariance" in names("analyses")
    True
    """
    return tuple(sorted(path.stem for path in folder(kind).glob("*.py") if not path.stem.startswith("_")))


def find(kind: Kind, name: str) -> Path:
    """Find a recipe by name, or by path when it ends in ``.py``.

    Raises
    ------
    UnknownNameError
        There is none.

    Examples
    --------
    >>> find("analyses", "covariance").name
    'covariance.py'
    """
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise UnknownNameError(name, "does not exist", "the path of a recipe", f"entropy-lab copy {kind}/NAME .")
        return path
    if name not in names(kind):
        close = difflib.get_close_matches(name, names(kind), n=1)
        hint = f"did you mean {close[0]}?" if close else "a file of your own is named by its path, ./NAME.py"
        raise UnknownNameError(name, f"is not one of the {kind}", f"one of {', '.join(names(kind))}", hint)
    return folder(kind) / f"{name}.py"


def load(kind: Kind, name: str) -> ModuleType:
    """Load a recipe under a private module name, once.

    Raises
    ------
    UnknownNameError
        There is no such recipe.
    ParameterError
        The file lacks the function of its kind (``main``, ``analyze``, ``draw``).

    Examples
    --------
    >>> load("analyses", "covariance").NEEDS
    ('logp', 'n_tokens', 'advantage', 'correct')
    """
    path = find(kind, name).resolve()
    module = load_file(path, kind)
    if not callable(getattr(module, MAIN[kind], None)):
        raise ParameterError(
            str(path), f"has no function {MAIN[kind]}", f"one of the {kind} has", "see docs/recipes.md"
        )
    return module


def copy(recipe: str, target: Path) -> Path:
    """Copy a built-in recipe to the user, to edit and then name by its path.

    Parameters
    ----------
    recipe
        ``KIND/NAME``, as ``analyses/covariance``.
    target
        A folder, or the new file's path.

    Returns
    -------
    Path
        The new file.

    Raises
    ------
    UnknownNameError
        There is no such recipe.
    OutputError
        The file exists already or cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> copy("analyses/covariance", Path(tempfile.mkdtemp())).name
    'covariance.py'
    """
    kind, _, name = recipe.partition("/")
    name = name.removesuffix(".py")
    if kind not in KINDS or not name:
        raise UnknownNameError(recipe, "is no recipe", f"KIND/NAME, KIND is {', '.join(KINDS)}", "entropy-lab list")
    return copy_file(find(kind, name), target)


def copy_file(source: Path, target: Path) -> Path:
    """Copy a file to the user, over nothing.

    Parameters
    ----------
    source
        The file.
    target
        A folder, or the new file's path.

    Returns
    -------
    Path
        The new file.

    Raises
    ------
    OutputError
        The file exists already or cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> copy_file(find("figures", "figure1"), Path(tempfile.mkdtemp()) / "mine.py").name
    'mine.py'
    """
    file = target / source.name if target.is_dir() else target
    if file.exists():
        raise OutputError(str(file), "exists already", "a new file", "choose another name")
    with replacing(file) as temporary:
        temporary.write_bytes(source.read_bytes())
    return file
