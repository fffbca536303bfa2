"""Whether two measurements order methods alike, and how much of that is noise."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

_FEWEST = 5


def rank_agreement(ours: pl.DataFrame, theirs: Mapping[str, float]) -> dict[str, float] | None:
    """Spearman's rank correlation of two measurements over the methods that both have.

    Parameters
    ----------
    ours
        Columns method, seed (null: unknown) and y; null y is missing. A method's value is its mean over seeds.
    theirs
        Method -> value.

    Returns
    -------
    dict or None
        ``n`` methods; ``spearman``; ``low`` and ``high``, the least and greatest correlation that a single seed gives,
        and ``n_seeds``, the number of seeds that all n methods have (0: low and high are absent); ``chance``, what 95 %
        of unrelated orders stay within, ``t / sqrt(n - 2 + t^2)``. None for fewer than 5 methods or for one that is
        constant.

    Examples
    --------
    >>> ours = pl.DataFrame({"method": list("abcde"), "seed": [0] * 5, "y": [1.0, 2.0, 3.0, 5.0, 4.0]})
    >>> found = rank_agreement(ours, dict(zip("abcdef", (10, 20, 30, 40, 50, 60), strict=True)))
    >>> found["n"], round(found["spearman"], 2), round(found["chance"], 2)
    (5, 0.9, 0.88)
    """
    known = pl.DataFrame(
        {"method": list(theirs), "theirs": list(theirs.values())}, {"method": pl.String, "theirs": pl.Float64}
    )
    both = ours.filter(pl.col("y").is_finite()).join(known, on="method")
    means = both.group_by("method").agg(pl.col("y").mean(), pl.col("theirs").first())
    spearman = _spearman(means)
    if spearman is None:
        return None
    from scipy.special import stdtrit  # 0.2 s, and most figures need none

    t = float(stdtrit(len(means) - 2, 0.975))
    chance = t / (len(means) - 2 + t**2) ** 0.5
    found = {"n": len(means), "spearman": spearman, "chance": chance}
    whole = [part for part in both.drop_nulls("seed").partition_by("seed") if part["method"].n_unique() == len(means)]
    single = [value for value in map(_spearman, whole) if value is not None]
    return found | {"n_seeds": len(single)} | ({"low": min(single), "high": max(single)} if single else {})


def _spearman(values: pl.DataFrame) -> float | None:
    if len(values) < _FEWEST or values["y"].n_unique() < 2 or values["theirs"].n_unique() < 2:
        return None
    return float(values.select(pl.corr("y", "theirs", method="spearman")).item())
