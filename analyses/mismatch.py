"""Mismatch lens: how far the sampler's policy is from the trainer's, beside how far each update moves the trainer's.

The first is a fault, or staleness; the second is learning. docs/analyses.md says what tells them apart.
"""

from typing import Any

import numpy as np
import polars as pl

from entropy_lab.batches import FloatArray, GroupBatch, IntArray
from entropy_lab.bootstrap import TOGETHER, Draws, percentile_interval
from entropy_lab.fold import Fold
from entropy_lab.json_values import json_value
from entropy_lab.policy_distance import (
    MEASURES,
    SUMS,
    growth_exponent,
    measures,
    position_terms,
    response_terms,
    summed,
    token_terms,
)
from entropy_lab.prompt_sums import PromptSums, bounded
from entropy_lab.run import Run
from entropy_lab.schema import ANALYSES
from entropy_lab.table import Table
from entropy_lab.token_columns import flat_tokens

NEEDS = ("logp", "sampler_logp", "n_tokens")
WANTS = ("logp_after", "token_logp", "token_sampler_logp", "token_logp_after")
PAIRS = {"": ("sampler_logp", "logp"), "drift_": ("logp", "logp_after")}
"""Prefix of columns -> source and target."""
BOUNDED = ("k1", "k3", "ess")
NAMES = tuple(f"{prefix}{name}" for prefix in PAIRS for name in SUMS)


def analyze(run: Run, *, n_boot: int = 400, confidence: float = 0.95, seed: int = 0) -> Fold:
    """Divergences of the trainer's policy from the sampler's, and of the updated policy from the trainer's.

    Parameters
    ----------
    run
        A run that recorded ``logp``, ``sampler_logp`` and ``n_tokens``. Drift needs ``logp_after``; what is measured on
        tokens, and by position, needs ``token_logp`` and ``token_sampler_logp`` (drift: ``token_logp_after``).
    n_boot, confidence, seed
        Resamples (of prompts), coverage and seed of the intervals.

    Returns
    -------
    Fold
        Its table has one row per step, one per bin of positions over all steps, and one of the whole run: step,
        position, n_rollouts, n_tokens, and for the mismatch and (``drift_``) the drift k1, k3 and ess with bounds,
        chi_square, response_k3, response_chi_square, spread; see `entropy_lab.policy_distance.measures`. In rows by
        position, those of responses are of their beginnings up to and including the bin's first token. Metadata: the
        parameters, ``identical`` (both log-probabilities are the same numbers: nothing is compared, and the columns of
        the mismatch are null), ``first`` (step, k1, spread and ess of the first recorded step: where that is 0, no
        update came between the two policies), ``mismatch_share`` (of the mean square log ratios of mismatch and drift
        together), ``growth`` (exponent of the spread over positions, with bounds: 1/2 for independent errors of tokens,
        1 for systematic ones) and ``drift_growth``.
    """
    return _Mismatch(n_boot, confidence, seed)


class _Mismatch(Fold):
    def __init__(self, n_boot: int, confidence: float, seed: int) -> None:
        self.n_boot, self.confidence, self.seed = n_boot, confidence, seed
        self.draws = Draws(n_boot, seed)
        self.waiting: dict[int, FloatArray] = {}
        self.steps: list[pl.DataFrame] = []
        self.whole, self.positions = PromptSums(("run",), NAMES), PromptSums(("position",), NAMES)
        self.largest = 0.0

    def add(self, batch: GroupBatch) -> None:
        """Sum by prompt: the step, the run, and the bins of positions."""
        length = np.where(batch["n_tokens"] > 0, batch["n_tokens"], np.nan)
        code = batch.prompt_codes[batch.group]
        prompts = batch.prompts.gather(np.unique(batch.prompt_codes, return_index=True)[1])
        parts = []
        for prefix, (source, target) in PAIRS.items():
            difference = np.where(np.isnan(length), np.nan, batch[target] - batch[source])
            known = ~np.isnan(difference)
            if not known.any():
                parts.append(np.zeros((len(prompts), len(SUMS))))
                continue
            if not prefix:
                self.largest = max(self.largest, float(np.abs(difference[known]).max(initial=0.0)))
            row, (before, after) = flat_tokens(batch, (f"token_{source}", f"token_{target}"), known)
            lengths = np.where(known[:, None], np.stack([length, difference], axis=1), 0.0)
            of_tokens = summed(token_terms(after - before), row, batch.n_rollouts)
            terms = np.concatenate([response_terms(difference), lengths, of_tokens], axis=1)
            parts.append(summed(terms, code, len(prompts)))
            self._add_positions(prefix, prompts, code[row], *position_terms(after - before, row))
        here = np.concatenate(parts, axis=1)
        if here.any():
            self.whole.add(prompts, {"run": np.zeros(len(prompts)), **dict(zip(NAMES, here.T, strict=True))})
            drawn, used = np.zeros((1 + self.n_boot, here.shape[1])), here.any(axis=0)
            drawn[0], drawn[1:, used] = here.sum(axis=0), self.draws.counts(len(here)) @ here[:, used]
            self.waiting[batch.step] = drawn
            if len(self.waiting) == TOGETHER:
                self._settle()

    def _settle(self) -> None:
        """Measure the steps that wait, all at once."""
        if self.waiting:
            self.steps.append(self._rows(np.stack(list(self.waiting.values()), axis=2), list(self.waiting)))
            self.waiting = {}

    def _add_positions(self, prefix: str, prompts: pl.Series, code: IntArray, at: IntArray, terms: FloatArray) -> None:
        if len(at):
            bins, column = np.unique(at, return_inverse=True)
            sums = summed(terms, code * len(bins) + column, len(prompts) * len(bins)).T
            columns = dict.fromkeys(NAMES, np.zeros(sums.shape[1]))
            columns |= {f"{prefix}{name}": values for name, values in zip(SUMS, sums, strict=True)}
            of_prompt = prompts.gather(np.repeat(np.arange(len(prompts)), len(bins)))
            self.positions.add(of_prompt, {**columns, "position": np.tile(bins, len(prompts))})

    def _rows(self, drawn: FloatArray, step: list[int] | None = None, position: IntArray | None = None) -> pl.DataFrame:
        """Measure sums (resamples, names, cells), of which the first resample is the estimate: one row a cell."""
        n = drawn.shape[2]
        counts = {"n_rollouts": drawn[0, SUMS.index("responses")], "n_tokens": drawn[0, SUMS.index("length")]}
        columns: dict[str, Any] = {
            "step": step or [None] * n,
            "position": [None] * n if position is None else position,
            **counts,
        }
        for number, prefix in enumerate(PAIRS):
            for name, values in measures(np.moveaxis(np.split(drawn, len(PAIRS), axis=1)[number], 1, -1)).items():
                bounds = bounded(prefix + name, prefix + name, values, self.confidence)
                columns |= bounds if name in BOUNDED else {prefix + name: values[0]}
        return pl.DataFrame({name: columns[name] for name in ANALYSES["mismatch"]}, strict=False)

    def table(self) -> Table:
        """Put the steps, the positions and the whole run below each other."""
        made: dict[str, Any] = {"n_boot": self.n_boot, "confidence": self.confidence, "seed": self.seed}
        self._settle()
        if not self.steps:
            return Table.of("mismatch", dict.fromkeys(ANALYSES["mismatch"], ()), **made)
        frames, first = list(self.steps), self.steps[0].row(0, named=True)
        made |= {
            "identical": self.largest == 0,
            "first": {name: json_value(first[name]) for name in ("step", "k1", "spread", "ess")},
        }
        cells = self.positions.cells["position"].to_numpy().astype(int)
        if len(cells):
            drawn = self.positions.resampled(self.n_boot, np.random.default_rng(self.seed))
            frames.append(self._rows(drawn, position=cells))
            for prefix, part in zip(PAIRS, np.split(drawn, len(PAIRS), axis=1), strict=True):
                exponents = growth_exponent(cells, measures(np.moveaxis(part, 1, -1))["spread"])
                low, high = percentile_interval(exponents[1:], self.confidence)
                found = {"exponent": exponents[0], "low": low, "high": high}
                made[f"{prefix}growth"] = {name: json_value(value) for name, value in found.items()}
        frames.append(self._rows(self.whole.resampled(self.n_boot, np.random.default_rng(self.seed))))
        both = [frames[-1][f"{prefix}spread"][0] ** 2 for prefix in PAIRS]
        made["mismatch_share"] = both[0] / sum(both) if sum(both) > 0 else None
        frame = pl.concat(frames, how="vertical_relaxed")
        if made["identical"]:
            compared = [*MEASURES, *(f"{name}_{end}" for name in BOUNDED for end in ("low", "high"))]
            frame = frame.with_columns(pl.lit(None, pl.Float64).alias(name) for name in compared)
        return Table.of("mismatch", {name: frame[name] for name in frame.columns}, **made)
