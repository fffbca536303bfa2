"""The policy of a run: a small Qwen3 made in code and warm-started, or a pretrained model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

from tyro.conf import arg

from entropy_lab.advantages.parameters import Choice
from entropy_lab.errors import ParameterError
from entropy_lab.rl.memory import Workload, require_memory
from entropy_lab.rl.model import ModelSizes
from entropy_lab.rl.precision import DTYPES, compute_in
from entropy_lab.rl.pretrained import device_named, load_config, load_pretrained, load_tokenizer, stop_ids_of
from entropy_lab.rl.progress import TrainingProgress
from entropy_lab.rl.ranges import require_in_range
from entropy_lab.rl.tokens import PROMPTS, ChatTokens, Tokens, VocabularyTokens
from entropy_lab.rl.warm_start import WarmStart, warm_start
from entropy_lab.tasks import Problem, Task, demonstrated


@dataclass(frozen=True)
class PolicySettings(ModelSizes):
    """Which model is trained, and how it computes.

    Raises
    ------
    ParameterError
        A size or a choice is none of those allowed.

    Examples
    --------
    >>> PolicySettings(layers=4).sizes
    ModelSizes(hidden=128, layers=4, heads=4, kv_heads=2, head_dim=32, feed_forward=256)
    """

    path: Annotated[str, arg(aliases=["--model"])] = ""
    """Local directory or hub id of a pretrained model; empty for a Qwen3 of the sizes above, warm-started."""
    prompt: Annotated[str, Choice(*PROMPTS)] = "chat"
    """How a pretrained model is asked: chat (its template), chat-boxed, system-boxed (with the instruction to reason
    and box the answer, as Qwen3 and Qwen2.5-Math have it), plain (no template)."""
    dtype: Annotated[str, Choice(*DTYPES)] = "float32"
    """Type of matrix products: float32 or bfloat16; weights and optimizer are float32 either way."""
    device: str = "auto"
    """Device of a pretrained model: auto takes the first GPU where there is one."""
    gradient_checkpointing: bool = False
    """Keep the inputs of the blocks only, and make the rest again in the backward pass: less memory, a third slower."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_in_range(self)

    @property
    def sizes(self) -> ModelSizes:
        """The sizes alone."""
        return ModelSizes(**{each.name: getattr(self, each.name) for each in fields(ModelSizes)})


@dataclass(frozen=True)
class Policy:
    """A model to train, and the tokens it reads and writes."""

    model: Any
    """A causal language model of transformers, in evaluation mode."""
    tokens: Tokens
    """Texts to token ids and back."""
    name: str
    """For run.json."""
    room: int
    """Most tokens of a prompt and its response together."""


def make_policy(
    settings: PolicySettings,
    task: Task,
    base: WarmStart,
    progress: TrainingProgress,
    asked: Iterable[Problem],
    max_new_tokens: int,
    workload: Callable[[int], Workload] | None = None,
) -> Policy:
    """Load the pretrained model, or make the small one and train it on demonstrations.

    Parameters
    ----------
    settings
        Which.
    task
        Brings vocabulary and demonstrations for the small model.
    base
        Warm start of the small model; not used for a pretrained one.
    progress
        Shows the warm start.
    asked
        All problems that it will be given.
    max_new_tokens
        Length limit of a response.
    workload
        Tells, from the longest prompt's tokens, what a pretrained model is loaded for: the memory that it needs is said
        then, and refused where it is not there, before the weights are loaded.

    Returns
    -------
    Policy
        The base policy.

    Raises
    ------
    UnknownNameError
        There is no such pretrained model.
    ParameterError
        Model, tokenizer, settings and memory do not fit together; a small model has a task without demonstrations; or a
        prompt and its response may be longer than what the model was made for.
    OutputError
        The warm-started weights cannot be kept.
    """
    if settings.path:
        tokenizer, config = load_tokenizer(settings.path), load_config(settings.path)
        longest = _longest(ChatTokens(tokenizer, settings.prompt, (-1,)), asked)
        _require_room(config, longest, max_new_tokens)
        if workload is not None:
            require_memory(config, settings.dtype, workload(longest), device_named(settings.device), progress.say)
        model = load_pretrained(settings.path, settings.dtype, settings.device)
        tokens: Tokens = ChatTokens(tokenizer, settings.prompt, stop_ids_of(model))
        name = f"{settings.path}, {model.num_parameters():,} parameters"
    else:
        if settings.device not in ("auto", "cpu"):
            wrong = f"is {settings.device!r}, and a model made in code is trained on the processor"
            raise ParameterError("model.device", wrong, "auto or cpu; another device for a pretrained model")
        shown = demonstrated(task)
        model = warm_start(shown, settings.sizes, base, progress=progress.stage("warm start"))
        compute_in(model, settings.dtype)
        tokens = VocabularyTokens(shown.vocabulary)
        longest = _longest(tokens, asked)
        _require_room(model.config, longest, max_new_tokens)
        name = f"Qwen3, {model.num_parameters():,} parameters"
    if settings.gradient_checkpointing:
        # Renamed in transformers 5.2x; both take the arguments of torch.utils.checkpoint first.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    return Policy(model, tokens, name, longest + max_new_tokens)


def short_enough(
    settings: PolicySettings, task: Task, problems: Sequence[Problem], most: int, least: int
) -> list[Problem]:
    """Leave out the problems whose prompts are too long, with a warning.

    Parameters
    ----------
    settings
        The policy that will be asked.
    task
        Brings the vocabulary of a small model.
    problems
        To be trained on.
    most
        Most tokens of a prompt as the policy is given it, its template included; 0 for no limit.
    least
        Problems that must be left.

    Returns
    -------
    list of Problem
        In their order.

    Raises
    ------
    UnknownNameError
        There is no such pretrained model.
    ParameterError
        Too few are left.

    Examples
    --------
    >>> from entropy_lab.tasks import get
    >>> task = get("countdown")
    >>> len(short_enough(PolicySettings(), task, [task.problem((7, 2), 5)], most=9, least=1))
    1
    """
    if not most:
        return list(problems)
    tokens: Tokens = (
        ChatTokens(load_tokenizer(settings.path), settings.prompt, (-1,))
        if settings.path
        else VocabularyTokens(demonstrated(task).vocabulary)
    )
    kept = [problem for problem in problems if len(tokens.encode(problem.prompt)) <= most]
    if left_out := len(problems) - len(kept):
        warnings.warn(
            f"left out {left_out} of {len(problems):,} training problems: prompts of more than {most:,} tokens",
            stacklevel=3,
        )
    if len(kept) < least:
        wrong = f"is {most}, which leaves {len(kept)} training problems"
        raise ParameterError("prompt_tokens", wrong, f"prompts_per_step {least} or more")
    return kept


def _require_room(config: Any, longest: int, max_new_tokens: int) -> None:  # noqa: ANN401 - one of transformers'
    context = getattr(config, "max_position_embeddings", None)
    if context is not None and longest + max_new_tokens > context:
        wrong = f"is {max_new_tokens}, and the longest prompt has {longest} tokens"
        hint = "--prompt-tokens N leaves out training problems with longer prompts"
        raise ParameterError("max_new_tokens", wrong, f"together at most the model's {context}", hint)


def _longest(tokens: Tokens, asked: Iterable[Problem]) -> int:
    return max((len(tokens.encode(problem.prompt)) for problem in asked), default=0)
