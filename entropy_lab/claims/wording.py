"""A claims table for readers: nested for JSON, and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import polars as pl

from entropy_lab.claims.quantities import QUANTITIES
from entropy_lab.table import Table

_CLAIM: Final = ("family", "claim", "text", "source", "verdict", "reason")
_SETTING: Final = ("setting", "setting_verdict", "setting_reason")
_P: Final = ("p_for", "p_against", "p_for_adjusted", "p_against_adjusted")


def nested(table: Table) -> list[dict[str, Any]]:
    """Turn the rows of an audit into claims that hold settings that hold parts.

    Parameters
    ----------
    table
        What `entropy_lab.claims.audit.audit` gives.

    Returns
    -------
    list of dict
        JSON values. Per claim family, claim, text, source, verdict, reason and ``settings``; per setting setting,
        verdict, reason, the p-values, ``parts`` and ``companions``; per part the other columns.

    Examples
    --------
    >>> from entropy_lab.claims.audit import audit
    >>> nested(audit([]))
    []
    """
    claims = []
    for _, rows in table.frame.group_by("claim", maintain_order=True):
        settings = [_setting(part) for _, part in rows.group_by("setting", maintain_order=True)]
        claims.append({**rows.select(_CLAIM).row(0, named=True), "settings": settings})
    return claims


def _setting(rows: pl.DataFrame) -> dict[str, Any]:
    about = rows.row(0, named=True)
    numbers = rows.drop(*_CLAIM, *_SETTING, *_P)
    return {
        **{name.removeprefix("setting_"): about[name] for name in (*_SETTING, *_P)},
        "parts": numbers.filter(pl.col("role") == "part").drop("role").to_dicts(),
        "companions": numbers.filter(pl.col("role") == "companion").drop("role").to_dicts(),
    }


def weakest(setting: Mapping[str, Any]) -> Mapping[str, Any]:
    """Choose the part of a claim that its verdict hangs on: the one with the largest p for it.

    Parameters
    ----------
    setting
        A setting of `nested` in which the claim was judged.

    Returns
    -------
    Mapping
        The part.
    """
    parts: Sequence[Mapping[str, Any]] = setting["parts"]
    return max(parts, key=lambda part: part["part_p_for"])


def spoken_part(part: Mapping[str, Any]) -> str:
    """Word what a part says: ``"entropy, EntIncrease − GRPO > 0"``; bounds of shares in percentage points.

    Parameters
    ----------
    part
        A part of `nested`.

    Returns
    -------
    str
        Quantity, difference and where it should lie.

    Examples
    --------
    >>> row = {"quantity": "none_solved", "contrast": "A − B", "condition": "between -0.02 and 0.02"}
    >>> spoken_part({**row, "unit": "fraction"})
    'none-solved, A − B between -2 and 2 points'
    """
    condition = part["condition"]
    if part["unit"] == "fraction" and condition.startswith("between"):
        low, high = (100 * float(bound) for bound in condition.split()[1::2])
        condition = f"between {low:g} and {high:g} points"
    return f"{QUANTITIES[part['quantity']].spoken}, {part['contrast']} {condition}"


def spoken_difference(part: Mapping[str, Any]) -> str:
    """Word a difference with its interval and unit; shares and accuracies in percentage points.

    Examples
    --------
    >>> row = {"unit": "fraction", "difference": 0.012, "ci_low": -0.003, "ci_high": 0.0271}
    >>> spoken_difference(row)
    '+1.20 [-0.30, +2.71] points'
    """
    if part["difference"] is None:
        return "–"
    scale, unit = (100.0, "points") if part["unit"] == "fraction" else (1.0, part["unit"].removesuffix("1"))
    values = [None if part[key] is None else scale * part[key] for key in ("difference", "ci_low", "ci_high")]
    size = max(abs(value) for value in values if value is not None)
    digits = 2 if size == 0 else max(0, 2 - math.floor(math.log10(size)))
    middle, low, high = ("–" if value is None else f"{value:+.{digits}f}" for value in values)
    return f"{middle} [{low}, {high}] {unit}".rstrip()


def how_to_read(table: Table) -> str:
    """Say in some sentences what the verdicts mean and what they are corrected for.

    Parameters
    ----------
    table
        What `entropy_lab.claims.audit.audit` gives.

    Returns
    -------
    str
        One paragraph.
    """
    facts = table.metadata
    paper, extras = (facts["hypotheses"][name] for name in ("paper", "extras"))
    return (
        "Supported: every part of the claim holds. Contradicted: a part is reversed. Inconclusive: these runs decide "
        f"neither. Holm's correction over {paper} claims × settings of the paper, and over {extras} of ours: any wrong "
        f"verdict among either has probability {facts['alpha']:g} at most. Intervals: {100 * facts['confidence']:g} %, "
        "over seeds, of one part alone."
    )


def markdown(table: Table) -> str:
    """Write an audit as Markdown: a table of verdicts, and one of the numbers of every part.

    Parameters
    ----------
    table
        What `entropy_lab.claims.audit.audit` gives.

    Returns
    -------
    str
        Companions are left out; the table has them.
    """
    claims = nested(table)
    names = [setting["setting"] for setting in claims[0]["settings"]] if claims else []
    head = _row("", "claim", "where", "verdict", *names) + "|---" * (4 + len(names)) + "|\n"
    verdicts = [
        _row(c["claim"], c["text"], c["source"], f"**{c['verdict']}**", *(s["verdict"] for s in c["settings"]))
        for c in claims
    ]
    columns = ("", "setting", "part", "difference [interval]", "pairs", "g", "P", "p for", "p against")
    numbers = [_part_row(c["claim"], s, part) for c in claims for s in c["settings"] for part in s["parts"]]
    legend = (
        f"{how_to_read(table)} g: Hedges' g of the paired differences; P: probability that a run of the first method "
        "is above one of the second (below, where the part says < 0); p: one-sided, of the part alone."
    )
    left_out = [f"- {name}: {text}\n" for name, texts in table.metadata["left_out"].items() for text in texts]
    parts = [head, *verdicts, "\n", _row(*columns), "|---" * len(columns) + "|\n", *numbers, "\n", legend, "\n"]
    return "".join([*parts, "\nLeft out:\n\n" if left_out else "", *left_out])


def _part_row(claim: str, setting: Mapping[str, Any], part: Mapping[str, Any]) -> str:
    shown = spoken_difference(part) if not part["part_reason"] else part["part_reason"]
    sizes = ("–" if part[key] is None else f"{part[key]:.2f}" for key in ("effect_size", "improvement"))
    tests = ("–" if part[key] is None else f"{part[key]:.2g}" for key in ("part_p_for", "part_p_against"))
    return _row(claim, setting["setting"], spoken_part(part), shown, str(part["n_pairs"]), *sizes, *tests)


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
