"""How much memory a training run needs, from settings and a model's configuration alone, and whether it is there."""

from entropy_lab.rl.memory.available import available_memory
from entropy_lab.rl.memory.estimate import MemoryEstimate, Part, estimate_host, estimate_memory
from entropy_lab.rl.memory.footprint import Footprint, footprint
from entropy_lab.rl.memory.requirement import require_memory
from entropy_lab.rl.memory.workload import Workload, tokens_of

__all__ = [
    "Footprint",
    "MemoryEstimate",
    "Part",
    "Workload",
    "available_memory",
    "estimate_host",
    "estimate_memory",
    "footprint",
    "require_memory",
    "tokens_of",
]
