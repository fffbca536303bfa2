"""Sums by channel and accuracy beside the same sums by polars."""

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from entropy_lab.batches import GroupBatch
from entropy_lab.channels import CHANNELS, channel_frame, channel_sums

KINDS = [float("nan"), -1.5, 0.0, 2.0]


@given(st.lists(st.lists(st.tuples(*[st.sampled_from(KINDS)] * 3), min_size=1, max_size=4), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_rows_are_those_of_a_group_by(groups):
    sizes = [len(group) for group in groups]
    advantage, part, verdict = np.array([row for group in groups for row in group]).T
    correct = np.where(np.isnan(verdict), np.nan, verdict > 0)
    batch = GroupBatch(7, {"advantage": advantage, "correct": correct}, {}, np.cumsum([0, *sizes[:-1]]))
    found = channel_frame([channel_sums(batch, {"part": part})])

    rows = pl.DataFrame(
        {"advantage": advantage, "part": part, "correct": correct, "group": np.repeat(range(len(sizes)), sizes)}
    )
    rows = rows.fill_nan(None).with_columns(accuracy=pl.col("correct").mean().over("group"))
    rows = rows.filter(pl.col("advantage").is_not_null())
    sign = pl.col("advantage").sign().replace_strict({-1: "negative", 1: "positive", 0: "zero"}, return_dtype=pl.String)
    total = pl.when(pl.col("part").count() > 0).then(pl.col("part").sum()).alias("part")
    sums = [pl.col("group").n_unique().alias("n_groups"), pl.len().alias("n_rollouts"), total]
    cells = rows.group_by(sign.alias("channel"), "accuracy").agg(sums).sort("channel", "accuracy")
    whole = rows.select(pl.lit("all").alias("channel"), pl.lit(None, pl.Float64).alias("accuracy"), *sums)
    expected = pl.concat([cells, whole]).select(pl.lit(7, pl.Int32).alias("step"), pl.all())
    assert_frame_equal(found, expected, check_dtypes=False, check_exact=False)
    assert tuple(sorted(CHANNELS)) == CHANNELS
