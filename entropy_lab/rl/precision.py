"""In which type a model multiplies: float32, or bfloat16 with its weights, sums and losses still in float32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Final

import torch
from torch import nn

from entropy_lab.errors import ParameterError

DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def compute_in(model: nn.Module, dtype: str) -> None:
    """Choose the type of a model's matrix products, here and in every function of this package.

    The weights stay float32: an update with a learning rate of 1e-6 is below what bfloat16 weights can hold.

    Parameters
    ----------
    model
        Changed in place.
    dtype
        One of `DTYPES`.

    Raises
    ------
    ParameterError
        When there is no such type.

    Examples
    --------
    >>> layer = nn.Linear(2, 2)
    >>> compute_in(layer, "bfloat16")
    >>> with autocast(layer):
    ...     layer(torch.ones(1, 2)).dtype, layer.weight.dtype
    (torch.bfloat16, torch.float32)
    """
    if dtype not in DTYPES:
        raise ParameterError("model.dtype", f"is {dtype!r}", f"one of {', '.join(DTYPES)}")
    model.compute_dtype = DTYPES[dtype]  # type: ignore[assignment]  # nn.Module takes any attribute


def compute_dtype(model: nn.Module) -> torch.dtype:
    """Type of a model's matrix products.

    Parameters
    ----------
    model
        Any; one that was never given to `compute_in` has float32.
    """
    dtype: torch.dtype = getattr(model, "compute_dtype", torch.float32)
    return dtype


def device_of(model: nn.Module) -> torch.device:
    """Where a model's weights are.

    Parameters
    ----------
    model
        All of it on one device.
    """
    return next(model.parameters()).device


def autocast(model: nn.Module) -> AbstractContextManager[object]:
    """Give a context in which a model multiplies in its type.

    Parameters
    ----------
    model
        Forward passes belong inside, backward passes and optimizer steps outside: casts are kept within the context.
    """
    dtype = compute_dtype(model)
    return nullcontext() if dtype == torch.float32 else torch.autocast(device_of(model).type, dtype=dtype)
