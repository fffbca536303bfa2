"""Token ids of recorded rollouts: those that were recorded, else of the texts, tokenised again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from entropy_lab.errors import ParameterError
from entropy_lab.rl.tokens import PROMPTS, ChatTokens

AS_RECORDED: Final = "text"
PROMPT_KINDS: Final = ("auto", AS_RECORDED, *PROMPTS)
"""How a recorded prompt becomes tokens: ``text``, as it stands; the others as `ChatTokens` has them; ``auto``, as the
run's configuration says, else ``text``."""
TEXT_COLUMNS: Final = ("prompt", "completion", "n_tokens", "truncated", "token_ids", "prompt_token_ids", "interrupted")


@dataclass(frozen=True)
class RecordedTokens:
    """Tokens of the B rollouts of a step.

    Parameters
    ----------
    prompts, responses
        Token ids of each rollout; empty lists where there are none.
    usable_B
        Rollouts whose tokens are all known, in one piece.
    why
        How many rollouts are not usable, by the reason.
    redone
        Some responses were tokenised again.
    prompts_redone
        Some prompts were.
    """

    prompts: list[list[int]]
    responses: list[list[int]]
    usable_B: NDArray[np.bool_]
    why: dict[str, int]
    redone: bool
    prompts_redone: bool


class Retokeniser:
    """Finds the tokens of recorded rollouts.

    Parameters
    ----------
    load
        Loads a tokenizer of transformers; called when a text has to be tokenised.
    prompt
        One of `PROMPT_KINDS` but ``auto``. Prompts recorded as JSON lists of chat messages get the chat template
        anyway: as it is, or without a thinking part, as `ChatTokens` has it, with a kind that has a template.

    Examples
    --------
    >>> frame = pl.DataFrame({"prompt_token_ids": [[5, 6]], "token_ids": [[7, 1]]})
    >>> found = Retokeniser(load=lambda: None).tokens(frame)
    >>> found.prompts, found.responses, found.redone
    ([[5, 6]], [[7, 1]], False)
    """

    def __init__(self, load: Callable[[], Any], prompt: str = AS_RECORDED) -> None:
        if prompt not in PROMPT_KINDS[1:]:
            raise ParameterError("prompt", f"is {prompt!r}", ", ".join(PROMPT_KINDS))
        self._load, self._kind = load, prompt
        self._prompt_ids: dict[str, list[int]] = {}

    @cached_property
    def _tokenizer(self) -> Any:  # noqa: ANN401 - one of transformers'
        return self._load()

    @cached_property
    def _templated(self) -> ChatTokens:
        return ChatTokens(self._tokenizer, self._kind)

    def tokens(self, frame: pl.DataFrame) -> RecordedTokens:
        """Find the tokens of a step's rollouts.

        Parameters
        ----------
        frame
            Rows of the step, with those of `TEXT_COLUMNS` that were recorded.

        Returns
        -------
        RecordedTokens
            A response that was tokenised again is usable when it has as many tokens as recorded, the end-of-sequence
            token counted; where no number was recorded, that token is put behind responses that were not truncated.
        """
        absent = [pl.lit(None).alias(name) for name in TEXT_COLUMNS if name not in frame.columns]
        rows = frame.with_columns(absent).select(TEXT_COLUMNS).to_dicts()
        prompts, responses, reasons = [], [], []
        for row in rows:
            prompt, response, reason = self._of(row)
            prompts.append(prompt)
            responses.append(response)
            reasons.append(reason)
        why = {reason: reasons.count(reason) for reason in dict.fromkeys(reasons) if reason}
        return RecordedTokens(
            prompts,
            responses,
            np.array([not reason for reason in reasons], dtype=np.bool_),
            why,
            redone=any(row["token_ids"] is None for row in rows),
            prompts_redone=any(row["prompt_token_ids"] is None for row in rows),
        )

    def _of(self, row: dict[str, Any]) -> tuple[list[int], list[int], str]:
        """Give prompt, response, and why they are of no use."""
        prompt = row["prompt_token_ids"]
        if prompt is None and row["prompt"]:
            prompt = self._prompt(row["prompt"])
        response = row["token_ids"]
        if response is None and row["completion"] is not None:
            response = self._response(row["completion"], row["n_tokens"], row["truncated"])
            if response is None:
                return [], [], "with another number of tokens than recorded when tokenised again"
        if row["interrupted"]:
            return [], [], "with a tool's tokens in between"
        if not prompt or response is None:
            return [], [], "without a prompt" if not prompt else "without a response"
        return prompt, response, ""

    def _prompt(self, text: str) -> list[int]:
        if text not in self._prompt_ids:
            messages = _messages(text)
            if messages is not None:
                settings = {} if self._kind in (AS_RECORDED, "plain") else {"enable_thinking": False}
                rendered = self._tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=True, **settings
                )
                self._prompt_ids[text] = self._plain(rendered)
            else:
                plain = self._kind == AS_RECORDED
                self._prompt_ids[text] = self._plain(text) if plain else self._templated.encode(text)
        return self._prompt_ids[text]

    def _response(self, text: str, n_tokens: int | None, truncated: bool | None) -> list[int] | None:
        messages = _messages(text)
        if messages is not None:
            text = str(messages[0].get("content")) if len(messages) == 1 else ""
        ids, end = self._plain(text), self._tokenizer.eos_token_id
        ended = truncated is False if n_tokens is None else n_tokens == len(ids) + 1
        ids = [*ids, end] if ended and end is not None else ids
        return ids if n_tokens in (None, len(ids)) else None

    def _plain(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])


def _messages(text: str) -> Sequence[dict[str, Any]] | None:
    """Read chat messages recorded as JSON; None for any other text."""
    if not text.startswith("[{"):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    chat = isinstance(found, list) and all(isinstance(each, dict) and "role" in each for each in found)
    return found if chat else None
