"""Loading a Python file that is named by its path: a recipe, or a task of the user's own."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

from entropy_lab.errors import UnknownNameError


@cache
def load_file(path: Path, kind: str) -> ModuleType:
    """Load a Python file under a private module name, once.

    Parameters
    ----------
    path
        The file, as an absolute path.
    kind
        What it is, a part of the private name.

    Returns
    -------
    module
        The same object at every call; a file that raises is run again at the next one.

    Raises
    ------
    UnknownNameError
        The path is not that of a Python file.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "mine.py"
    >>> _ = file.write_text("answer = 42")
    >>> load_file(file, "example").answer
    42
    """
    # A private name: a researcher's own folder `analyses/` must neither shadow nor be shadowed.
    private = f"_entropy_lab_{kind}_{path.stem}_{abs(hash(path)):x}"
    spec = importlib.util.spec_from_file_location(private, path)
    if spec is None or spec.loader is None:
        raise UnknownNameError(str(path), "cannot be loaded", "a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[private] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[private]
        raise
    return module
