"""Settings that a framework saved beside its run: YAML files, and values deep inside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from entropy_lab.readers.tree import cannot_read

if TYPE_CHECKING:
    from entropy_lab.readers.sink import Sink


def read_yaml(file: Path, label: str, sink: Sink) -> dict[str, Any]:
    """Read a YAML file of settings; an empty dictionary, with a warning, when it cannot be read as one.

    Raises
    ------
    RunFormatError
        The operating system refuses to read it.
    """
    try:
        import yaml
    except ImportError:
        sink.warn(f"{label}: settings are not read: pip install 'entropy-lab[readers]' (PyYAML)")
        return {}
    try:
        value = yaml.safe_load(file.read_bytes())
    except OSError as error:
        raise cannot_read(label, error) from error
    except yaml.YAMLError as error:
        sink.warn(f"{label}: settings are not read: no YAML ({str(error).splitlines()[0]})")
        return {}
    return value if isinstance(value, dict) else {}


def unwrapped(settings: dict[str, Any]) -> dict[str, Any]:
    """Undo the form of W&B's ``config.yaml``, which wraps each top-level value.

    Examples
    --------
    >>> unwrapped({"lr": {"desc": None, "value": 0.1}, "_wandb": {"value": {}}}), unwrapped({"lr": 0.1})
    ({'lr': 0.1}, {'lr': 0.1})
    """
    if settings and all(isinstance(part, dict) and "value" in part for part in settings.values()):
        return {name: part["value"] for name, part in settings.items() if name != "_wandb"}
    return settings


def look_up(settings: Mapping[str, Any], dotted: str) -> Any:  # noqa: ANN401 - JSON
    """Find a setting by its path; None when it is absent, or a reference that only the framework resolves.

    Examples
    --------
    >>> look_up({"rollout": {"n": 8}}, "rollout.n"), look_up({"rollout": {"n": 8}}, "rollout.n.m")
    (8, None)
    >>> look_up({"rollout.n": 8}, "rollout.n")
    8
    """
    if dotted in settings:
        return settings[dotted]
    value: Any = settings
    for key in dotted.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return None if isinstance(value, str) and value.startswith("${") else value
