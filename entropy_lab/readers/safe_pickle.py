"""Pickles of arrays, read as data: the stack machine runs, but no name of a file is ever imported or called.

The pickle of a batch names a handful of classes and functions. Each of those names gets a stand-in of ours, which keeps
what it is given; any other name refuses the file. Python's decoder in C is not used: a damaged file can make it take
memory without bound.
"""

from __future__ import annotations

import pickle
from io import BytesIO
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from entropy_lab.errors import RunFormatError
from entropy_lab.readers.torch_file import load_arrays
from entropy_lab.readers.tree import cannot_read

DTYPES: Final = frozenset({"bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"})


class Kept:
    """What a pickled object was made of: its arguments and its state."""

    arguments: tuple[Any, ...] = ()
    state: Any = None

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        """Take an item of a pickled dictionary; the state has it again."""


class _Reader(pickle._Unpickler):
    def __init__(self, content: bytes, allowed: frozenset[str]) -> None:
        super().__init__(BytesIO(content))
        self.allowed = allowed

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - a class of ours
        if name not in self.allowed:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return Kept

    def persistent_load(self, pid: object) -> NoReturn:
        raise pickle.UnpicklingError("it refers to data outside the file")


def load_kept(file: Path, label: str, allowed: frozenset[str]) -> Any:  # noqa: ANN401 - whatever was pickled
    """Read a pickle in which only some names may stand.

    Parameters
    ----------
    file, label
        The file, and how messages name it.
    allowed
        Names of the classes and functions that the framework's own pickles use.

    Returns
    -------
    object
        Plain values as they are, and `Kept` for every object.

    Raises
    ------
    RunFormatError
        The file is damaged, or names anything else.

    Examples
    --------
    >>> import collections, tempfile
    >>> file = Path(tempfile.mkdtemp()) / "a.pkl"
    >>> _ = file.write_bytes(pickle.dumps({"a": collections.OrderedDict(b=1)}))
    >>> load_kept(file, "a.pkl", frozenset({"OrderedDict"}))["a"].arguments
    ()
    >>> load_kept(file, "a.pkl", frozenset())  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    entropy_lab.errors.RunFormatError: a.pkl: is refused: it names collections.OrderedDict; a pickle of arrays; ...
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise cannot_read(label, error) from error
    try:
        return _Reader(content, allowed).load()
    except Exception as error:  # a damaged pickle raises whatever its stack machine meets
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        rule = "a pickle of arrays; nothing else is unpickled"
        raise RunFormatError(label, f"is refused: {said[:160]}", rule) from error


def as_array(value: object, label: str, name: str) -> NDArray[Any] | None:
    """Make an array of how SkyRL pickles a tensor: its bytes with shape and dtype, or a file of torch for other dtypes.

    Parameters
    ----------
    value
        ``{"data": bytes, "shape": …, "dtype": …}``, or ``{"format": "torch", "data": bytes}``; of older releases the
        bytes of a file of torch; None is none.
    label, name
        Name the file and the field in messages.

    Returns
    -------
    ndarray or None
        None for what is no such tensor, as lists of images.

    Raises
    ------
    RunFormatError
        Bytes, shape and dtype do not fit.

    Examples
    --------
    >>> as_array({"data": np.arange(2.0).tobytes(), "shape": (1, 2), "dtype": "float64"}, "a.pkl", "x").tolist()
    [[0.0, 1.0]]
    """
    if isinstance(value, bytes):
        value = {"format": "torch", "data": value}
    if not isinstance(value, dict) or not isinstance(data := value.get("data"), bytes):
        return None
    if value.get("format") == "torch":
        loaded = load_arrays(BytesIO(data), f"{label}: {name}")
        return loaded if isinstance(loaded, np.ndarray) else None
    dtype, shape = value.get("dtype"), value.get("shape")
    if dtype not in DTYPES or not isinstance(shape, tuple | list) or not all(type(size) is int for size in shape):
        raise RunFormatError(label, f"has {name} of dtype {str(dtype)[:20]} and shape {str(shape)[:40]}", "an array")
    try:
        return np.frombuffer(data, dtype=np.dtype(dtype)).reshape(tuple(shape))
    except ValueError as error:
        raise RunFormatError(label, f"has {name} that does not fit its shape ({error})", "a whole array") from error
