"""MLflow's folders and databases of a framework that nobody recognised."""

from __future__ import annotations

from typing import Final

from entropy_lab.readers.containers import container
from entropy_lab.readers.reader import Reader

READER: Final[Reader] = container("mlflow", "MLflow", "MLflow")
