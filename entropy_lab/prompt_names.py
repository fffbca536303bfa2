"""Names of prompts that have none: the same wherever a run is recorded or imported, so that runs can be compared."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b


def prompt_ids(prompts: Iterable[str]) -> list[str]:
    """Name prompts by a hash of their text, 16 hexadecimal digits, the same in every step.

    Parameters
    ----------
    prompts
        Texts.

    Returns
    -------
    list of str
        One name each.

    Examples
    --------
    >>> ids = prompt_ids(["1+1=", "2+2=", "1+1="])
    >>> ids[0] == ids[2], ids[0] == ids[1], len(ids[0])
    (True, False, 16)
    """
    return [blake2b(prompt.encode("utf-8", "replace"), digest_size=8).hexdigest() for prompt in prompts]
