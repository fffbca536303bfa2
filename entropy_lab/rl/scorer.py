"""Log-probabilities and entropies of a step's rollouts under a checkpoint, with the models that were loaded for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from transformers.utils import logging

from entropy_lab.errors import ParameterError
from entropy_lab.recording.tokens import Tokens
from entropy_lab.rl.logprobs import score
from entropy_lab.rl.pretrained import load_pretrained, load_tokenizer
from entropy_lab.rl.recorded_tokens import AS_RECORDED, RecordedTokens, Retokeniser
from entropy_lab.rl.sequences import Sequences

_ROWS: Final = 64
"""Most rows of a forward pass."""


@dataclass(frozen=True)
class ScoreSettings:
    """How recorded rollouts are scored."""

    temperature: float = 1.0
    """Divides the logits, as it did in sampling."""
    prompt: str = AS_RECORDED
    """How prompts without token ids become tokens, see `recorded_tokens.PROMPT_KINDS`."""
    tokens: bool = True
    """Keep values by token, beside sums and means."""
    dtype: str = "float32"
    """Type of matrix products."""
    device: str = "auto"
    """Device of the model."""
    micro_tokens: int = 16384
    """Most tokens of one forward pass; changes memory and speed only."""
    only_step: int | None = None
    """Score this step only."""


class Scorer:
    """Scores steps; keeps the models of two checkpoints, because one step's `after` is often the next one's policy.

    Parameters
    ----------
    settings
        How.
    """

    def __init__(self, settings: ScoreSettings) -> None:
        self._settings = settings
        self._models: dict[str, Any] = {}
        self._tokenizer_of = ""
        self._texts = Retokeniser(lambda: load_tokenizer(self._tokenizer_of), settings.prompt)

    def tokens(self, frame: pl.DataFrame, checkpoint: str) -> RecordedTokens:
        """Find the tokens of a step's rollouts; texts are tokenised by the tokenizer of the first checkpoint.

        Parameters
        ----------
        frame
            Rows of the step.
        checkpoint
            A directory or hub id.
        """
        self._tokenizer_of = self._tokenizer_of or checkpoint
        return self._texts.tokens(frame)

    def scored(self, checkpoint: str, tokens: RecordedTokens) -> dict[str, pl.Series]:
        """Score the usable rollouts of a step.

        Parameters
        ----------
        checkpoint
            A directory or hub id.
        tokens
            Of the step's rollouts.

        Returns
        -------
        dict of str to Series
            ``logp`` (sum), ``entropy`` (mean), ``token_logp``, ``token_entropy``; null where tokens are not usable, and
            the entropy of an empty response too.

        Raises
        ------
        ParameterError
            A token is not in the model's vocabulary.
        UnknownNameError
            There is no such checkpoint.
        """
        model = self._model(checkpoint)
        n_B = np.array([len(response) for response in tokens.responses], dtype=np.int64)
        rows = np.flatnonzero(tokens.usable_B & (n_B > 0))
        logp, entropy = np.zeros(0, np.float32), np.zeros(0, np.float32)
        if rows.size:
            sequences = Sequences.join([tokens.prompts[row] for row in rows], [tokens.responses[row] for row in rows])
            _require_known_ids(model, sequences)
            scores = score(model, sequences, self._settings.temperature, _ROWS, self._settings.micro_tokens)
            mask = sequences.mask_BT
            logp, entropy = scores.logp_BT[mask].cpu().numpy(), scores.entropy_BT[mask].cpu().numpy()
        usable, null = Tokens(np.where(tokens.usable_B, n_B, 0), None), ~tokens.usable_B
        found = {
            "logp": (pl.Series(usable.sums(logp)), null),
            "entropy": (pl.Series(usable.sums(entropy) / np.maximum(usable.n_B, 1)), null | (n_B == 0)),
            "token_logp": (usable.lists("", logp, pl.Float32()), null),
            "token_entropy": (usable.lists("", entropy, pl.Float32()), null),
        }
        return {
            kind: pl.select(pl.when(pl.Series(~without)).then(values)).to_series()
            for kind, (values, without) in found.items()
        }

    def _model(self, checkpoint: str) -> Any:  # noqa: ANN401 - one of transformers'
        if checkpoint not in self._models:
            while len(self._models) > 1:
                del self._models[next(iter(self._models))]
            with _without_bars():
                self._models[checkpoint] = load_pretrained(checkpoint, self._settings.dtype, self._settings.device)
        return self._models[checkpoint]


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keep transformers from drawing a bar for every checkpoint, over ours."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _require_known_ids(model: Any, sequences: Sequences) -> None:  # noqa: ANN401
    known, largest = model.get_input_embeddings().num_embeddings, int(sequences.ids_BS.max())
    if largest >= known:
        wrong = f"go up to {largest}, and the model knows {known}"
        raise ParameterError("token_ids", wrong, "a checkpoint of the model that sampled")
