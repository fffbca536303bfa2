"""Any causal language model of transformers, with its tokenizer: from a local directory, else from the hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from entropy_lab.errors import ParameterError, UnknownNameError
from entropy_lab.rl.precision import compute_in, device_of

_TOLERANCE: Final = 1e-3
"""Nats by which logits of two ways through the same float32 weights may differ."""


def load_pretrained(path: str, dtype: str = "float32", device: str = "auto") -> Any:  # noqa: ANN401 - one of many
    """Load a causal language model to be trained: float32 weights, no dropout.

    Parameters
    ----------
    path
        A local directory, else an id on the hub (with ``HF_HUB_OFFLINE=1``: in the local cache).
    dtype
        Type of its matrix products, see `precision.compute_in`.
    device
        ``auto`` (the first GPU where there is one), or a device of torch.

    Returns
    -------
    PreTrainedModel
        In evaluation mode.

    Raises
    ------
    UnknownNameError
        There is no such model, here or on the hub, or the hub cannot be reached.
    ParameterError
        Its logits are not a matrix product of its last hidden states, which `linear_logp_entropy` needs; or there is no
        such device.
    """
    config = load_config(path)
    with _named(path):
        model: Any = AutoModelForCausalLM.from_pretrained(path, config=config, dtype=torch.float32)
    model.to(device_named(device)).train(False)
    _require_plain_head(model, path)
    compute_in(model, dtype)
    return model


def load_config(path: str) -> Any:  # noqa: ANN401 - one of many
    """Load a model's configuration, without dropout: it would make two passes over the same tokens disagree.

    Parameters
    ----------
    path
        As in `load_pretrained`.

    Returns
    -------
    PreTrainedConfig
        Changed where it had dropout.

    Raises
    ------
    UnknownNameError
        There is none.
    """
    with _named(path):
        config = AutoConfig.from_pretrained(path)
    for name, value in vars(config).items():
        if isinstance(value, float) and value > 0 and "drop" in name:
            setattr(config, name, 0.0)
    return config


def load_tokenizer(path: str) -> Any:  # noqa: ANN401 - one of many
    """Load the tokenizer of a model.

    Parameters
    ----------
    path
        As in `load_pretrained`.

    Returns
    -------
    PreTrainedTokenizerBase
        With its chat template, where it has one.

    Raises
    ------
    UnknownNameError
        There is none.
    """
    with _named(path):
        return AutoTokenizer.from_pretrained(path)


def stop_ids_of(model: Any) -> tuple[int, ...]:  # noqa: ANN401
    """Tokens that end a response, by the model's generation settings: chat models have more than one.

    Parameters
    ----------
    model
        From `load_pretrained`.

    Returns
    -------
    tuple of int
        Empty when nothing says.
    """
    settings = getattr(model, "generation_config", None)
    ids = getattr(settings, "eos_token_id", None)
    if ids is None:
        ids = getattr(model.config, "eos_token_id", None)
    return () if ids is None else tuple(ids) if isinstance(ids, list | tuple) else (ids,)


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Turn what transformers raises about a path into one line."""
    try:
        yield
    except (OSError, ValueError) as error:
        local = Path(path).is_dir()
        first = str(error).strip().partition("\n")[0]
        allowed = "a model and tokenizer saved by save_pretrained" if local else "a local directory or a hub id"
        hint = "" if local else f"hf download {path} --local-dir DIR, where there is a network"
        raise UnknownNameError(f"model.path {path}", f"cannot be loaded ({first})", allowed, hint) from error


def device_named(name: str) -> torch.device:
    """Give the device of a name.

    Parameters
    ----------
    name
        ``auto`` (the first GPU where there is one), or a device of torch.

    Returns
    -------
    torch.device
        One that is here.

    Raises
    ------
    ParameterError
        There is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ParameterError("model.device", f"is {name!r}, which is not here", "auto, cpu, cuda, …") from error
    return device


@torch.no_grad()
def _require_plain_head(model: Any, path: str) -> None:  # noqa: ANN401
    """Refuse models that do something to the logits: their log-probabilities would be silently wrong."""
    head = model.get_output_embeddings()
    ids_BS = torch.arange(8, device=device_of(model))[None] % model.config.vocab_size
    if isinstance(head, nn.Linear):
        logits_BSV = head(model.base_model(input_ids=ids_BS, use_cache=False).last_hidden_state)
        whole_BSV = model(input_ids=ids_BS, use_cache=False).logits
        if logits_BSV.shape == whole_BSV.shape and torch.allclose(logits_BSV, whole_BSV, atol=_TOLERANCE):
            return
    wrong = f"is a {type(model).__name__}, whose logits are not its output matrix times its last hidden states"
    raise ParameterError(
        f"model.path {path}", wrong, "models with a plain output layer: Qwen, Llama, Mistral, GPT-2, …"
    )
