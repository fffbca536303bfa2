"""The audit: hold every claim against a study, and give one table of verdicts and of the numbers behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from entropy_lab.claims import rules
from entropy_lab.claims.claim import Claim, Part
from entropy_lab.claims.evidence import Evidence, Setting, gather, read_setting
from entropy_lab.claims.quantities import QUANTITIES
from entropy_lab.claims.registered import FAMILIES
from entropy_lab.figure import tables_of
from entropy_lab.plots.series import RunTables
from entropy_lab.study import Study, open_study
from entropy_lab.table import Table

_SCHEMA: Final[dict[str, Any]] = {
    **dict.fromkeys(("family", "claim", "text", "source", "verdict", "reason"), pl.String),
    **dict.fromkeys(("setting", "setting_verdict", "setting_reason"), pl.String),
    **dict.fromkeys(("p_for", "p_against", "p_for_adjusted", "p_against_adjusted"), pl.Float64),
    **dict.fromkeys(("role", "quantity", "contrast", "condition", "unit", "part_reason"), pl.String),
    **{"n_pairs": pl.Int64, "seeds": pl.List(pl.Int64)},
    **dict.fromkeys(("mean_first", "mean_second", "difference", "sd", "ci_low", "ci_high"), pl.Float64),
    **{"interval": pl.String},
    **dict.fromkeys(("interquartile_mean", "effect_size", "improvement", "part_p_for", "part_p_against"), pl.Float64),
}


@dataclass(frozen=True)
class _Judged:
    """A claim in a setting, before the correction for the number of claims."""

    claim: Claim
    setting: str
    parts: tuple[Evidence, ...]
    companions: tuple[Evidence, ...]
    p_for: float
    p_against: float

    @property
    def reason(self) -> str:
        reasons = (reason for part in self.parts for reason in part.reason.split("; ") if reason)
        return "; ".join(dict.fromkeys(reasons))


def audit(
    study: Study | str | Path | Sequence[RunTables],
    *,
    alpha: float = rules.ALPHA,
    confidence: float = 0.95,
    n_boot: int = 10_000,
    seed: int = 0,
) -> Table:
    """Judge the paper's claims C1 to C11, and our own X1 to X4, by a study's runs.

    Methods are compared pair by pair of the same seed, within a setting; ``docs/claims.md`` has the rules.

    Parameters
    ----------
    study
        A study, its path, or the tables of its runs.
    alpha
        Probability of any wrong verdict in a family of claims.
    confidence, n_boot, seed
        Coverage, resamples and seed of the intervals; they enter no verdict.

    Returns
    -------
    Table
        One row per claim, setting and part (``role`` "part") or companion ("companion"). Of the claim: family, claim,
        text, source, verdict, reason; of the claim in the setting: setting, setting_verdict, setting_reason, p_for,
        p_against and the same adjusted; of the part: quantity, contrast, condition, unit, part_reason, n_pairs, seeds,
        mean_first, mean_second, difference, sd, ci_low, ci_high, interval (its kind), interquartile_mean, effect_size
        (Hedges' g_z), improvement (probability), part_p_for, part_p_against. Null where a number does not exist.
        Metadata: the parameters, ``hypotheses`` (claims x settings judged, by family), ``left_out`` (runs, by
        setting), ``k`` (of pass@k, by setting).

    Raises
    ------
    RunNotFoundError, RunFormatError
        The study cannot be read.
    ParameterError
        A parameter is outside its range, or two runs have the same label, setting and seed.

    Examples
    --------
    >>> def run(seed, method, entropy):
    ...     table = Table.of("entropy", {"step": [0], "entropy": [entropy]})
    ...     return RunTables(method, method, {"beta_pos": 0.5}, seed, 8, {"entropy": table}, "tiny")
    >>> level = {0: 0.3, 1: 0.4, 2: 0.5}
    >>> runs = [run(seed, "reinforce", h) for seed, h in level.items()]
    >>> runs += [run(seed, "pos_only", h + 0.1 + 0.0001 * seed) for seed, h in level.items()]
    >>> rows = audit(runs).frame.filter(pl.col("role") == "part", pl.col("quantity") == "entropy")
    >>> rows.select("claim", "setting", "verdict", "reason").head(2).rows()
    [('C2', 'tiny', 'supported', ''), ('C4', 'tiny', 'inconclusive', 'no runs of Neg-Only 0.5')]
    """
    runs = _runs(study)
    names = list(dict.fromkeys(run.model for run in runs))
    settings = [read_setting(name, [run for run in runs if run.model == name]) for name in names]
    drawing = {"confidence": confidence, "n_boot": n_boot, "seed": seed}
    rows: list[dict[str, Any]] = []
    hypotheses: dict[str, int] = {}
    for family, claims in FAMILIES.items():
        judged = [_judge(claim, setting, drawing) for claim in claims for setting in settings]
        hypotheses[family] = sum(not case.reason for case in judged)
        rows += _rows(family, judged, alpha)
    metadata = {
        **{"alpha": alpha, "min_pairs": rules.MIN_PAIRS, **drawing, "hypotheses": hypotheses},
        "left_out": {setting.name: list(setting.left_out) for setting in settings},
        "k": {setting.name: setting.common.k for setting in settings},
    }
    frame = pl.DataFrame(rows, schema=_SCHEMA).with_columns(pl.col(pl.Float64).fill_nan(None))
    return Table("claims", frame, metadata)


def _runs(study: Study | str | Path | Sequence[RunTables]) -> Sequence[RunTables]:
    if isinstance(study, str | Path):
        study = open_study(study)
    return [tables_of(run) for run in study.runs] if isinstance(study, Study) else study


def _judge(claim: Claim, setting: Setting, drawing: Mapping[str, Any]) -> _Judged:
    parts = [gather(part, setting, **drawing) for part in claim.parts]
    companions = [gather(part, setting, **drawing) for part in _companions(claim)]
    sides_for = np.concatenate([part.p_for for part in parts])
    sides_against = np.concatenate([part.p_against for part in parts])
    judged = not any(part.reason for part in parts)
    p_for, p_against = rules.conjunction(sides_for, sides_against) if judged else (np.nan, np.nan)
    return _Judged(claim, setting.name, tuple(parts), tuple(companions), float(p_for), float(p_against))


def _companions(claim: Claim) -> list[Part]:
    """Each part in the companions of its quantity, then the claim's own."""
    twins = [
        Part(name, part.weights, part.relation, part.bounds, part.spoken)
        for part in claim.parts
        for name in QUANTITIES[part.quantity].companions
    ]
    return [*twins, *claim.companions]


def _rows(family: str, judged: Sequence[_Judged], alpha: float) -> list[dict[str, Any]]:
    """Correct for the number of claims of a family, judge, and give one row per part and companion."""
    p_for = rules.adjusted(np.array([case.p_for for case in judged]))
    p_against = rules.adjusted(np.array([case.p_against for case in judged]))
    verdicts = [rules.verdict(*pair, alpha) for pair in zip(p_for.tolist(), p_against.tolist(), strict=True)]
    rows = []
    for i, case in enumerate(judged):
        of_claim = [
            (other, verdict) for other, verdict in zip(judged, verdicts, strict=True) if other.claim is case.claim
        ]
        about = dict(
            **_about(family, of_claim),
            setting=case.setting,
            setting_verdict=verdicts[i],
            setting_reason=case.reason,
            p_for=case.p_for,
            p_against=case.p_against,
            p_for_adjusted=p_for[i],
            p_against_adjusted=p_against[i],
        )
        rows += [{**about, "role": "part", **_numbers(part), **_tests(part)} for part in case.parts]
        rows += [{**about, "role": "companion", **_numbers(part)} for part in case.companions]
    return rows


def _about(family: str, cases: Sequence[tuple[_Judged, str]]) -> dict[str, Any]:
    """Judge a claim over its settings, and say what that does not rest on."""
    claim = cases[0][0].claim
    verdicts = [verdict for case, verdict in cases if not case.reason]
    reasons = dict.fromkeys(case.reason for case, _ in cases if case.reason)
    missing = f"judged in {len(verdicts)} of {len(cases)} settings" if verdicts else " / ".join(reasons)
    return dict(
        family=family,
        claim=claim.id,
        text=claim.text,
        source=claim.source,
        verdict=rules.overall(verdicts),
        reason=missing if reasons else "",
    )


def _numbers(evidence: Evidence) -> dict[str, Any]:
    part = evidence.part
    return dict(
        quantity=part.quantity,
        contrast=part.contrast,
        condition=part.condition,
        unit=QUANTITIES[part.quantity].unit,
        part_reason=evidence.reason,
        n_pairs=len(evidence.seeds),
        seeds=list(evidence.seeds),
        mean_first=evidence.means[0],
        mean_second=evidence.means[1],
        difference=evidence.difference,
        sd=evidence.sd,
        ci_low=evidence.interval[0],
        ci_high=evidence.interval[1],
        interval=evidence.interval[2],
        interquartile_mean=evidence.interquartile_mean,
        effect_size=evidence.effect_size,
        improvement=evidence.improvement,
    )


def _tests(evidence: Evidence) -> dict[str, float]:
    if evidence.reason:
        return {"part_p_for": np.nan, "part_p_against": np.nan}
    p_for, p_against = rules.conjunction(evidence.p_for, evidence.p_against)
    return {"part_p_for": float(p_for), "part_p_against": float(p_against)}
