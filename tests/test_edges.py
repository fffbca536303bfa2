"""Runs at the edge of what the format allows are analysed, checked and drawn without a warning."""

import json

import numpy as np
import pytest

import entropy_lab as el
from entropy_lab.cli import main

N = 8
EDGES = {
    "no verdict at all": ({"correct": [None] * N}, {"covariance": 0, "solve_rates": 0, "entropy": 2}),
    "groups of one": ({"group_id": np.arange(N), "sample": np.zeros(N, int)}, {"covariance": 0, "solve_rates": 1}),
    "one prompt": ({"prompt_id": ["a"] * N}, {"covariance": 1, "entropy": 2}),
    "every optional value absent": (
        {name: [None] * N for name in ("entropy", "logp", "logp_after", "advantage", "n_tokens", "epoch")},
        {"covariance": 0, "entropy": 2, "solve_rates": 0},
    ),
    "no token in any response": (
        {"n_tokens": np.zeros(N, int), "logp": np.zeros(N), "logp_after": np.zeros(N), "entropy": [None] * N},
        {"covariance": 0, "likelihood": 2},
    ),
    "every answer right": ({"correct": [True] * N}, {"covariance": 1, "solve_rates": 1}),
}


@pytest.mark.parametrize(("change", "rows"), EDGES.values(), ids=EDGES)
def test_edges(tmp_path, capsys, change, rows):
    writer = el.RunWriter(tmp_path / "run", method={"name": "grpo", "params": {}})
    for step in range(2):
        columns = {
            "prompt_id": [f"q{i // 4}" for i in range(N)],
            "group_id": np.arange(N) // 4,
            "sample": np.arange(N) % 4,
            "epoch": np.zeros(N, int),
            "correct": np.arange(N) % 2 == 0,
            "reward": np.zeros(N),
            "advantage": np.ones(N),
            "n_tokens": np.full(N, 3),
            "entropy": np.ones(N),
            **{name: -np.ones(N) for name in ("logp", "logp_after")},
        }
        writer.write_rollouts(step, columns | change)
    main(["check", str(writer.path)])
    capsys.readouterr()
    main(["analyze", str(writer.path), "--json"])
    output = capsys.readouterr()
    assert output.err == ""
    tables = json.loads(output.out)["tables"]
    assert {name: len(el.Table.read(writer.path / "analysis" / f"{name}.parquet")) for name in rows} == rows
    assert set(rows) <= set(tables)
