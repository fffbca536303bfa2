"""Entropy audit: which definition each logged entropy follows, what it is in nats per token, and what cannot be.

Trainers log as "entropy" means over tokens, over responses, sums, means over padding, and Monte Carlo estimates. Each
candidate is computed from the rollouts and compared with the logged number over steps; docs/analyses.md has the rules.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from entropy_lab.batches import FloatArray, GroupBatch
from entropy_lab.configuration import find_setting
from entropy_lab.entropy_columns import judge_entropies, judge_tokens
from entropy_lab.entropy_definitions import REDUCTIONS, Lengths, declared, is_entropy, per_token
from entropy_lab.entropy_inference import Judgement
from entropy_lab.entropy_sums import SOURCES, EntropySums
from entropy_lab.errors import MissingColumnError
from entropy_lab.fold import Fold
from entropy_lab.run import Run
from entropy_lab.schema import ANALYSES
from entropy_lab.table import Table

NEEDS = ()
COLUMNS = tuple(ANALYSES["entropy_audit"])
WANTS = ("n_tokens", "entropy", "logp")
LIMITS = ("loss_scale_factor", "max_response_length", "max_completion_length", "max_new_tokens")
MEAN_LENGTHS = ("mean_length", "response_length/mean", "completions/mean_length")
LARGEST = 2**20
"""More tokens than any vocabulary has: the bound where the run does not state its own."""

Row = dict[str, Any]


def analyze(run: Run) -> Fold:
    """Judge every logged entropy, and the entropies of the rollouts themselves.

    Parameters
    ----------
    run
        Any run; the more of ``entropy``, ``logp``, ``n_tokens`` and the token lists it has, the more can be said. Its
        ``config`` may declare ``loss_agg_mode``, the length limit of responses and ``vocab_size``.

    Returns
    -------
    Fold
        Its table has one row per logged name, and one each for the rollouts' ``entropy`` and ``token_entropy``: name,
        verdict, definition, estimator, n_steps, error (relative, median over steps), next_definition and next_error
        (the best that is ruled out), factor (to nats per token, median over steps), nats_per_token (mean over the
        steps compared), low, high, note. Verdicts of logged names: ``exact``, ``close``, ``equivalent`` (several
        definitions fit and agree within 1 %), ``declared`` (by name and settings, not by data), and, without a number,
        ``ambiguous`` (several fit and disagree), ``none fits``, ``undeclared``, ``impossible``, ``not computed``. Of
        columns: ``consistent``, ``Monte Carlo``, ``inconsistent``, ``impossible``; ``aligned``, ``misaligned``,
        ``undecided``.
    """
    metrics = run.metrics()
    if "step" not in metrics.columns:
        metrics = pl.DataFrame({"step": []})
    metrics = metrics.drop_nulls("step").unique("step", keep="last", maintain_order=True)  # as after a restart
    names = [name for name in metrics.columns if is_entropy(name) and metrics[name].dtype.is_numeric()]
    if not names and not {"entropy", "token_entropy"} & run.columns:
        raise MissingColumnError("entropy_audit", ["entropy"])
    return _Audit(run, metrics, names)


class _Audit(Fold):
    def __init__(self, run: Run, metrics: pl.DataFrame, names: Sequence[str]) -> None:
        self.run, self.metrics, self.names, self.sums = run, metrics, names, EntropySums()
        self.columns = tuple(SOURCES) if names else ()  # what no number is held against is not read
        self.limit = self._setting(*LIMITS)
        self.largest = float(np.log(self._setting("vocab_size") or LARGEST))

    def add(self, batch: GroupBatch) -> None:
        """Sum the step's rollouts."""
        self.sums.add(batch)

    def table(self) -> Table:
        """Give one row per logged name and audited column."""
        rows = [row for name in self.names if (row := self._logged(name))]
        columns_of = {"entropy": judge_entropies(self.sums, self.largest), "token_entropy": judge_tokens(self.run)}
        rows += [{"name": f"rollouts.{name}", **row} for name, row in columns_of.items() if row]
        columns = {name: [None if (value := row.get(name)) == "" else value for row in rows] for name in COLUMNS}
        return Table.of("entropy_audit", columns, length_limit=self.limit, largest=self.largest)

    def _setting(self, *names: str) -> float | None:
        value = find_setting(self.run.info.get("config"), names)
        return float(value) if isinstance(value, int | float) and value > 0 else None

    def _logged(self, name: str) -> Row:
        """Judge a logged name: by the rollouts of its steps, else by what its framework and settings declare."""
        logged = self.metrics.select("step", pl.col(name).cast(pl.Float64)).filter(pl.col(name).is_finite())
        values = logged[name].to_numpy()
        row: Row = {"name": name, "n_steps": len(values)}
        if not len(values):
            return {}
        if not values.any():
            return {**row, "verdict": "not computed", "note": "0 at every step"}
        promised, monte_carlo = self._promised(name)
        found, late = self.sums.judge(dict(logged.rows()), self.limit, promised)
        if found.fitting:
            return row | self._fitted(found, late, promised)
        if np.isfinite(found.inference.error):
            nearest = f"{found.inference.next_name} is nearest, off by {found.inference.error:.1%}"
            row |= _compared(found) | {"note": nearest}
        else:
            row |= self._declared(logged, promised, monte_carlo)
        return self._bounded(row, values)

    def _promised(self, name: str) -> tuple[str, bool]:
        """Give the reduction that the framework declares, empty if it does not, and whether it is Monte Carlo."""
        imported = self.run.info.get("imported")
        imported = imported if isinstance(imported, dict) else {}
        theirs = imported.get("metric_names", {}).get(name, name)
        found = declared(theirs, imported.get("format", ""))
        how = found.how if found else ""
        if how == "loss_agg_mode":
            how = str(find_setting(self.run.info.get("config"), ("loss_agg_mode",)) or "")
        return how if how in REDUCTIONS else "", bool(found and found.monte_carlo)

    def _fitted(self, found: Judgement, late: int, promised: str) -> Row:
        """Tell what fits, and what follows for the number."""
        best, fitting = found.fitting[0], [f"{one.definition} ({one.estimator})" for one in found.fitting]
        if found.verdict == "ambiguous":
            return _compared(found) | {"note": f"these fit, and differ per token: {', '.join(fitting)}"}
        notes = [f"as well: {', '.join(fitting[1:])}"] if fitting[1:] else []
        notes += [f"logged a step {'after' if late > 0 else 'before'} its rollouts"] if late else []
        notes += [f"its framework declares {promised}"] if promised and promised not in best.definition else []
        room = 0.0
        if best.estimator != SOURCES["entropy"]:
            notes.append("held against the sampled tokens, which have the entropy on average only")
            room = 1.96 * float(np.sqrt(np.sum(self.sums.standard_error**2)) / len(self.sums.steps))
        numbers = {"nats_per_token": found.nats_per_token, "low": found.low - room, "high": found.high + room}
        words = {"definition": best.definition, "estimator": best.estimator, "note": "; ".join(notes)}
        return _compared(found) | {"factor": found.factor, **numbers, **words}

    def _declared(self, logged: pl.DataFrame, how: str, monte_carlo: bool) -> Row:
        """Convert by the name and the settings, with lengths from the metrics."""
        if not how:
            return {"verdict": "undeclared", "note": "no rollouts of its steps, and its name and settings do not say"}
        row: Row = {"verdict": "declared", "definition": how, "estimator": list(SOURCES.values())[monte_carlo]}
        sizes = logged.select("step").join(self.metrics, on="step", how="left")
        lengths = next((name for name in MEAN_LENGTHS if name in sizes.columns), None)
        mean = sizes[lengths].cast(pl.Float64, strict=False).to_numpy() if lengths else np.full(len(sizes), np.nan)
        n_tokens = (
            sizes["n_tokens"].cast(pl.Float64, strict=False).to_numpy()
            if "n_tokens" in sizes.columns
            else np.nan * mean
        )
        whole = n_tokens if how == "token-sum" else mean
        factor = per_token(how, Lengths(whole / mean, whole, np.nan * mean, self.limit))
        factor = np.ones(len(mean)) if how == "token-mean" else factor
        if not np.isfinite(factor).any():
            return {**row, "note": "cannot be put in nats per token: needs lengths, or the entropies of responses"}
        converted = float(np.nanmean(logged[:, 1].to_numpy() * factor))
        return {**row, "factor": float(np.nanmedian(factor)), "nats_per_token": converted}

    def _bounded(self, row: Row, logged: FloatArray) -> Row:
        """Refuse what no entropy can be."""
        values = logged * (row.get("factor") or 1.0)
        low, high = float(np.min(values)), float(np.max(values))
        above = f"reaches {high:.4g}, above ln V = {self.largest:.4g}"
        if low < 0 or (high > self.largest and row.get("factor")):
            wrong = f"negative ({low:.3g}), which no entropy is" if low < 0 else f"{above} nats a token"
            return {**row, "verdict": "impossible", "factor": None, "nats_per_token": None, "note": wrong}
        notes = [row.get("note"), f"{above}: no mean per token in nats" if high > self.largest else ""]
        return {**row, "note": "; ".join(filter(None, notes))}


def _compared(found: Judgement) -> Row:
    compared = found.inference
    row: Row = {"verdict": found.verdict, "n_steps": compared.n_steps, "error": compared.error}
    return {**row, "next_definition": compared.next_name or None, "next_error": compared.next_error}
