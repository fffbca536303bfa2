"""The policy: a small Qwen3, built in code with random weights (nothing is downloaded)."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from entropy_lab.errors import ParameterError
from entropy_lab.rl.linear import use_onednn
from entropy_lab.rl.norm import use_closed_norm
from entropy_lab.tasks.task import EOS, PAD


@dataclass(frozen=True)
class ModelSizes:
    """Sizes of the policy network; the defaults make 446,016 parameters with countdown's 20 token ids.

    Raises
    ------
    ParameterError
        When a size is not positive, or `heads` is not a multiple of `kv_heads`.

    Examples
    --------
    >>> ModelSizes(layers=4, feed_forward=384).layers
    4
    """

    hidden: int = 128
    """Width of the residual stream."""
    layers: int = 3
    """Transformer blocks."""
    heads: int = 4
    """Attention heads."""
    kv_heads: int = 2
    """Key-value heads, each shared by heads / kv_heads attention heads."""
    head_dim: int = 32
    """Width of one attention head."""
    feed_forward: int = 256
    """Width of the gated feed-forward layer."""

    def __post_init__(self) -> None:
        for each in fields(ModelSizes):  # not those of a class that has more
            size = getattr(self, each.name)
            if size < 1:
                raise ParameterError(f"model.{each.name}", f"is {size}", "at least 1")
        if self.heads % self.kv_heads:
            raise ParameterError("model.heads", f"is {self.heads}", f"a multiple of kv_heads = {self.kv_heads}")
        if self.head_dim % 2:
            raise ParameterError("model.head_dim", f"is {self.head_dim}", "an even number: rotary positions need pairs")


def build_model(sizes: ModelSizes, vocabulary_size: int, seed: int) -> Qwen3ForCausalLM:
    """Build a Qwen3 with tied embeddings and random weights.

    Parameters
    ----------
    sizes
        Sizes of the network.
    vocabulary_size
        Number of token ids.
    seed
        Seed of the weights.

    Returns
    -------
    Qwen3ForCausalLM
        In evaluation mode (the network has no dropout), float32, on the CPU.

    Examples
    --------
    >>> build_model(ModelSizes(), vocabulary_size=20, seed=0).num_parameters()
    446016
    """
    config = Qwen3Config(
        vocab_size=vocabulary_size,
        hidden_size=sizes.hidden,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.kv_heads,
        head_dim=sizes.head_dim,
        intermediate_size=sizes.feed_forward,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        eos_token_id=EOS,
        bos_token_id=None,
    )
    # transformers draws its initial weights from the global generator: fork it, so that nobody else's draws change.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
    use_onednn(model)
    use_closed_norm(model)
    model.train(False)
    return model
