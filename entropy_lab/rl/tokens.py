"""Between texts and token ids: a task's characters, or a pretrained model's tokenizer with its chat template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

from entropy_lab.errors import ParameterError
from entropy_lab.tasks.task import EOS, Vocabulary

BOXED: Final = "Please reason step by step, and put your final answer within \\boxed{}."
"""The instruction of the Qwen model cards for mathematics."""
PROMPTS: Final = ("chat", "chat-boxed", "system-boxed", "plain")
"""How a pretrained model is asked, see `ChatTokens`."""


class Tokens(Protocol):
    """What the training loop asks of a tokenizer."""

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end a response, at least one."""
        ...

    def encode(self, prompt: str) -> list[int]:
        """Token ids of a problem as the policy is given it, everything before the response."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a response, without the token that ended it."""
        ...


class VocabularyTokens:
    """A task's own characters, for models made in code.

    Parameters
    ----------
    vocabulary
        Of the task.

    Examples
    --------
    >>> tokens = VocabularyTokens(Vocabulary("01+="))
    >>> tokens.decode(tokens.encode("1+0") + [EOS])
    '1+0'
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.stop_ids: tuple[int, ...] = (EOS,)
        self.encode = vocabulary.encode
        self._decode = vocabulary.decode

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a response, up to end-of-sequence."""
        return self._decode(ids)


class ChatTokens:
    r"""A tokenizer of transformers, with the chat template that it brings.

    Parameters
    ----------
    tokenizer
        From `transformers.AutoTokenizer`.
    prompt
        How a problem becomes a prompt: ``chat``, the problem as the user's message; ``chat-boxed``, the same with the
        instruction to reason and to box the answer after it (Qwen3's model card); ``system-boxed``, with that
        instruction as the system's message (Qwen2.5-Math's chain of thought); ``plain``, the problem as it is, without
        a template, for base models.
    stop_ids
        Further tokens that end a response, beside the tokenizer's own end-of-sequence.

    Notes
    -----
    Templates that know ``enable_thinking`` get it as False: Qwen3 then answers without a thinking part.

    Raises
    ------
    ParameterError
        When `prompt` is unknown, a chat template is asked for that the tokenizer does not have, or nothing would end a
        response.
    """

    def __init__(self, tokenizer: Any, prompt: str = "chat", stop_ids: Sequence[int] = ()) -> None:  # noqa: ANN401
        if prompt not in PROMPTS:
            raise ParameterError("model.prompt", f"is {prompt!r}", f"one of {', '.join(PROMPTS)}")
        if prompt != "plain" and not tokenizer.chat_template:
            raise ParameterError("model.prompt", f"is {prompt}, and the tokenizer has no chat template", "plain")
        own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        self.stop_ids: tuple[int, ...] = tuple(dict.fromkeys([*stop_ids, *own]))
        if not self.stop_ids:
            raise ParameterError("model.path", "has no end-of-sequence token", "a tokenizer or config with eos_token")
        self._tokenizer, self._prompt = tokenizer, prompt

    def text(self, prompt: str) -> str:
        """Give a problem as the policy reads it, special tokens written out.

        Parameters
        ----------
        prompt
            Of the problem.
        """
        if self._prompt == "plain":
            return prompt
        user = f"{prompt}\n{BOXED}" if self._prompt == "chat-boxed" else prompt
        messages = [{"role": "user", "content": user}]
        if self._prompt == "system-boxed":
            messages.insert(0, {"role": "system", "content": BOXED})
        text: str = self._tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        return text

    def encode(self, prompt: str) -> list[int]:
        """Token ids of a problem, with the template around it."""
        # A template writes the special tokens itself; a plain prompt gets those that the tokenizer adds.
        encoded = self._tokenizer(self.text(prompt), add_special_tokens=self._prompt == "plain")
        return list(encoded["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a response, without special tokens."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text
