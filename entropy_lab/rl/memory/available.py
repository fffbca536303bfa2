"""How much memory there is: of the GPU, or of the machine and what its container may use of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch

_PROC: Final = Path("/proc")
_CGROUPS: Final = Path("/sys/fs/cgroup")


def available_memory(device: torch.device, proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int:
    """Tell how many bytes a process may still take.

    Parameters
    ----------
    device
        A GPU: what is free on it. Otherwise the processor's memory: what is free or can be freed, and no more than the
        control groups of the process leave (version 1 and 2).
    proc, cgroups
        Where the system tells.

    Returns
    -------
    int
        Where it does not tell, as on macOS, all the memory that the machine has.

    Examples
    --------
    >>> 0 < available_memory(torch.device("cpu"))
    True
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    machine = _free(proc / "meminfo")
    limits = list(_left(_of_process(proc / "self" / "cgroup"), cgroups))
    return max(0, min([machine, *limits]))


def _free(meminfo: Path) -> int:
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_process(cgroup: Path) -> list[str]:
    """Paths of the process's control groups that may limit its memory."""
    lines = [line.split(":", 2) for line in cgroup.read_text().splitlines()] if cgroup.exists() else []
    return [path for _, controllers, path in lines if controllers in ("", "memory")]


def _left(paths: list[str], cgroups: Path) -> Iterator[int]:
    """Bytes that each control group of the process still has, from its own up to the root."""
    for path in paths or ["/"]:
        own = Path(path.strip("/"))
        # In a container its own group is the root that it sees, whatever its name outside.
        for each in dict.fromkeys((own, *own.parents)):
            yield from _left_in(cgroups / each, "memory.max", "memory.current", "inactive_file")
            v1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _left_in(cgroups / "memory" / each, *v1)


def _left_in(folder: Path, limit: str, usage: str, reclaimable: str) -> Iterator[int]:
    try:
        words = [(folder / name).read_text().strip() for name in (limit, usage)]
        if words[0] == "max":
            return
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        # Pages of files that nobody uses are counted as used, and given back when memory is asked for.
        yield int(words[0]) - int(words[1]) + int(stat.get(reclaimable, 0))
    except OSError:
        return
