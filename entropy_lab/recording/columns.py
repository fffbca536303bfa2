"""From what a training loop holds of B rollouts to columns of the run format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, TypedDict

import numpy as np
import polars as pl
from numpy.typing import NDArray

from entropy_lab.errors import ParameterError
from entropy_lab.prompt_names import prompt_ids
from entropy_lab.recording.arrays import TensorLike, array, flags, is_by_token, numbers, require_one_each, rows, texts
from entropy_lab.recording.tokens import Tokens
from entropy_lab.schema import ROLLOUTS


class Rollouts(TypedDict, total=False):
    """What a recorder takes, one entry a rollout, in one order everywhere; rewards and prompts (or names) must be.

    Numbers by token are shape (B, T) with `mask`, or a list of B rows without padding, or (B, T) padded on the right
    with `n_tokens`. Everything may be a torch tensor of any device and type, a numpy array or a list.
    """

    rewards: TensorLike
    """The reward that training used; shape (B,)."""
    prompts: Any
    """Texts, or lists of chat messages (kept as JSON)."""
    prompt_ids: Any
    """Names of the prompts, stable across steps: texts or integers; a hash of the prompt when left out."""
    completions: Any
    """Texts of the responses, or lists of chat messages."""
    answers: Any
    """Reference answers, or those found in the responses."""
    groups: Any
    """Which rollouts were drawn together: any texts or integers, (B,). Rows of one prompt that share it are one group,
    whichever rank they are on. When left out: `group_size` neighbours, else all rollouts of a prompt."""
    correct: TensorLike
    """The verifier's verdicts: True, False, None (or 1, 0, NaN); when left out, `rewards` while they are all 0 or 1."""
    advantages: TensorLike
    """(B,), or by token."""
    mask: TensorLike
    """1 or True at response tokens, shape (B, T) or rows."""
    n_tokens: TensorLike
    """Response tokens, (B,); taken from `mask` or from rows when left out."""
    token_ids: TensorLike
    """Response tokens, by token."""
    logps: TensorLike
    """log π_old of the response tokens at the sampling temperature, in nats, by token; or their sums (B,)."""
    logps_after: TensorLike
    """The same under the policy after this step's update."""
    sampler_logps: TensorLike
    """The same as the rollout engine reported; only sums are kept."""
    entropies: TensorLike
    """Full-vocabulary entropy of π_old at the response tokens, in nats, by token; or their means (B,)."""
    truncated: TensorLike
    """True where the length limit stopped the response."""
    epoch: TensorLike
    """Pass over the training prompts: one number, or (B,)."""
    source: Any
    """Data set or environment: one text, or (B,)."""
    prompt_token_ids: TensorLike
    """Prompt tokens as the policy saw them, rows or (B, S) with `prompt_mask`; kept for ``entropy-lab score``."""
    prompt_mask: TensorLike
    """1 at prompt tokens, (B, S)."""
    extra: Mapping[str, TensorLike]
    """Further columns, by name; (B,)."""


_SUMMED: Final = {"logps": "logp", "logps_after": "logp_after", "sampler_logps": "sampler_logp"}
_BY_TOKEN: Final = ("token_ids", "logps", "entropies", "sampler_logps", "logps_after", "advantages")
IDLE: Final = {"interrupted": False, "advantage_spread": 0.0}
"""Columns with the value that says nothing: they are recorded in steps where a rollout has another one."""
_OURS: Final = frozenset({*IDLE, "token_advantage", "prompt_token_ids"})


@dataclass(frozen=True)
class Keep:
    """What is written of the rollouts."""

    tokens: bool = True
    """Lists by token, beside their sums and means."""
    texts: bool = True
    """Prompts, completions and answers."""


def rollout_frame(given: Mapping[str, Any], keep: Keep) -> pl.DataFrame:
    """Lay out rollouts as the run format has them, but for what needs the whole step (groups, verdicts from rewards).

    Parameters
    ----------
    given
        See `Rollouts`.
    keep
        What is written.

    Returns
    -------
    DataFrame
        One row a rollout. ``_group`` is the group's name as text, where it was given.

    Raises
    ------
    ParameterError
        A name is unknown, something needed is missing, or shapes do not fit together.

    Examples
    --------
    >>> given = {"prompts": ["1+1", "1+1"], "rewards": [1, 0], "logps": [[-1.0, -2.0], [-3.0]]}
    >>> rollout_frame(given, Keep()).select("reward", "n_tokens", "logp", "token_logp").rows()
    [(1.0, 2, -3.0, [-1.0, -2.0]), (0.0, 1, -3.0, [-3.0])]
    """
    given = {name: value for name, value in given.items() if value is not None}
    _require_known(given)
    n = _length(given)
    by_token = [(name, given[name]) for name in _BY_TOKEN if name in given]
    tokens = Tokens.of(n, given.get("mask"), given.get("n_tokens"), by_token)
    columns = [*_about(given, n, keep), *_numbers(given, n, tokens, keep), *_prompt_tokens(given, n, keep)]
    for name, value in given.get("extra", {}).items():
        if name in ROLLOUTS or name in _OURS or name.startswith("_"):
            raise ParameterError("extra", f"holds {name!r}, a name of the recorder's own", "other names")
        require_one_each(f"extra {name}", len(value), n)
        columns.append(pl.Series(name, array(name, value) if hasattr(value, "detach") else value, strict=False))
    return pl.DataFrame(columns)


def after_frame(
    logps: TensorLike, mask: TensorLike, n_B: NDArray[np.int64] | None, n_rollouts: int, keep: Keep
) -> pl.DataFrame:
    """Lay out log-probabilities under the policy after the update, of rollouts that were given before.

    Parameters
    ----------
    logps, mask
        As `Rollouts.logps_after` and `Rollouts.mask`.
    n_B
        Response tokens of the rollouts, where known.
    n_rollouts
        B.
    keep
        What is written.

    Returns
    -------
    DataFrame
        ``logp_after``, and ``token_logp_after`` where they came by token.

    Raises
    ------
    ParameterError
        Shapes or numbers of tokens are not those of the rollouts.
    """
    named = [("logps_after", logps)]
    tokens = Tokens.of(n_rollouts, mask, None if mask is not None else n_B, named)
    if tokens is not None and n_B is not None and not np.array_equal(tokens.n_B, n_B):
        row = int(np.flatnonzero(tokens.n_B != n_B)[0])
        wrong = f"have {tokens.n_B[row]} tokens in row {row}, where {n_B[row]} were recorded"
        raise ParameterError("logps_after", wrong, "the rollouts of this step, in the same order")
    return pl.DataFrame(_log_probabilities("logps_after", logps, n_rollouts, tokens, keep))


def _require_known(given: Mapping[str, Any]) -> None:
    known = Rollouts.__annotations__
    for name in given:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            raise ParameterError(
                name, "is not recorded", ", ".join(known), f"did you mean {close[0]}?" if close else ""
            )
    if not {"prompts", "prompt_ids", "prompt_token_ids"} & set(given):
        raise ParameterError("prompts", "are missing", "prompts, or prompt_ids that are stable across steps")


def _length(given: Mapping[str, Any]) -> int:
    if "rewards" not in given or not hasattr(given["rewards"], "__len__"):
        raise ParameterError("rewards", "are missing", "one number a rollout")
    return len(given["rewards"])


def _about(given: Mapping[str, Any], n: int, keep: Keep) -> list[pl.Series]:
    """Lay out what rollouts are of, and what was said about them."""
    columns = [numbers("rewards", given["rewards"], n).alias("reward"), _prompt_names(given, n)]
    for name, column in (("prompts", "prompt"), ("completions", "completion"), ("answers", "answer")):
        if name in given:
            written = texts(name, given[name], n).alias(column)
            columns += [written] if keep.texts else []
    if "groups" in given:
        columns.append(_names("groups", given["groups"], n).alias("_group"))
    columns += [flags(name, given[name], n) for name in ("correct", "truncated") if name in given]
    if "epoch" in given:
        epoch = given["epoch"] if hasattr(given["epoch"], "__len__") else [given["epoch"]] * n
        columns.append(numbers("epoch", epoch, n).cast(pl.Int32))
    if "source" in given:
        columns.append(
            texts("source", [given["source"]] * n if isinstance(given["source"], str) else given["source"], n)
        )
    return columns


def _prompt_names(given: Mapping[str, Any], n: int) -> pl.Series:
    if "prompt_ids" in given:
        return _names("prompt_ids", given["prompt_ids"], n).alias("prompt_id")
    if "prompts" in given:
        prompts = texts("prompts", given["prompts"], n).fill_null("").to_list()
    else:
        tokens = _prompt_selection(given, n)
        flat = tokens.take("prompt_token_ids", given["prompt_token_ids"])
        prompts = list(map(str, tokens.lists("", flat, pl.Int64()).to_list()))
    return pl.Series("prompt_id", prompt_ids(prompts), dtype=pl.String)


def _names(name: str, value: TensorLike, n: int) -> pl.Series:
    """Read a name a rollout: texts, or integers."""
    if is_by_token(value):
        hint = "response tokens are token_ids, prompt tokens prompt_token_ids"
        raise ParameterError(name, f"has {rows(name, value).shape}", "one text or integer a rollout", hint)
    each = value.tolist() if hasattr(value, "tolist") else [v.item() if hasattr(v, "item") else v for v in value]
    odd = next((v for v in each if not isinstance(v, str | int) or isinstance(v, bool)), None)
    if odd is not None or None in each:
        raise ParameterError(name, f"holds {odd!r}", "texts or integers")
    return texts(name, list(map(str, each)), n)


def _numbers(given: Mapping[str, Any], n: int, tokens: Tokens | None, keep: Keep) -> list[pl.Series]:
    """Lay out what was measured at the tokens, or of whole rollouts."""
    columns = [] if tokens is None else [pl.Series("n_tokens", tokens.n_B, dtype=pl.Int32)]
    if tokens is not None and tokens.mask is not None:
        columns.append(pl.Series("interrupted", tokens.interrupted()))
    for name in _SUMMED:
        if name in given:
            columns += _log_probabilities(name, given[name], n, tokens, keep)
    if "entropies" in given:
        columns += _entropies(given["entropies"], n, tokens, keep)
    if "advantages" in given:
        columns += _advantages(given["advantages"], n, tokens, keep)
    if "token_ids" in given:
        known = _demand(tokens, "token_ids", given["token_ids"])
        ids = known.take("token_ids", given["token_ids"])
        _require_whole("token_ids", ids)
        columns += [known.lists("token_ids", ids, pl.Int32())] if keep.tokens else []
    return columns


def _log_probabilities(name: str, value: TensorLike, n: int, tokens: Tokens | None, keep: Keep) -> list[pl.Series]:
    column = _SUMMED[name]
    if not is_by_token(value):
        return [numbers(name, value, n).alias(column)]
    known = _demand(tokens, name, value)
    flat = known.take(name, value)
    found = [pl.Series(column, known.sums(flat))]
    if keep.tokens and f"token_{column}" in ROLLOUTS:
        found.append(known.lists(f"token_{column}", flat, pl.Float32()))
    return found


def _entropies(value: TensorLike, n: int, tokens: Tokens | None, keep: Keep) -> list[pl.Series]:
    if not is_by_token(value):
        return [numbers("entropies", value, n).alias("entropy")]
    known = _demand(tokens, "entropies", value)
    flat, some = known.take("entropies", value), known.n_B > 0
    means = np.divide(known.sums(flat), known.n_B, where=some, out=np.zeros(n))
    mean = pl.Series("entropy", [value if has else None for value, has in zip(means, some, strict=True)], pl.Float64)
    return [mean, *([known.lists("token_entropy", flat, pl.Float32())] if keep.tokens else [])]


def _advantages(value: TensorLike, n: int, tokens: Tokens | None, keep: Keep) -> list[pl.Series]:
    """Rollout-level advantages; of those by token, the constant where they are constant and the mean where not."""
    if not is_by_token(value):
        return [numbers("advantages", value, n).alias("advantage")]
    known = _demand(tokens, "advantages", value)
    flat = known.take("advantages", value)
    first, spread = known.ranges(flat)
    means = np.divide(known.sums(flat), known.n_B, where=known.n_B > 0, out=np.full(n, np.nan))
    level = pl.Series("advantage", np.where(spread > 0, means, first)).fill_nan(None)
    found = [level, pl.Series("advantage_spread", spread).fill_nan(None)]
    return [*found, *([known.lists("token_advantage", flat, pl.Float32())] if keep.tokens else [])]


def _prompt_tokens(given: Mapping[str, Any], n: int, keep: Keep) -> list[pl.Series]:
    if "prompt_token_ids" not in given or not keep.tokens:
        return []
    tokens = _prompt_selection(given, n)
    ids = tokens.take("prompt_token_ids", given["prompt_token_ids"])
    _require_whole("prompt_token_ids", ids)
    return [tokens.lists("prompt_token_ids", ids, pl.Int32())]


def _prompt_selection(given: Mapping[str, Any], n: int) -> Tokens:
    value = given["prompt_token_ids"]
    named = [("prompt_token_ids", value)]
    tokens = Tokens.of(n, given.get("prompt_mask"), named=named, mask_name="prompt_mask")
    if tokens is None:
        wrong = f"has {rows('prompt_token_ids', value).shape}, padded without a mask"
        raise ParameterError("prompt_token_ids", wrong, "rows without padding, or prompt_mask beside it")
    return tokens


def _demand(tokens: Tokens | None, name: str, value: TensorLike) -> Tokens:
    if tokens is None:
        wrong = f"has {rows(name, value).shape}, and nothing says which entries are response tokens"
        raise ParameterError(name, wrong, "mask of the same shape, n_tokens, or a list of rows without padding")
    return tokens


def _require_whole(name: str, ids: NDArray[Any]) -> None:
    if ids.size and ids.dtype.kind not in "iu":
        raise ParameterError(name, f"are {ids.dtype}", "integers")
