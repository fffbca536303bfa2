"""Whether the entropies that a run recorded beside its rollouts can be what they should be."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import polars as pl

from entropy_lab.entropy_inference import EXACT, alignment, lag_correlations
from entropy_lab.entropy_sums import SOURCES, EntropySums
from entropy_lab.run import Run

_OFF: Final = 0.01
_CERTAIN: Final = 4.0
"""A surplus of surprise is told when it is 1 % and four standard errors."""
_COPIES: Final = 0.99
_FILES: Final = 3


def judge_entropies(sums: EntropySums, largest: float) -> dict[str, Any] | None:
    """Judge the column ``entropy`` of the rollouts.

    Parameters
    ----------
    sums
        Of all rollouts.
    largest
        ln V, the greatest entropy there can be.

    Returns
    -------
    dict or None
        ``verdict``: ``"impossible"`` outside [0, ln V]; ``"Monte Carlo"`` where 99 % of responses have minus their own
        log-probability per token; ``"inconsistent"`` where the samples are more, or less, surprising than the entropies
        say; else ``"consistent"``. With ``error`` (relative surplus of surprise), ``nats_per_token``, ``estimator``,
        ``n_steps`` and ``note``. None without entropies.

    Examples
    --------
    >>> judge_entropies(EntropySums(), 11.0) is None
    True
    """
    values = sums.candidates("entropy", None)["token-mean"]
    if not np.isfinite(values).any():
        return None
    ratio, z = sums.surprise()
    row = {"n_steps": len(values), "error": ratio - 1, "nats_per_token": float(np.nanmean(values))}
    verdict, estimator, note = "consistent", SOURCES["entropy"], ""
    if sums.lowest < -EXACT or sums.highest > largest + EXACT:
        verdict = "impossible"
        note = f"from {sums.lowest:.4g} to {sums.highest:.4g} nats a token, not in [0, ln V = {largest:.4g}]"
    elif sums.share_of_copies > _COPIES:
        verdict, estimator = "Monte Carlo", SOURCES["logp"]
        note = "each is -logp / n_tokens: the entropy on average only"
    elif abs(ratio - 1) > _OFF and abs(z) > _CERTAIN:
        verdict = "inconsistent"
        why = "another temperature or policy, top-p or top-k"
        note = f"-log π of the samples is {ratio - 1:+.1%} off (z = {z:.0f}): {why}"
    return {"verdict": verdict, "estimator": estimator, "note": note, **row}


def judge_tokens(run: Run) -> dict[str, Any] | None:
    """Look for lists of token entropies that are shifted against the log-probabilities, in three steps.

    Parameters
    ----------
    run
        The run; only ``token_entropy`` and ``token_logp`` of an early, a middle and a late step are read.

    Returns
    -------
    dict or None
        ``verdict``: ``"aligned"``, ``"misaligned"`` or ``"undecided"``, with ``n_steps`` and ``note``. None where no
        file has both lists.
    """
    names = ["token_entropy", "token_logp"]
    files = [file for file, schema in run.sound_files.items() if set(names) <= set(schema)]
    chosen = files[:: max(len(files) // _FILES, 1)][:_FILES]
    frames = [file.read(names).drop_nulls() for file in chosen]
    lists = pl.concat(frames).with_row_index() if frames else pl.DataFrame()
    if lists.is_empty():
        return None
    equal = lists.filter(pl.col(names[0]).list.len() == pl.col(names[1]).list.len())
    tokens = equal.explode(names).drop_nulls()
    entropy, logp = (tokens[name].cast(pl.Float64).to_numpy() for name in names)
    found = lag_correlations(entropy, logp, tokens["index"].to_numpy())
    verdict, best = alignment(found)
    spoken = {-1: "one token late", 0: "in place", 1: "one token early"}[best]
    note = (
        f"most like -token_logp {spoken} (" + ", ".join(f"r = {r:.2f} at {lag}" for lag, (r, _) in found.items()) + ")"
    )
    if len(equal) < len(lists):
        note += f"; {len(lists) - len(equal):,} of {len(lists):,} responses have lists of unequal lengths"
    return {"verdict": verdict, "n_steps": len(chosen), "note": note}
