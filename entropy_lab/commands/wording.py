"""A summary in words: one line for each thing a person wants to know first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table as Listing

Lines = list[tuple[str, str]]
_DOES_WITHOUT: Final[Mapping[tuple[str, ...], str]] = {
    ("solve_rates", "epoch"): "; --param solve_rates.by=step does without"
}


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
    empty = summary.get("empty", {"analyses": ()})["analyses"]
    told = {**summary, "tables": {name: path for name, path in summary["tables"].items() if name not in empty}}
    if not summary["steps"]["n"]:
        told |= _without_rollouts(summary["skipped"])
    for key, words in _PARTS.items():
        if key in told:
            lines += words(told[key])
    for key, text in lines:
        listing.add_row(key, text)
    console.print(listing)


def _method(method: Mapping[str, Any]) -> str:
    if "label" in method:
        return str(method["label"])
    if method["name"] == "unknown":
        return "method unknown"
    params = ", ".join(f"{key}={value}" for key, value in (method.get("params") or {}).items())
    return f"{method['name']} ({params})" if params else str(method["name"])


def _steps(s: Mapping[str, Any]) -> Lines:
    return [("steps", f"{s['first']} to {s['last']} ({s['n']} recorded)")] if s["n"] else []


def _entropy(s: Mapping[str, Any]) -> Lines:
    change = f" ({_signed_percent(s['change'])})" if s["change"] else ""
    return [("entropy", f"{_ends(s)} nats/token{change}")]


def _covariance(s: Mapping[str, Any]) -> Lines:
    interval = f"[{_number(s['slope_ci_low'])}, {_number(s['slope_ci_high'])}]"
    window = f"first {s['first_steps']} steps" if s["first_steps"] else "all steps"
    slope = f"slope over accuracy {_number(s['slope'])} {interval} nats/token"
    return [("covariance", f"{slope}, Spearman {_number(s['spearman'])} ({window})")]


def _solve_rates(s: Mapping[str, Any]) -> Lines:
    window = f"of groups, {s['by']} {_ends({'start': s['first'], 'end': s['last']}, '{:g}'.format)}"
    return [(key.replace("_", "-"), f"{_ends(s[key], _percent)} {window}") for key in ("all_solved", "none_solved")]


def _likelihood(s: Mapping[str, Any]) -> Lines:
    correct, wrong = _number(s["increment_correct"]), _number(s["increment_wrong"])
    return [("likelihood", f"correct {correct}, wrong {wrong} nats/rollout an update ({s['reduction']})")]


def _ledger(s: Mapping[str, Any]) -> Lines:
    fit = s["fit"]
    if s["measured"] is None:
        return [("ledger", "no change was measured: no two successive steps were recorded")]
    if fit is None:
        why = "too few steps to fit the scale of what was predicted, or nothing was"
        return [("ledger", f"{s['measured']:+.3g} nats/token; {why}")]
    scale = f"{s['predictor']} × {_number(fit['scale'])} [{_number(fit['low'])}, {_number(fit['high'])}]"
    if not fit["identified"]:
        return [("ledger", f"{s['measured']:+.3g} nats/token; a scale of 0 cannot be ruled out ({scale})")]
    if fit["high"] < 0:
        return [("ledger", f"{s['measured']:+.3g} nats/token, against what was predicted ({scale})")]
    parts = [f"{name} channel {s[name]:+.3g}" for name in ("positive", "negative")]
    parts += [f"zero {s['zero']:+.3g}"] if s["zero"] else []
    text = f"{', '.join(parts)} of {s['measured']:+.3g} nats/token measured"
    return [("ledger", f"{text} ({scale}, R² {fit['r2']:.2f})")]


def _entropy_audit(s: list[Mapping[str, Any]]) -> Lines:
    """Tell what each logged entropy is; of the rollouts' own columns, only what is wrong with them."""
    lines = []
    for row in s:
        if row["verdict"] in ("consistent", "aligned", "undecided"):
            continue
        what = f"{row['definition']}, {row['estimator']} ({row['verdict']})" if row["definition"] else row["verdict"]
        number = f" = {_number(row['nats_per_token'])} nats/token" if row["nats_per_token"] is not None else ""
        lines.append(("audit", f"{row['name']}: {what}{number}" + (f"; {row['note']}" if row["note"] else "")))
    return lines


def _training(s: Mapping[str, Any]) -> Lines:
    return [("reward", _ends(s["reward"]))]


def _validation(s: Mapping[str, Any]) -> Lines:
    lines = []
    for way in ("greedy", "sampled", "answers"):
        if (ends := s.get(way)) is not None:
            over = f"mean of {n} benchmarks" if (n := ends["n_benchmarks"]) > 1 else "1 benchmark"
            change = f"{way} {ends['start']:.3f} → {ends['end']:.3f}"
            lines.append(("validation", f"{change} ({over}, from step {ends['first_step']})"))
    return lines


def _imported(s: Mapping[str, Any]) -> Lines:
    return [("imported", f"from {s['format']}: {s['version']}")]


def _logged(s: Mapping[str, Mapping[str, Any]]) -> Lines:
    spoken = {"entropy": "nats/token", "mean_length": "tokens"}
    parts = [f"{name.replace('_', ' ')} {_ends(ends)} {spoken.get(name, '')}".rstrip() for name, ends in s.items()]
    return [("logged", ", ".join(parts))] if parts else []


def _record(s: list[Mapping[str, Any]]) -> Lines:
    return [("to record", f"{', '.join(item['columns'])}: {item['how']}") for item in s]


def _skipped(s: Mapping[str, list[str]]) -> Lines:
    return [
        ("skipped", f"{name}: this run did not record {', '.join(columns)}{_DOES_WITHOUT.get((name, *columns), '')}")
        for name, columns in s.items()
    ]


def _empty(s: Mapping[str, Any]) -> Lines:
    return [("empty", f"{', '.join(s['analyses'])}: {s['why']}")]


def _without_rollouts(skipped: Mapping[str, list[str]]) -> dict[str, Any]:
    """Say once of all analyses of rollouts what they lack, where there are none."""
    passes = {name: columns for name, columns in skipped.items() if all(each.startswith("evals.") for each in columns)}
    others = ", ".join(name for name in skipped if name not in passes)
    return {"skipped": ({others: ["any rollouts"]} if others else {}) | passes}


def _left_out(s: list[Mapping[str, Any]]) -> Lines:
    return [
        (
            "left out",
            f"{'all' if item['rows'] is None else format(item['rows'], ',')} rows of {item['file']}: {item['why']}",
        )
        for item in s
    ]


def _tables(s: Mapping[str, str]) -> Lines:
    names = (Path(path).stem for path in s.values())
    return [("tables", f"{Path(next(iter(s.values()))).parent}/ ({', '.join(names)})")] if s else []


def _figures(s: list[str]) -> Lines:
    names = dict.fromkeys(Path(path).stem for path in s)
    return [("figures", f"{Path(s[0]).parent}/ ({', '.join(names)}, as PNG and PDF)")] if s else []


_PARTS: Final[Mapping[str, Callable[[Any], Lines]]] = {
    "imported": _imported,
    "steps": _steps,
    "entropy": _entropy,
    "covariance": _covariance,
    "solve_rates": _solve_rates,
    "likelihood": _likelihood,
    "ledger": _ledger,
    "entropy_audit": _entropy_audit,
    "training": _training,
    "validation": _validation,
    "logged": _logged,
    "empty": _empty,
    "skipped": _skipped,
    "record": _record,
    "left_out": _left_out,
    "tables": _tables,
    "figures": _figures,
}


def _ends(s: Mapping[str, Any], form: Callable[[Any], str] | None = None) -> str:
    """First and last value; one that did not change, or is of one step, once."""
    said = form or _number
    start, end = said(s["start"]), said(s["end"])
    return start if s["start"] == s["end"] else f"{start} → {end}"


def _signed_percent(change: float) -> str:
    """Whole percents; more digits where they would be 0."""
    return f"{change:+.0%}" if abs(change) >= 0.005 else f"{100 * change:+.1g}%"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
