"""vLLM as a rollout engine, in the trainer's process, with the weights pushed into it after every update.

What is pinned to the versions of the extra ``vllm``: the names of the arguments of ``LLM``, the worker's method
``reload_weights``, and how the output layer is prepared on a processor.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Final

import torch
from torch import nn
from transformers import AutoConfig

from entropy_lab.errors import EngineError, MissingExtraError, ParameterError
from entropy_lab.rl.engine import Rollouts, require_possible
from entropy_lab.rl.engine_agreement import sampler_agreement
from entropy_lab.rl.logprobs import score
from entropy_lab.rl.precision import compute_dtype
from entropy_lab.rl.process_state import undisturbed
from entropy_lab.rl.sequences import Sequences
from entropy_lab.rl.vllm_options import INSTALL, TOLERANCE, VllmOptions, require_vllm
from entropy_lab.tasks.task import EOS, PAD

_LOWEST_TEMPERATURE: Final = 0.01
"""vLLM raises a lower one to this, without an error."""

_PROBE: Final = (24, 4)
"""Tokens of a prompt and of its response, at most, that are sampled after a push to compare log-probabilities."""

_ENVIRONMENT: Final = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
"""Of vLLM, where nothing else is set: it reports no use, and says only what went wrong."""


class VllmEngine:
    """Samples with vLLM; log-probabilities are those that vLLM sampled from, entropies are not told.

    vLLM starts from the model's configuration alone and is given the weights as after every update. Then, and after
    every later push, a few tokens are sampled and scored by the trainer's model too: when the two differ by more than
    rounding explains, the engine refuses to go on.

    Run on a processor (``make test-vllm``: the real vLLM 0.32.0, float32 and bfloat16, tied and untied Qwen3). Written
    for one GPU too, with the trainer in the same process, but not yet run there. One at a time in a process, and no
    other user of ``torch.distributed``: vLLM's groups of processes belong to the process, and closing an engine ends
    them.

    Building and sampling leave the global random generators, PyTorch's threads and the environment as they were.

    Parameters
    ----------
    model
        A causal language model of transformers, the policy; or a directory or hub id that vLLM loads by itself, with
        nothing to compare it with until the first `update_weights`.
    stop_ids
        Tokens that end a response; those of the model's own settings do not count.
    options
        Memory and limits.

    Raises
    ------
    MissingExtraError
        vLLM is not installed, or its installation is broken.
    EngineError
        It does not start (memory, an architecture it does not know), or it computes something else than the model.

    Examples
    --------
    With vLLM installed (docs/engines.md)::

        with VllmEngine(model) as engine:
            rollouts = engine.generate([[5, 6]], 8, temperature=1.0, max_new_tokens=26, generator=torch.Generator())
            ...  # an update of the model
            engine.update_weights(model)
    """

    def __init__(
        self, model: nn.Module | str | Path, *, stop_ids: Sequence[int] = (EOS,), options: VllmOptions | None = None
    ) -> None:
        self._stop_ids, self._options = list(stop_ids), options or VllmOptions()
        outdated = warnings.catch_warnings(action="ignore", category=FutureWarning)  # vLLM's to care for
        with undisturbed(), outdated, TemporaryDirectory() as folder:
            # In this process, where weights are pushed by reference. vLLM reads the environment when it is imported.
            os.environ.update(_ENVIRONMENT | os.environ, VLLM_ENABLE_V1_MULTIPROCESSING="0")
            vllm = _import_vllm()
            self._on_cpu: bool = vllm.platforms.current_platform.is_cpu()
            self._sampling_params = vllm.SamplingParams
            try:
                self._llm: Any = vllm.LLM(**_source(model, folder), **self._arguments())
            except (ValueError, RuntimeError, OSError, AssertionError) as error:
                _free()
                raise EngineError("vllm", f"did not start ({_brief(error)})", hint="docs/engines.md") from error
        if isinstance(model, nn.Module):
            try:
                self.update_weights(model)
            except EngineError:
                self.close()
                raise

    def __enter__(self) -> VllmEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the memory; the engine cannot be used any more."""
        if self._llm is None:
            return
        with undisturbed():
            self._llm.llm_engine.engine_core.shutdown()
            self._llm = None
            _free()

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        n: int,
        *,
        temperature: float,
        max_new_tokens: int,
        generator: torch.Generator | None = None,
        greedy: bool = False,
    ) -> Rollouts:
        """Answer each prompt `n` times.

        Every response has a seed of its own, drawn from `generator`; what is sampled depends on it, on the weights and
        on the prompts, not on what was asked before (cached prefixes are forgotten first).

        Parameters
        ----------
        prompts
            Token ids of P prompts, of any lengths above 0.
        n
            Responses to each prompt.
        temperature
            Divides the logits before sampling, at least 0.01; `logp_BT` is at this temperature.
        max_new_tokens
            Length limit of a response, end-of-sequence included.
        generator
            Source of the seeds, on the CPU; the global one when left out.
        greedy
            Take the most probable token instead of sampling. `logp_BT` is then at temperature 1, and nothing is drawn
            from `generator`.

        Returns
        -------
        Rollouts
            P * n rows; rows ``i * n`` to ``(i + 1) * n - 1`` answer prompt i. No entropies.

        Raises
        ------
        ParameterError
            When there is no prompt, a prompt is empty or too long, or a number is outside its range.
        EngineError
            When vLLM holds on to cached prefixes.
        """
        require_possible(prompts, n, temperature, max_new_tokens)
        self._require_room(prompts, max_new_tokens)
        if not greedy and temperature < _LOWEST_TEMPERATURE:
            wrong, allowed = f"is {temperature}", f"{_LOWEST_TEMPERATURE} or more in vLLM"
            raise ParameterError("temperature", wrong, allowed, "greedy=True takes the most probable token")
        n_rows = len(prompts) * n
        seeds = [None] * n_rows if greedy else torch.randint(2**62, (n_rows,), generator=generator).tolist()
        params = [
            self._sampling_params(
                temperature=0.0 if greedy else temperature,
                seed=seed,
                max_tokens=max_new_tokens,
                stop_token_ids=self._stop_ids,
                ignore_eos=True,  # only stop_ids count
                logprobs=0,  # of the sampled token alone
                flat_logprobs=True,
                detokenize=False,
            )
            for seed in seeds
        ]
        asked = [{"prompt_token_ids": list(prompt)} for prompt in prompts for _ in range(n)]
        with undisturbed(), self._without_compiling():
            if not self._llm.reset_prefix_cache():
                raise EngineError("vllm", "does not forget cached prefixes: requests are still running", "none")
            outputs = self._llm.generate(asked, params, use_tqdm=False)
        return _rollouts([output.outputs[0] for output in outputs])

    def update_weights(self, model: nn.Module) -> None:
        """Push the policy's weights into the running engine, and see that it computes the same.

        Parameters
        ----------
        model
            The policy. Its weights are copied, in the engine's type.

        Raises
        ------
        EngineError
            The log-probabilities of a few sampled tokens differ by more than rounding explains: the policy that samples
            would not be the one that is trained.
        """
        with undisturbed():
            self._push(model)
        explained = max(TOLERANCE[dtype] for dtype in (_dtype(model), self._llm.model_config.dtype))
        found, allowed = self._probe(model), self._options.tolerance or explained
        if not found <= allowed:  # NaN is refused too
            wrong = f"differs from the model by {found:.2g} nats a token after its weights were pushed"
            hint = "not all weights arrived, or vLLM computes this architecture in another way: docs/engines.md"
            raise EngineError("vllm", wrong, f"at most {allowed:.2g} is rounding", hint)

    def _arguments(self) -> dict[str, Any]:
        options, eager = self._options, self._options.enforce_eager
        memory = options.kv_cache_memory_bytes
        return {
            "skip_tokenizer_init": True,
            "generation_config": "vllm",  # not the model's own temperature and stop tokens
            "logprobs_mode": "processed_logprobs",  # of the distribution that is sampled from
            "max_model_len": options.max_model_len,
            "max_num_seqs": options.max_num_seqs,
            "gpu_memory_utilization": options.gpu_memory_utilization,
            "kv_cache_memory_bytes": 2**29 if memory is None and self._on_cpu else memory,
            "enforce_eager": self._on_cpu if eager is None else eager,
        }

    def _push(self, model: nn.Module) -> None:
        dtype = self._llm.model_config.dtype
        weights = ((name, weight.detach().to(dtype)) for name, weight in model.named_parameters())
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
        self._llm.apply_model(_prepare_output_layers)

    def _probe(self, model: nn.Module) -> float:
        """Mean absolute difference in nats of the two log-probabilities of a few sampled tokens."""
        generator, config = torch.Generator().manual_seed(0), self._llm.model_config
        n_tokens = min(_PROBE[1], config.max_model_len - 1)
        n_prompt = min(_PROBE[0], config.max_model_len - n_tokens)
        prompts = torch.randint(config.get_vocab_size(), (8, n_prompt), generator=generator).tolist()
        drawn = self.generate(prompts, 1, temperature=1.0, max_new_tokens=n_tokens, generator=generator)
        sequences = Sequences.join(prompts, drawn.responses())
        scores = score(model, sequences, temperature=1.0)
        return sampler_agreement(drawn.logp_BT, scores.logp_BT, sequences.mask_BT)["sampler_logp_difference_mean"]

    def _require_room(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
        room, longest = self._llm.model_config.max_model_len, max(map(len, prompts))
        if longest + max_new_tokens > room:
            wrong = f"is {max_new_tokens}, and the longest prompt has {longest} tokens"
            raise ParameterError("max_new_tokens", wrong, f"together at most max_model_len = {room}", "VllmOptions")

    def _without_compiling(self) -> AbstractContextManager[object]:
        """On a processor vLLM compiles a few small functions even when told not to: half a minute for nothing."""
        return torch.compiler.set_stance("force_eager") if self._on_cpu else nullcontext()


def _import_vllm() -> Any:  # noqa: ANN401 - it is not here to be typed
    require_vllm()
    try:
        import vllm
        import vllm.platforms
    except Exception as error:  # a package of parts that do not fit together fails in many ways
        raise MissingExtraError("vllm", f"cannot be imported ({_brief(error)})", hint=INSTALL) from error
    return vllm


def _free() -> None:
    from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

    cleanup_dist_env_and_memory()


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _source(model: Any, folder: str) -> dict[str, Any]:  # noqa: ANN401 - one of many, or a path
    """Say where vLLM finds what it loads, and in which type: left alone, it takes float32 weights as bfloat16."""
    if not isinstance(model, nn.Module):
        dtype = AutoConfig.from_pretrained(model).dtype
        return {"model": str(model), "dtype": _dtype_name(dtype) if dtype else "auto"}
    config: Any = deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    return {"model": folder, "load_format": "dummy", "dtype": _dtype_name(_dtype(model))}


def _dtype(model: nn.Module) -> torch.dtype:
    """Type that the model multiplies in: that of its weights, or the shorter one it was told to compute in."""
    weights = next(model.parameters()).dtype
    return min(weights, compute_dtype(model), key=lambda dtype: dtype.itemsize)


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _prepare_output_layers(model: nn.Module) -> None:
    """Prepare the output matrix as when a model is loaded.

    `reload_weights` leaves this out when the matrix is that of the embeddings: on a processor the layer would go on
    with a copy of the old weights. On a GPU there is nothing to prepare.
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    for module in model.modules():
        if isinstance(module, ParallelLMHead):
            module.quant_method.process_weights_after_loading(module)


def _rollouts(completions: Sequence[Any]) -> Rollouts:
    n_tokens_B = torch.tensor([len(each.token_ids) for each in completions])
    width = int(n_tokens_B.max())
    token_ids_BT = torch.full((len(completions), width), PAD)
    logp_BT = torch.zeros(len(completions), width)
    for row, each in enumerate(completions):
        token_ids_BT[row, : len(each.token_ids)] = torch.tensor(each.token_ids)
        logp_BT[row, : len(each.token_ids)] = torch.tensor(each.logprobs.logprobs)
    truncated_B = torch.tensor([each.finish_reason == "length" for each in completions])
    return Rollouts(token_ids_BT, logp_BT, n_tokens_B, truncated_B)
