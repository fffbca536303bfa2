"""A summary in words: one line for each thing a person wants to know first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table as Listing

Lines = list[tuple[str, str]]


def show(summary: Mapping[str, Any], console: Console) -> None:
    """Print what ``summary.summarise`` found, with where the files are.

    Parameters
    ----------
    summary
        The summary, with ``tables`` (analysis -> path) and ``figures`` (paths).
    console
        Where to print.
    """
    listing = Listing(box=None, show_header=False, pad_edge=False)
    listing.add_column(style="cyan", no_wrap=True)
    listing.add_column()
    lines = [("run", f"{summary['run']}, {_method(summary['method'])}")]
    for key, words in _PARTS.items():
        if key in summary:
            lines += words(summary[key])
    for key, text in lines:
        listing.add_row(key, text)
    console.print(listing)


def _method(method: Mapping[str, Any]) -> str:
    if "label" in method:
        return str(method["label"])
    params = ", ".join(f"{key}={value}" for key, value in (method.get("params") or {}).items())
    return f"{method['name']} ({params})" if params else str(method["name"])


def _steps(s: Mapping[str, Any]) -> Lines:
    return [("steps", f"{s['first']} to {s['last']} ({s['n']} recorded)")] if s["n"] else []


def _entropy(s: Mapping[str, Any]) -> Lines:
    change = f" ({s['change']:+.0%})" if s["change"] is not None else ""
    return [("entropy", f"{_number(s['start'])} → {_number(s['end'])} nats/token{change}")]


def _covariance(s: Mapping[str, Any]) -> Lines:
    interval = f"[{_number(s['slope_ci_low'])}, {_number(s['slope_ci_high'])}]"
    window = f"first {s['first_steps']} steps" if s["first_steps"] else "all steps"
    slope = f"slope over accuracy {_number(s['slope'])} {interval} nats/token"
    return [("covariance", f"{slope}, Spearman {_number(s['spearman'])} ({window})")]


def _solve_rates(s: Mapping[str, Any]) -> Lines:
    window = f"of groups, {s['by']} {s['first']} → {s['last']}"
    return [
        (key.replace("_", "-"), f"{_percent(s[key]['start'])} → {_percent(s[key]['end'])} {window}")
        for key in ("all_solved", "none_solved")
    ]


def _likelihood(s: Mapping[str, Any]) -> Lines:
    correct, wrong = _number(s["increment_correct"]), _number(s["increment_wrong"])
    return [("likelihood", f"correct {correct}, wrong {wrong} nats/rollout an update ({s['reduction']})")]


def _training(s: Mapping[str, Any]) -> Lines:
    return [("reward", f"{_number(s['reward']['start'])} → {_number(s['reward']['end'])}")]


def _validation(s: Mapping[str, Any]) -> Lines:
    mean = f"mean of {s['n_benchmarks']} benchmarks"
    return [
        ("validation", f"{way} {s[way]['start']:.3f} → {s[way]['end']:.3f} ({mean}, from step {s[way]['first_step']})")
        for way in ("greedy", "sampled", "answers")
        if way in s
    ]


def _skipped(s: Mapping[str, list[str]]) -> Lines:
    return [("skipped", f"{name}: this run did not record {', '.join(columns)}") for name, columns in s.items()]


def _left_out(s: list[Mapping[str, Any]]) -> Lines:
    return [
        (
            "left out",
            f"{'all' if item['rows'] is None else format(item['rows'], ',')} rows of {item['file']}: {item['why']}",
        )
        for item in s
    ]


def _tables(s: Mapping[str, str]) -> Lines:
    return [("tables", f"{Path(next(iter(s.values()))).parent}/ ({', '.join(s)})")] if s else []


def _figures(s: list[str]) -> Lines:
    names = dict.fromkeys(Path(path).stem for path in s)
    return [("figures", f"{Path(s[0]).parent}/ ({', '.join(names)}, as PNG and PDF)")] if s else []


_PARTS: Final[Mapping[str, Callable[[Any], Lines]]] = {
    "steps": _steps,
    "entropy": _entropy,
    "covariance": _covariance,
    "solve_rates": _solve_rates,
    "likelihood": _likelihood,
    "training": _training,
    "validation": _validation,
    "skipped": _skipped,
    "left_out": _left_out,
    "tables": _tables,
    "figures": _figures,
}


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
