"""``entropy-lab figures``: the paper's figures and Table 1 from a study, or from one run."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from entropy_lab.cli import Figures
from entropy_lab.commands.terminal import console
from entropy_lab.figure import draw_all, tables_of
from entropy_lab.plots.series import RunTables
from entropy_lab.study import Study, open_study


def run(command: Figures) -> None:
    """Analyse every run, draw, and say where the pictures are and what could not be drawn."""
    study = open_study(command.study)
    runs = analysed(study)
    out = command.out or command.study
    files, tables = draw_all(runs, command.names, out / "figures")
    for name, table in tables.items():
        table.write(out / "tables" / f"{name}.parquet")
    screen = console()
    width = max(map(len, ("runs    ", *tables)))
    for model in dict.fromkeys(run.model for run in runs):
        counts = Counter(run.label for run in runs if run.model == model)
        listed = "; ".join(f"{label} × {n}" for label, n in counts.items())
        screen.print(f"{'runs':{width}} {listed}{_of(model, runs)}")
    for name, table in tables.items():
        pictures = [str(file) for file in files if file.stem == name]
        screen.print(f"{name:{width}} {' '.join(pictures)}")
        for reason in dict.fromkeys(f"panel {gap['panel']}: {gap['reason']}" for gap in table.metadata["missing"]):
            screen.print(f"[yellow]{'':{width}} without {reason}[/]")
    if not tables:
        screen.print("nothing to draw: no run has the tables of a figure; entropy-lab check RUN says what is missing")


def _of(model: str, runs: list[RunTables]) -> str:
    """Name the setting where there are several."""
    return f" ({model})" if model and len({run.model for run in runs}) > 1 else ""


def analysed(study: Study) -> list[RunTables]:
    """Give the tables of every run, with a bar on stderr where that is a terminal."""
    screen = Console(stderr=True)
    if not screen.is_terminal:
        return [tables_of(run) for run in study.runs]
    columns = (TextColumn("analysing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True) as bar:
        return [tables_of(run) for run in bar.track(study.runs)]
