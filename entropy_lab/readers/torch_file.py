"""Files of ``torch.save``, read as data: nothing but tensors and plain values is built, and tensors become arrays."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np

from entropy_lab.errors import MissingExtraError, RunFormatError

INSTALL: Final = "pip install 'entropy-lab[train]'"


def load_arrays(source: Path | BytesIO, label: str) -> Any:  # noqa: ANN401 - whatever was saved
    """Read a file of ``torch.save`` with ``weights_only=True``.

    Parameters
    ----------
    source
        The file, or its bytes.
    label
        How messages name it.

    Returns
    -------
    object
        Dictionaries, lists, texts and numbers as they are, tensors as numpy arrays (bfloat16 as float32).

    Raises
    ------
    MissingExtraError
        torch is not installed.
    RunFormatError
        The file is damaged, or holds something else than data.
    """
    try:
        import torch
    except ImportError as error:
        wrong = "is a file of torch, which is not installed"
        raise MissingExtraError(label, wrong, "the extra `train`", INSTALL) from error
    try:
        with torch.serialization.safe_globals(_array_parts()):
            return _as_arrays(torch.load(source, map_location="cpu", weights_only=True))
    except Exception as error:  # a damaged file raises whatever part of torch, zipfile or pickle meets it first
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        allowed = "tensors and plain values, as torch.save writes them; nothing else is unpickled"
        raise RunFormatError(label, f"cannot be read ({said[:160]})", allowed) from error


def _array_parts() -> list[Any]:
    """Name what numpy's own pickles of arrays and numbers are made of: these build data and nothing else."""
    from numpy._core import multiarray

    kinds = [type(np.dtype(code)) for code in "?bBhHiIlLqQefd"]
    old = [(getattr(multiarray, name), f"numpy.core.multiarray.{name}") for name in ("_reconstruct", "scalar")]
    return [multiarray._reconstruct, multiarray.scalar, *old, np.ndarray, np.dtype, *kinds]


def _as_arrays(value: object) -> object:
    import torch

    if isinstance(value, torch.Tensor):
        plain = value.detach().to_dense() if value.layout != torch.strided else value.detach()
        return (plain.float() if plain.dtype == torch.bfloat16 else plain).cpu().numpy()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: _as_arrays(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_as_arrays(part) for part in value]
    return value
