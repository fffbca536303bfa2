"""Presets: settings of a trainer in a file, for ``--preset NAME`` or, in a study, ``preset = "NAME"``."""
