"""What a model takes for each parameter and each token, counted on tensors that have shapes and no contents."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoModelForCausalLM, PreTrainedConfig

from entropy_lab.rl.precision import autocast, compute_in

_LENGTHS: Final = (64, 192)
"""Two lengths tell what grows with the tokens from what does not."""


@dataclass(frozen=True)
class Footprint:
    """What a causal language model takes; bytes but for the counts.

    Parameters
    ----------
    n_parameters
        Weights; those that are used twice count once.
    n_layers
        Blocks.
    n_output
        Values of the output matrix, vocabulary x width.
    n_vocabulary
        Token ids.
    shares_output
        Whether the output matrix is that of the embedding.
    saved_per_token
        What a forward pass keeps for the backward pass, of all blocks.
    saved_fixed
        What it keeps beside, however many tokens there are: copies of the weights in the type they are multiplied in.
    between_blocks
        What one block hands to the next, of a token.
    cache_per_token
        Keys and values of a token in all blocks.
    """

    n_parameters: int
    n_layers: int
    n_output: int
    n_vocabulary: int
    shares_output: bool
    saved_per_token: float
    saved_fixed: float
    between_blocks: float
    cache_per_token: float


def footprint(config: PreTrainedConfig, dtype: str = "float32") -> Footprint:
    """Count what a model takes, without making it: every tensor of the passes here is a fake one, of a shape only.

    Parameters
    ----------
    config
        Of a causal language model of transformers.
    dtype
        Type of its matrix products, see `precision.compute_in`; weights are float32.

    Returns
    -------
    Footprint
        Counts are exact. So is what a forward pass keeps, a line through two lengths, for attention that does not keep
        its matrix of weights (PyTorch's on processors and GPUs); of models that make queries, keys and values in one
        product, as GPT-2, it is up to a tenth too much.

    Examples
    --------
    >>> from transformers import Qwen3Config
    >>> small = Qwen3Config(vocab_size=1000, hidden_size=64, num_hidden_layers=2, intermediate_size=128)
    >>> small.num_attention_heads = small.num_key_value_heads = 4
    >>> small.head_dim = 16
    >>> found = footprint(small)
    >>> found.n_layers, found.n_output, found.cache_per_token == 2 * 2 * 4 * 16 * 4
    (2, 64000, True)
    """
    with _nothing_allocated():
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
        model.train(False)
        compute_in(model, dtype)
        short, long = (_forward(model, n_tokens) for n_tokens in _LENGTHS)
        n_more = _LENGTHS[1] - _LENGTHS[0]
        per_token = (long.kept - short.kept) / n_more
        output, inputs = model.get_output_embeddings().weight, model.get_input_embeddings().weight
        return Footprint(
            n_parameters=sum(parameter.numel() for parameter in model.parameters()),
            n_layers=int(config.get_text_config().num_hidden_layers),
            n_output=output.numel(),
            n_vocabulary=len(output),
            shares_output=output is inputs,
            saved_per_token=per_token,
            saved_fixed=max(0.0, short.kept - _LENGTHS[0] * per_token),
            between_blocks=(long.hidden - short.hidden) / n_more,
            cache_per_token=(long.cache - short.cache) / n_more,
        )


@contextmanager
def _nothing_allocated() -> Iterator[None]:
    """Let every tensor of the block be a fake one, and leave the global generator as it was."""
    with torch.random.fork_rng(devices=[]), FakeTensorMode():
        yield


class _Pass(NamedTuple):
    """Bytes of a forward pass over one sequence."""

    kept: int
    """What the backward pass will need beside the weights."""
    hidden: int
    """Last hidden states."""
    cache: int
    """Keys and values."""


def _forward(model: Any, n_tokens: int) -> _Pass:  # noqa: ANN401 - one of many
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage  # held, so that no other one gets its place
        return tensor

    ids_BS = torch.zeros(1, n_tokens, dtype=torch.long)
    with saved_tensors_hooks(keep, lambda tensor: tensor), autocast(model):
        # With a cache: without one, transformers would look into the tensors to see whether it needs a mask.
        output = model.base_model(input_ids=ids_BS, use_cache=True)
    cached = [tensor for layer in output.past_key_values.layers for tensor in (layer.keys, layer.values)]
    return _Pass(
        kept=sum(storage.nbytes() for storage in kept.values()),
        hidden=_bytes(output.last_hidden_state),
        cache=sum(map(_bytes, cached)),
    )


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
