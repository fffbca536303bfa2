r"""The final answer of a response: what stands in its last ``\boxed{}``, and whether a verifier may be given that."""

from __future__ import annotations

import re
from typing import Final

TAIL: Final = 20_000
"""Characters at the end of a response in which its answer is looked for."""
LONGEST: Final = 1_000
"""Characters of an answer; those of six known problem sets have 204 at most."""
DEEPEST: Final = 15
"""Brackets inside brackets of an answer; those of six known problem sets have 3 at most.

The time to parse set brackets doubles with every level: 15 levels take 6 s, 20 more than a minute.
"""

_TOKEN: Final = re.compile(r"\\f?box(?:ed)?\s*\{|\\[{}]|[{}]")
_BOXES: Final = ("\\boxed", "\\fbox")
_THOUSANDS: Final = re.compile(r"(?<=\d)(?:\\[,;: ]|,\\!|\{,\})(?=\d{3}(?!\d))")
_BASED: Final = re.compile(r"\s*\w+_\s*\{?(\d+)\}?\s*")


def last_boxed(text: str) -> str | None:
    r"""Find the last ``\boxed{...}`` (or ``\fbox{...}``) whose braces balance.

    Of a box inside a box it is the outer one. Takes one pass over the last `TAIL` characters, whatever they are.

    Parameters
    ----------
    text
        A response, or a worked solution.

    Returns
    -------
    str or None
        What stands between the braces; None without a balanced box.

    Examples
    --------
    >>> last_boxed(r"First \boxed{1}, no: $x = \boxed{\frac{1}{2}}$."), last_boxed("it is 5")
    ('\\frac{1}{2}', None)
    """
    text = text[-TAIL:]
    opened: list[int | None] = []  # where the content of a box begins; None for any other brace
    found = None
    for token in _TOKEN.finditer(text):
        if token[0] in ("\\{", "\\}"):
            continue
        if token[0] == "}":
            begin = opened.pop() if opened else None
            found = found if begin is None else text[begin : token.start()]
        else:
            opened.append(token.end() if token[0].startswith(_BOXES) else None)
    return found


def mended(answer: str) -> str:
    r"""Write an answer in the way that math-verify reads, where it would misread it; the meaning stays.

    A final full stop goes (``27.``), so do thin spaces between thousands (``1\,000``); ``\varnothing`` becomes
    ``\emptyset``.

    Parameters
    ----------
    answer
        A gold answer, or what `last_boxed` found.

    Returns
    -------
    str
        Without surrounding white space.

    Examples
    --------
    >>> mended(r" 12\,000. "), mended(r"\varnothing"), mended("1, 2, ..."), mended(r"2\,10")
    ('12000', '\\emptyset', '1, 2, ...', '2\\,10')
    """
    answer = _THOUSANDS.sub("", answer.strip()).replace("\\varnothing", "\\emptyset")
    return answer[:-1].rstrip() if answer.endswith(".") and not answer.endswith("..") else answer


def too_much(answer: str) -> str:
    """Say why an answer is not given to a verifier.

    Parameters
    ----------
    answer
        A gold answer, or what `last_boxed` found.

    Returns
    -------
    str
        ``too long`` (above `LONGEST`), ``too deep`` (above `DEEPEST`), or empty when nothing speaks against it.

    Examples
    --------
    >>> too_much("1" * 2000), too_much("(" * 100 + "1" + ")" * 100), too_much("1")
    ('too long', 'too deep', '')
    """
    if len(answer) > LONGEST:
        return "too long"
    depth = deepest = 0
    for character in answer:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return "too deep" if deepest > DEEPEST else ""


def other_base(gold: str, answer: str) -> bool:
    """Whether both are numbers with a base below them, and the bases differ; math-verify ignores the base.

    Parameters
    ----------
    gold, answer
        Answers.

    Returns
    -------
    bool
        False unless both are of the form ``52_8`` or ``52_{8}``.

    Examples
    --------
    >>> other_base("52_8", "52_{9}"), other_base("52_8", "52_{8}"), other_base("52_8", "52")
    (True, False, False)
    """
    bases = [_BASED.fullmatch(each) for each in (gold, answer)]
    return None not in bases and len({int(base[1]) for base in bases if base is not None}) == 2
