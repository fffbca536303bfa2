"""entropy-lab: where did my policy's entropy go, and was it the useful kind.

Names are imported when first used, so that ``import entropy_lab`` takes milliseconds and loads neither torch nor
matplotlib.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from entropy_lab import advantages
    from entropy_lab.analysis import analyze
    from entropy_lab.claims.audit import audit
    from entropy_lab.diagnosis.diagnose import diagnose
    from entropy_lab.figure import draw
    from entropy_lab.monitoring.monitor import Monitor
    from entropy_lab.readers import open_any
    from entropy_lab.recording.recorder import Recorder
    from entropy_lab.run import Run, open_run
    from entropy_lab.study import Study, open_study
    from entropy_lab.table import Table
    from entropy_lab.writer import RunWriter

__version__ = "0.1.0"
__all__ = [
    "Monitor",
    "Recorder",
    "Run",
    "RunWriter",
    "Study",
    "Table",
    "advantages",
    "analyze",
    "audit",
    "diagnose",
    "draw",
    "open_any",
    "open_run",
    "open_study",
]

_HOME = {
    "Monitor": "monitoring.monitor",
    "Recorder": "recording.recorder",
    "Run": "run",
    "RunWriter": "writer",
    "Study": "study",
    "Table": "table",
    "analyze": "analysis",
    "audit": "claims.audit",
    "diagnose": "diagnosis.diagnose",
    "draw": "figure",
    "open_any": "readers",
    "open_run": "run",
    "open_study": "study",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562
    if name == "advantages":
        return import_module("entropy_lab.advantages")
    if name in _HOME:
        return getattr(import_module(f"entropy_lab.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
