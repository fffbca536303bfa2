"""Readers: runs of other frameworks, turned into ours without loss of what they recorded.

``open_any`` opens whatever it is given; ``registry.py`` lists the readers; ``reader.py`` says what one is.
"""

from entropy_lab.readers.convert import default_target, import_run, is_ours, open_any
from entropy_lab.readers.reader import Options
from entropy_lab.readers.registry import READERS, names

__all__ = ["READERS", "Options", "default_target", "import_run", "is_ours", "names", "open_any"]
