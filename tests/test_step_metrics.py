"""Shares of solved groups in a step's line of metrics.jsonl: unverified rollouts are left out, as everywhere else."""

import math

import numpy as np
import polars as pl
import pytest
import torch

from entropy_lab.recording.numbers import step_numbers
from entropy_lab.rl.engine import Rollouts
from entropy_lab.rl.logprobs import TokenScores
from entropy_lab.rl.record import Batch, step_metrics
from entropy_lab.rl.sequences import Sequences

ALL, MOST, NONE, FEW, UNKNOWN = [True] * 4, [True, True, None, True], [False] * 4, [None, False] * 2, [None] * 4
MIXED = [True, False, None, True]


def metrics_of(*groups):
    verdicts = [verdict for group in groups for verdict in group]
    n = len(verdicts)
    zeros = torch.zeros(n, 1)
    ones = torch.ones(n, dtype=torch.long)
    rollouts = Rollouts(ones[:, None], zeros, ones, torch.zeros(n, dtype=torch.bool))
    rewards = np.array([float(verdict is True) for verdict in verdicts]).reshape(len(groups), -1)
    sequences = Sequences.join([[2]] * n, [[1]] * n)
    batch = Batch(0, "made up", [], rollouts, sequences, [""] * n, verdicts, rewards)
    return step_metrics(batch, TokenScores(zeros, zeros)), verdicts


@pytest.mark.parametrize("groups", [(ALL, NONE), (MOST, NONE, MIXED), (ALL, FEW, UNKNOWN), (MOST, FEW, MIXED, UNKNOWN)])
def test_solved_groups_are_counted_as_a_recorder_counts_them(groups):
    found, verdicts = metrics_of(*groups)
    columns = {"reward": [float(each is True) for each in verdicts], "correct": verdicts}
    expected = step_numbers(pl.DataFrame({**columns, "group_id": np.repeat(np.arange(len(groups)), 4)}))
    for name in ("all_solved", "none_solved", "unverified", "reward"):
        assert found[name] == pytest.approx(expected[name]), name


def test_a_group_that_is_right_where_it_was_verified_is_solved():
    found, _ = metrics_of(MOST, MIXED, FEW, UNKNOWN)
    assert (found["all_solved"], found["none_solved"]) == (1 / 3, 1 / 3)


def test_without_any_verdict_nothing_is_solved_or_unsolved():
    found, _ = metrics_of(UNKNOWN)
    assert math.isnan(found["all_solved"])
    assert math.isnan(found["none_solved"])
    assert found["unverified"] == 1
