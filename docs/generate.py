"""Fill the generated parts of README.md and docs/*.md from the code, or check that they are up to date.

A part stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``.
Run ``python docs/generate.py`` to fill them, with ``--check`` to fail where one is stale.
"""

import ast
import contextlib
import io
import itertools
import json
import os
import re
import statistics
import sys
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from entropy_lab import advantages, recipes
from entropy_lab.claims.audit import audit
from entropy_lab.claims.quantities import QUANTITIES
from entropy_lab.claims.registered import FAMILIES
from entropy_lab.claims.wording import markdown
from entropy_lab.cli import main as command_line
from entropy_lab.diagnosis import advantages as advantage_checks
from entropy_lab.diagnosis import checks, entropy, exchange, groups, lengths, payoff, rows, updates
from entropy_lab.diagnosis.registry import CHECKS
from entropy_lab.diagnosis.signals import SIGNALS
from entropy_lab.figure import tables_of
from entropy_lab.plots.collect import collect
from entropy_lab.plots.series import RunTables
from entropy_lab.schema import ANALYSES, EVALS, METRICS, ROLLOUTS, Column
from entropy_lab.study import open_study

os.environ["COLUMNS"] = "80"  # help is as wide here as anywhere else
ROOT = Path(__file__).resolve().parent.parent
STUDY = ROOT / "examples" / "tiny-study"
PART = re.compile(r"(<!-- generated: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def columns(table: Mapping[str, Column], required: bool = True) -> str:
    """Tabulate the columns of a table."""
    head = "| column | dtype | unit | required | meaning |\n|---|---|---|---|---|\n"
    if not required:
        head = "| column | dtype | unit | meaning |\n|---|---|---|---|\n"
    rows = []
    for name, column in table.items():
        cells = [f"`{name}`", column.dtype, column.unit, *(["yes" if column.required else ""] if required else [])]
        rows.append("| " + " | ".join([*cells, column.meaning]) + " |\n")
    return head + "".join(rows)


def analyses() -> str:
    """Tabulate the tables of all analyses."""
    return "\n".join(f"### {name}\n\n{columns(table, required=False)}" for name, table in ANALYSES.items())


def formulas(names: Sequence[str]) -> str:
    """Tabulate advantages with their formulas."""
    head = "| name | formula | source |\n|---|---|---|\n"
    made = [advantages.modulation(name) for name in names]
    escape = str.maketrans({"|": "\\|"})
    return head + "".join(
        f"| `{e.name}` | {e.formula.translate(escape)} | {e.reference.translate(escape)} |\n" for e in made
    )


def claims() -> str:
    """Tabulate what is tested for every claim."""
    head = "| | claim | where | all of these must hold |\n|---|---|---|---|\n"
    rows = []
    for claim in (claim for family in FAMILIES.values() for claim in family):
        parts = "; ".join(f"`{part.quantity}`: {part.contrast} {part.condition}" for part in claim.parts)
        rows.append(f"| {claim.id} | {claim.text} | {claim.source} | {parts} |\n")
    return head + "".join(rows)


def quantities() -> str:
    """Tabulate the quantities that claims are about."""
    head = "| quantity | unit | per run | companions |\n|---|---|---|---|\n"
    rows = []
    for name, quantity in QUANTITIES.items():
        beside = ", ".join(f"`{companion}`" for companion in quantity.companions)
        rows.append(f"| `{name}` | {quantity.unit} | {quantity.meaning} | {beside} |\n")
    return head + "".join(rows)


def findings() -> str:
    """Tabulate what a diagnosis looks for, with what it needs and where that is from."""
    head = "| name | title | rule | needs | reference |\n|---|---|---|---|---|\n"
    lines = []
    for check in CHECKS.values():
        rule = " ".join((check.judge.__doc__ or "").split()).removeprefix("Find ")
        needs = "; ".join(" or ".join(f"`{name}`" for name in names) for names in check.needs)
        lines.append(f"| `{check.name}` | {check.title} | {rule} | {needs} | {check.reference} |\n")
    return head + "".join(lines)


def signals() -> str:
    """Tabulate the quantities that a diagnosis looks at."""
    head = "| signal | meaning | from columns | or from metrics |\n|---|---|---|---|\n"
    rows = []
    for name, signal in SIGNALS.items():
        cells = (", ".join(f"`{one}`" for one in given) for given in (signal.columns, signal.metrics))
        rows.append(f"| `{name}` | {signal.meaning} | " + " | ".join(cells) + " |\n")
    return head + "".join(rows)


def thresholds() -> str:
    """Tabulate the constants of the rules, with what they say of themselves."""
    head = "| where | constant | value | meaning |\n|---|---|---|---|\n"
    lines = []
    for module in (checks, entropy, payoff, exchange, updates, advantage_checks, groups, lengths, rows):
        file = Path(str(module.__file__))
        body = ast.parse(file.read_text(encoding="utf-8")).body
        for one, after in itertools.pairwise(body):
            told = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else None
            if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name) and isinstance(told, str):
                value = getattr(module, one.target.id)
                if isinstance(value, float) or (isinstance(value, int) and not one.target.id.startswith("_")):
                    meaning = " ".join(told.split())
                    lines.append(f"| `{file.name}` | `{one.target.id}` | {value:g} | {meaning} |\n")
    return head + "".join(lines)


def framework_settings() -> str:
    """Tabulate what the frameworks call the settings that advice is about."""
    with (Path(str(checks.__file__)).parent / "frameworks.toml").open("rb") as file:
        table = {name: parts.get("settings", {}) for name, parts in tomllib.load(file).items()}
    named = {framework: settings for framework, settings in table.items() if settings}
    settings = dict.fromkeys(setting for known in named.values() for setting in known)
    lines = ["| setting | " + " | ".join(named) + " |", "|---" * (1 + len(named)) + "|"]
    for setting in settings:
        cells = (f"`{known[setting]}`" if setting in known else "" for known in named.values())
        lines.append(f"| {setting} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def recipe_list() -> str:
    """List the recipes with the first line of their documentation."""
    lines = []
    for kind in recipes.KINDS:
        for name in recipes.names(kind):
            text = recipes.find(kind, name).read_text(encoding="utf-8")
            first = text.removeprefix('"""').strip().splitlines()[0].removesuffix('"""')
            lines.append(f"- `{kind}/{name}.py`: {first}\n")
    return "".join(lines)


def help_text(*words: str) -> Callable[[], str]:
    """Give what a command's ``--help`` prints."""

    def text() -> str:
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
            command_line([*words, "--help"])
        lines = [line.rstrip() for line in output.getvalue().rstrip().splitlines()]
        return "```\n" + "\n".join(lines) + "\n```\n"

    return text


@cache
def study() -> tuple[RunTables, ...]:
    """Read our study once for all parts."""
    return tuple(tables_of(run) for run in open_study(STUDY).runs)


def audited(section: int) -> Callable[[], str]:
    """Give the verdicts on the study (0), or the numbers of every part (1)."""
    return lambda: markdown(audit(study())).split("\n\n")[section] + "\n"


def table1() -> str:
    """Give Table 1 of the study, averages over benchmarks first."""
    recipe = recipes.load("figures", "table1")
    text: str = recipe.to_markdown(collect("table1", recipe.PANELS, study()))
    return text


def timings() -> str:
    """Tabulate where the time of the study went, per run of a setting."""
    spent = json.loads((STUDY / "timings.json").read_text(encoding="utf-8"))
    labels = {run.path.name: str(run.info["setting"]) for run in open_study(STUDY).runs if run.method["name"] != "base"}
    names = {"time_rollout": "rollouts", "time_update": "update", "time_logp": "increments", "time_eval": "validation"}
    names |= {"time_write": "writing", "time_analysis": "analyses", "seconds": "whole run", "cpu_seconds": "CPU"}
    lines = ["| setting | runs | " + " | ".join(names.values()) + " |", "|---" * (len(names) + 2) + "|"]
    for label in dict.fromkeys(labels.values()):
        runs = [spent[name] for name, its in labels.items() if its == label and name in spent]
        medians = [f"{statistics.median(run[name] for run in runs):.3g} s" for name in names]
        lines.append(f"| {label} | {len(runs)} | " + " | ".join(medians) + " |")
    hours = sum(run["cpu_seconds"] for run in spent.values()) / 3600
    return "\n".join(lines) + f"\n\n{len(spent)} runs, {hours:.1f} CPU hours in all.\n"


PARTS: Mapping[str, Callable[[], str]] = {
    "rollouts": lambda: columns(ROLLOUTS),
    "evals": lambda: columns(EVALS),
    "metrics": lambda: columns(METRICS),
    "analyses": analyses,
    "estimators": lambda: formulas(advantages.names()),
    "modulations": lambda: formulas(advantages.modulation_names()),
    "claims": claims,
    "quantities": quantities,
    "findings": findings,
    "signals": signals,
    "thresholds": thresholds,
    "framework-settings": framework_settings,
    "recipes": recipe_list,
    "help": help_text(),
    "help-analyze": help_text("analyze"),
    "help-figures": help_text("figures"),
    "help-claims": help_text("claims"),
    "help-diagnose": help_text("diagnose"),
    "help-watch": help_text("watch"),
    "help-study": help_text("study"),
    "study-verdicts": audited(0),
    "study-numbers": audited(1),
    "study-table1": table1,
    "study-timings": timings,
}


def filled(text: str) -> str:
    """Fill every generated part of a page."""
    return PART.sub(lambda part: f"{part[1]}{PARTS[part['name']]()}{part[3]}", text)


def main() -> None:
    """Fill or check all pages."""
    stale = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        if filled(text) != text:
            stale.append(str(page.relative_to(ROOT)))
            if "--check" not in sys.argv:
                page.write_text(filled(text), encoding="utf-8")
    if stale and "--check" in sys.argv:
        sys.exit(f"stale: {', '.join(stale)}. Hint: python docs/generate.py")


if __name__ == "__main__":
    main()
