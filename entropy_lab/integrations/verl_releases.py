"""The releases of verl whose trainer is known."""

from __future__ import annotations

from typing import Final

from entropy_lab.integrations.releases import Supported

SUPPORTED: Final = Supported("verl", "verl", (0, 9), (0, 9))
"""Its releases (major, minor) whose trainer and TransferQueue fields this was run with; 0.9.1 it was."""
