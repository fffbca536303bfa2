"""Other places that a run's numbers go to while it is made: TensorBoard, Weights & Biases, trackio.

A trainer opens them once, `open_sinks`, and hands them what it writes to ``metrics.jsonl``: that file is the record,
they are views of it.
"""

from entropy_lab.rl.sinks.opening import SINKS, open_sinks, require_sinks
from entropy_lab.rl.sinks.sink import LoggedRun, Sink, Sinks
from entropy_lab.rl.sinks.validation import accuracies

__all__ = ["SINKS", "LoggedRun", "Sink", "Sinks", "accuracies", "open_sinks", "require_sinks"]
