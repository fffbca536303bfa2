"""Rollout engines by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from entropy_lab.rl.engine import RolloutEngine
from entropy_lab.rl.policy import Policy
from entropy_lab.rl.transformers_engine import TransformersEngine
from entropy_lab.rl.vllm_engine import VllmEngine
from entropy_lab.rl.vllm_options import VllmOptions, require_vllm

ENGINES: Final = ("transformers", "vllm")


def require_engine(name: str) -> None:
    """Refuse an engine that is not installed, before a trainer spends time.

    Parameters
    ----------
    name
        One of `ENGINES`.

    Raises
    ------
    MissingExtraError
        vLLM is not installed, or its installation is broken.

    Examples
    --------
    >>> require_engine("transformers")
    """
    if name == "vllm":
        require_vllm()


@contextmanager
def open_engine(name: str, policy: Policy, rollout_batch: int, options: VllmOptions) -> Iterator[RolloutEngine]:
    """Open a rollout engine that samples from a policy.

    Parameters
    ----------
    name
        One of `ENGINES`.
    policy
        Its weights are those that the engine begins with.
    rollout_batch
        Most responses that the embedded engine samples side by side.
    options
        Of vLLM; it makes room for the policy's longest prompt and response where they say nothing.

    Yields
    ------
    RolloutEngine
        Closed at the end of the ``with`` block.

    Raises
    ------
    MissingExtraError
        vLLM is not installed, or its installation is broken.
    EngineError
        vLLM does not start, or computes something else than the policy.
    """
    if name == "vllm":
        if options.max_model_len is None:  # not all that the model was made for: its cache would not fit
            options = replace(options, max_model_len=policy.room)
        with VllmEngine(policy.model, stop_ids=policy.tokens.stop_ids, options=options) as engine:
            yield engine
    else:
        yield TransformersEngine(policy.model, stop_ids=policy.tokens.stop_ids, batch_size=rollout_batch)
