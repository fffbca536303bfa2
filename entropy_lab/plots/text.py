"""Text on the page: how wide it is, and the footnote that says what is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final

from matplotlib.font_manager import FontProperties, findfont, get_font

from entropy_lab.plots.panels import panels_of
from entropy_lab.plots.style import FONT, FONT_SIZE, WIDTH
from entropy_lab.table import Table

LINE: Final = FONT_SIZE * 1.3 / 72
"""Inches from one line of text to the next."""
_SLACK: Final = 1.03
"""Letters are set on whole pixels, which may widen a line that much."""
_SUBPIXELS: Final = 16
_MOST_NAMED: Final = 3
"""So many runs that lack something are named."""


def footnote(table: Table, width: float = WIDTH, more: Sequence[str] = ()) -> list[str]:
    """Say what bands, pale lines and numbers are, and what is not drawn; panels that share a note share its text.

    Parameters
    ----------
    table
        As `entropy_lab.plots.collect.collect` makes it.
    width
        Inches that a line may take.
    more
        Sentences to add.

    Returns
    -------
    list of str
        Lines of text; none when there is nothing to say.

    Examples
    --------
    >>> from entropy_lab.plots.collect import collect
    >>> from entropy_lab.plots.panels import Panel
    >>> footnote(collect("mine", [Panel("a", "Reward", "training", ("step",), "reward", "reward", "1")], []))
    ['Not drawn: a (no training table)']
    """
    panels = panels_of(table)
    where: dict[str, list[tuple[str, str]]] = {}
    for panel in panels:
        for note in panel["notes"]:
            where.setdefault(note, []).append((panel["model"], panel["key"]))
    measured = [(panel["model"], panel["key"]) for panel in panels if not panel["published"]]
    notes: dict[str, list[str]] = {}
    for note, found in where.items():
        # What is published needs no letter: its note says what it is about.
        everywhere = set(found) in (set(measured), {(p["model"], p["key"]) for p in panels if p["published"]})
        notes.setdefault("" if everywhere else _named(found, measured), []).append(note)
    texts = []
    for of_panels, same in notes.items():
        text = "; ".join(same)
        texts.append(f"{of_panels}: {text}" if of_panels else text[:1].upper() + text[1:])
    texts += [f"Not drawn: {lacks}"] if (lacks := _absences(table.metadata["missing"])) else []
    return _wrapped(". ".join([*texts, *more]), width - 0.16)


def _wrapped(text: str, room: float) -> list[str]:
    lines: list[str] = []
    for word in text.split(" "):  # not at a no-break space
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and inches(longer) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _named(found: Sequence[tuple[str, str]], panels: Sequence[tuple[str, str]]) -> str:
    """Spell some panels: by letter where those of all models are meant, else with the model."""
    letters: dict[str, list[str]] = {}
    for model, key in found:
        letters.setdefault(key, []).append(model)
    models: dict[str, list[str]] = {}
    for key, of_models in letters.items():
        whole = len(of_models) == sum(key == other for _, other in panels)
        for model in [""] if whole else of_models:
            models.setdefault(model, []).append(key)
    return ", ".join(f"{model} {_spans(keys)}".strip() for model, keys in models.items())


def _absences(missing: Sequence[Mapping[str, str]]) -> str:
    whose: dict[str, dict[tuple[str, str], dict[str, None]]] = {}
    for lack in missing:
        runs = whose.setdefault(lack["reason"], {})
        runs.setdefault((lack["model"], lack["series"]), {})[lack["panel"]] = None
    texts = []
    for reason, runs in whose.items():
        same: dict[tuple[str, ...], list[str]] = {}
        for (model, series), keys in runs.items():
            same.setdefault(tuple(keys), []).append(" ".join(part for part in (model, series) if part))
        for keys_of, named in same.items():
            listed = "; ".join(named[:_MOST_NAMED]) + (f"; and {n} more" if (n := len(named) - _MOST_NAMED) > 0 else "")
            texts.append(f"{_spans(keys_of)} ({reason}{f': {listed}' if listed else ''})")
    return ", ".join(texts)


def _spans(keys: Sequence[str]) -> str:
    """Spell letters of panels; more than two numbered ones of a letter as a span: b1–b5."""
    letters: dict[str, list[str]] = {}
    for key in keys:
        letters.setdefault(key.rstrip("0123456789"), []).append(key)
    return ", ".join(f"{same[0]}–{same[-1]}" if len(same) > 2 else ", ".join(same) for same in letters.values())


def fitted(text: str, room: float) -> str:
    """Cut a text so that it fits a width on the page.

    Parameters
    ----------
    text
        One line, drawn in the figures' font size.
    room
        Inches.

    Returns
    -------
    str
        The text, or its beginning with an ellipsis.

    Examples
    --------
    >>> fitted("MATH-500", 1.0), fitted("a_benchmark_with_a_long_name", 1.0)
    ('MATH-500', 'a_benchmark_wit…')
    """
    if inches(text) <= room:
        return text
    most = next((n for n in range(len(text) - 1, 0, -1) if inches(text[:n] + "…") <= room), 0)
    return text[:most].rstrip() + "…"


@cache
def inches(text: str) -> float:
    """Measure the width of a text in the figures' font and size.

    Parameters
    ----------
    text
        One line.

    Returns
    -------
    float
        Inches.

    Examples
    --------
    >>> round(inches("AsymGRPO"), 2), inches("WWW") > 2 * inches("iii")
    (0.56, True)
    """
    font = get_font(findfont(FontProperties(family=FONT)))
    font.set_size(FONT_SIZE, 72 * _SUBPIXELS)
    font.set_text(text)
    wide: float = font.get_width_height()[0]
    return wide / 64 / 72 / _SUBPIXELS * _SLACK
