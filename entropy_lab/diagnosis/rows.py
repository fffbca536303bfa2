"""Checks of the recording itself: rows that appear twice, and columns that belong to other rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
import polars as pl

from entropy_lab.consistency import TOLERANCE, token_rules
from entropy_lab.diagnosis.checks import CONFIDENCE, Check, measured, measured_share, since_when
from entropy_lab.diagnosis.finding import CRITICAL, WARNING, Case, Measure, Onset, Undecided
from entropy_lab.diagnosis.observed import Observed
from entropy_lab.levels import level
from entropy_lab.step_files import UNREADABLE, StepFile

REPEATED: Final = 0.5
"""Share of a step's groups that must be those of another step."""
INVERTED: Final = 0.05
"""Share of mixed groups in which more reward got less advantage, above which rows do not belong together."""
UNRELATED: Final = 0.1
"""Correlation of minus log-probability with length and entropy, below which they are of different rollouts."""
DISAGREEING: Final = 0.01
"""Share of the rows looked at that must break a rule about their tokens."""
TWINS_APART: Final = 0.01
"""Relative difference of the log-probabilities of equal responses that batches of other shapes do not make."""
_FILES, _ROWS = 5, 256
"""Steps whose token columns are looked at, and rows of each: they may be long."""
_LISTS: Final = ("token_ids", "token_logp", "token_logp_after", "token_entropy")
_WANTED: Final = ("group_id", "n_tokens", "logp", "logp_after", "entropy", *_LISTS)


def misaligned(observed: Observed) -> Case | Undecided | None:
    """Find advantages against their rewards, log-probabilities of other rollouts, or tokens unlike their totals."""
    evidence: list[Measure] = []
    since: list[Onset] = []
    inverted, coherence = observed.get("inverted"), observed.get("coherence")
    if inverted is not None and (found := level(inverted.values, CONFIDENCE)).low > INVERTED:
        evidence.append(
            measured_share("share of mixed groups in which more reward got less advantage", found, inverted)
        )
        since.append(since_when(inverted, 1, observed))
    if coherence is not None and len(coherence) >= 3:
        found = level(coherence.values, CONFIDENCE)
        if found.high < UNRELATED:
            label = "correlation of minus log-probability with length and entropy"
            evidence.append(measured(label, found, coherence))
            since.append(since_when(coherence, -1, observed))
    evidence += _token_disagreements(observed)
    if not evidence:
        return None
    what = f"columns of one row do not belong together ({evidence[0].label}: {evidence[0].value:.2g})"
    return Case(CRITICAL, what, tuple(evidence), min(since, key=lambda onset: onset.step, default=None))


def repeated(observed: Observed) -> Case | Undecided | None:
    """Find steps of which at least half of the groups are those of an earlier step, number for number."""
    observed.get("distinct_logp")
    observed.get("distinct_entropy")
    held = [
        (step, sketch.tolist())
        for step, sketch in zip(observed.rollout_steps, observed.sketches, strict=True)
        if len(sketch)
    ]
    pairs = list(_repeats(held))
    if not pairs:
        return None
    steps = [step for step, _, _ in pairs]
    shown = ", ".join(f"{step:g} repeats {origin:g}" for step, origin, _ in pairs[:3]) + (", …" if pairs[3:] else "")
    return Case(
        WARNING,
        f"{len(pairs)} of {len(held)} steps hold the rollouts of an earlier step: {shown}",
        (
            Measure("steps that repeat an earlier one", float(len(pairs)), None, None, "steps", steps[0], steps[-1]),
            Measure("share of their groups that is repeated", float(np.mean([share for _, _, share in pairs]))),
        ),
        Onset.at(steps[0]),
    )


def _repeats(held: list[tuple[float, list[int]]]) -> Iterator[tuple[float, float, float]]:
    """Yield each step that repeats another, that one, and the share of its groups."""
    first: dict[int, float] = {}
    for step, groups in held:
        origins = Counter(first[group] for group in groups if group in first)
        for group in groups:
            first.setdefault(group, step)
        if origins:
            origin, n = origins.most_common(1)[0]
            if n / len(groups) >= REPEATED:
                yield step, origin, n / len(groups)


def _token_disagreements(observed: Observed) -> list[Measure]:
    """Look at the first rows of a few steps: totals against tokens, and equal responses with unequal totals."""
    files = list(observed.run.sound_files.items())
    chosen = np.unique(np.linspace(0, len(files) - 1, _FILES).astype(int)) if files else ()
    counts: Counter[str] = Counter()
    n_rows = 0
    for file, schema in (files[index] for index in chosen):
        if file not in observed.looked_at:
            observed.looked_at[file] = _broken_rules(file, schema)
        n_looked_at, broken = observed.looked_at[file]
        n_rows += n_looked_at
        counts.update(broken)
    if n_rows:
        observed.note(f"rollouts: token columns of {n_rows} rows")
    return [
        Measure(text, n / n_rows, unit="of the rows looked at")
        for text, n in counts.items()
        if n > DISAGREEING * n_rows
    ]


def _broken_rules(file: StepFile, schema: Mapping[str, pl.DataType]) -> tuple[int, Mapping[str, int]]:
    """Look at the first rows of a step: how many they are, and how many break each rule about their tokens."""
    names = [name for name in _WANTED if name in schema]
    if not set(names) & set(_LISTS):
        return 0, {}
    try:
        frame = pl.scan_parquet(file.path, glob=False).select(names).head(_ROWS).collect()
    except UNREADABLE:  # said by whoever reads the rollouts
        return 0, {}
    rules = token_rules(names) | _mean_rules(names)
    broken = {text: frame.select(rule.fill_null(False).sum()).item() for text, rule in rules.items()}
    apart = {"equal responses of a group have unequal log-probabilities": _twins_apart(frame)}
    return frame.height, broken | apart


def _mean_rules(names: list[str]) -> dict[str, pl.Expr]:
    if not {"token_entropy", "entropy"} <= set(names):
        return {}
    mean, given = pl.col("token_entropy").list.mean().cast(pl.Float64), pl.col("entropy").cast(pl.Float64)
    off = (mean - given).abs() > TOLERANCE * pl.max_horizontal(given, pl.lit(1.0))
    return {"entropy is not the mean of token_entropy": off}


def _twins_apart(frame: pl.DataFrame) -> int:
    """Count rollouts of a group that have equal tokens, were sampled from one policy, and differ in log-probability."""
    if not {"token_ids", "logp", "group_id"} <= set(frame.columns):
        return 0
    logp = pl.col("logp").cast(pl.Float64)
    twins = frame.drop_nulls(["token_ids", "logp"]).group_by("group_id", "token_ids")
    sizes = twins.agg(n=pl.len(), apart=logp.max() - logp.min(), size=logp.abs().max())
    apart = pl.col("apart") > TWINS_APART * pl.max_horizontal("size", pl.lit(1.0))
    return int(sizes.filter(apart)["n"].sum())


CHECKS: Final = (
    Check(
        "misaligned_rows",
        "columns of other rows",
        (("inverted", "coherence"),),
        misaligned,
        "A batch that is reordered between sampling, scoring and recording puts one rollout's numbers beside "
        "another's; if training saw it so, it learned from other rollouts' rewards.",
        "docs/diagnosis.md",
        (
            "carry an id of each rollout through every reordering of the batch, and join by it",
            "find out whether only the recording is affected: compute some advantages anew from their rewards",
        ),
    ),
    Check(
        "duplicated_rows",
        "rollouts recorded twice",
        (("distinct_logp", "distinct_entropy"),),
        repeated,
        "The same rollouts under two steps: a buffer that was not emptied, or a batch that was used again; every mean "
        "over steps counts them twice.",
        "docs/diagnosis.md",
        ("record each batch once, when it is sampled", "leave the repeated steps out of analyses"),
    ),
)
