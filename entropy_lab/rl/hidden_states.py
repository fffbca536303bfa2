"""Hidden states that predict response tokens; the prompt of several responses is read once for all of them."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from entropy_lab.rl.micro_batches import prompts_apart
from entropy_lab.rl.precision import autocast
from entropy_lab.rl.sequences import Sequences


def shares_prompts(model: nn.Module) -> bool:
    """Say whether a model's responses can be read after a prompt that was read apart, with gradients.

    Not while activations are recomputed (gradient checkpointing keeps no keys and values), and not with other layers
    than full attention: a window or a recurrent state that was read apart is not cut the same way.

    Parameters
    ----------
    model
        Causal language model of transformers.

    Examples
    --------
    >>> from entropy_lab.rl.model import ModelSizes, build_model
    >>> shares_prompts(build_model(ModelSizes(), vocabulary_size=20, seed=0))
    True
    """
    causal: Any = model
    if causal.training and any(getattr(each, "gradient_checkpointing", False) for each in causal.modules()):
        return False
    reads = inspect.signature(causal.base_model.forward).parameters
    if not {"past_key_values", "position_ids", "attention_mask"} <= reads.keys():
        return False
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=causal.config).layers)


def response_states(model: nn.Module, sequences: Sequences) -> torch.Tensor:
    """Last hidden states at the positions that predict response tokens, with gradients.

    The token at s + 1 is predicted at s: from the prompt's last token to the response's last but one. Where it saves
    passes over tokens, and the model allows it, each different prompt is read once; values and gradients are the same
    but for rounding.

    Parameters
    ----------
    model
        Causal language model of transformers.
    sequences
        B rows, on the model's device.

    Returns
    -------
    Tensor
        Shape (N, D), for the N response tokens row by row, in the order of ``mask_BT``.
    """
    with autocast(model):
        if shares_prompts(model) and prompts_apart(sequences):
            return _prompts_first(model, sequences)
        return _at_once(model, sequences)


def _at_once(model: Any, sequences: Sequences) -> torch.Tensor:  # noqa: ANN401 - a module of transformers
    # Padding is on the right, where no real token looks: causal attention needs no mask of its own.
    hidden_BSD: torch.Tensor = model.base_model(input_ids=sequences.ids_BS, use_cache=False).last_hidden_state
    position_S = torch.arange(sequences.ids_BS.shape[1], device=hidden_BSD.device)
    first_B = sequences.n_prompt_B[:, None] - 1
    return hidden_BSD[(position_S >= first_B) & (position_S < first_B + sequences.n_tokens_B[:, None])]


def _prompts_first(model: Any, sequences: Sequences) -> torch.Tensor:  # noqa: ANN401
    device, n_prompt_B = sequences.ids_BS.device, sequences.n_prompt_B
    # P different prompts; each row's place among them, and a row that has it.
    _, place_B = torch.unique(sequences.prompt_B, return_inverse=True)
    n_rows_P = place_B.bincount()
    row_P = torch.empty_like(n_rows_P).scatter_(0, place_B, torch.arange(len(place_B), device=device))
    # Prompts end side by side, so that responses begin side by side: padding is on the left.
    length_P, width = n_prompt_B[row_P], int(n_prompt_B.max())
    from_S = torch.arange(width, device=device) - (width - length_P[:, None])
    mask_PS = from_S >= 0
    ids_PS = sequences.ids_BS[row_P].gather(1, from_S.clamp(min=0))
    padded = not bool(mask_PS.all())
    cache: Any = DynamicCache(config=model.config)
    prompt = model.base_model(
        input_ids=ids_PS,
        attention_mask=mask_PS.long() if padded else None,
        position_ids=from_S.clamp(min=0),
        past_key_values=cache,
        use_cache=True,
    )
    last_BD: torch.Tensor = prompt.last_hidden_state[:, -1].index_select(0, place_B)
    tokens = int(sequences.n_tokens_B.max()) - 1
    if tokens < 1:
        return last_BD[sequences.n_tokens_B > 0]
    for layer in cache.layers:
        layer.keys, layer.values = (each.index_select(0, place_B) for each in (layer.keys, layer.values))
    position_BT = n_prompt_B[:, None] + torch.arange(tokens, device=device)
    # Past a row's end are its last column again: what is read there is not used.
    ids_BT = sequences.ids_BS.gather(1, position_BT.clamp(max=sequences.ids_BS.shape[1] - 1))
    mask_BS = torch.cat([mask_PS[place_B], torch.ones_like(ids_BT, dtype=torch.bool)], 1).long() if padded else None
    response = model.base_model(
        input_ids=ids_BT, attention_mask=mask_BS, position_ids=position_BT, past_key_values=cache, use_cache=True
    )
    return torch.cat([last_BD[:, None], response.last_hidden_state], 1)[sequences.mask_BT]
