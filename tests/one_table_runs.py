"""Runs of one table, entropies or answers, whose values a test states; and a panel of each."""

import numpy as np

from entropy_lab.plots.panels import Panel
from entropy_lab.plots.series import RunTables
from entropy_lab.table import Table

ENTROPY = Panel("a", "Entropy", "entropy", ("step",), "entropy", "entropy", "nats/token", low="ci_low", high="ci_high")
VALIDATION = Panel("b", "Validation", "validation", ("step",), "accuracy", "accuracy", "%", decoding=True)


def entropy_run(label="GRPO", seed=0, values=(0.4, 0.3, 0.2), method="grpo", steps=None, **more):
    values = np.asarray(values, dtype=float)
    steps = np.arange(len(values)) if steps is None else np.asarray(steps)
    columns = {"step": steps, "entropy": values, "ci_low": values - 0.05, "ci_high": values + 0.07}
    table = Table.of("entropy", columns, confidence=0.9)
    return RunTables(label, method, more.pop("params", {}), seed, 8, {"entropy": table}, **more)


def validation_run(rows, label="GRPO", seed=0):
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return RunTables(label, "grpo", {}, seed, 8, {"validation": Table.of("validation", columns, confidence=0.95)})


def answers(step, benchmark, accuracy, greedy=True, k=1):
    head = {"step": step, "benchmark": benchmark, "greedy": greedy, "k": k, "accuracy": accuracy}
    return head | {"ci_low": accuracy - 0.1, "ci_high": accuracy + 0.1}
