"""The command line: what each command takes, and where it is done.

Only the arguments live here, so that ``entropy-lab --help`` answers at once; a command's own file is imported when it
is called.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

import tyro
from tyro.conf import FlagCreatePairsOff, Positional, arg, subcommand

from entropy_lab import __version__
from entropy_lab.errors import EntropyLabError, UnknownNameError

RunPath = Annotated[Path, arg(metavar="RUN", help_behavior_hint="")]
Out = Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="")]
Names = Annotated[tuple[str, ...], arg(metavar="[NAME …]", help_behavior_hint="")]
Flag = Annotated[bool, arg(help_behavior_hint="")]


@dataclass(kw_only=True)
class Foreign:
    """What the user says about a run that another framework wrote."""

    format: Annotated[str | None, arg(metavar="FORMAT", help_behavior_hint="")] = None
    """Framework that wrote the files (verl, trl, wandb, table, …), instead of recognising it."""
    map: Annotated[tuple[str, ...], arg(metavar="OURS=THEIRS …", help_behavior_hint="")] = ()
    """Columns that have other names there, e.g. reward=score correct=accuracy_reward."""
    correct_above: Annotated[float | None, arg(metavar="X", help_behavior_hint="")] = None
    """A rollout is correct when its reward is above X."""
    run_name: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None
    """Which run, of a file that holds several."""


@dataclass
class Analyze(Foreign):
    """Analyse a run: tables, figures, and a summary to read."""

    run: Positional[RunPath]
    """Directory of a run: ours (run.json), or the output or a log file of another framework (docs/readers.md)."""
    names: Positional[Names] = ()
    """Analyses to run, by name or by the path of your own (./mine.py); all built-in ones by default."""
    out: Out = None
    """Write analysis/ and figures/ here instead of into the run; another framework's run is imported here, too."""
    json: Flag = False
    """Print one JSON object on stdout and nothing else."""
    skip_invalid: Flag = False
    """Leave invalid rollouts out, counted and named, and analyse the rest."""
    param: Annotated[tuple[str, ...], arg(metavar="ANALYSIS.NAME=VALUE …", help_behavior_hint="")] = ()
    """Parameters of analyses, e.g. covariance.first_steps=100 solve_rates.by=step."""
    no_figures: Flag = False
    """Write tables only."""


@dataclass
class Figures:
    """Draw the paper's figures and Table 1 from a study (or from one run)."""

    study: Positional[Annotated[Path, arg(metavar="STUDY", help_behavior_hint="")]]
    """Directory that holds runs/<method>-seed<k>/, or a run."""
    names: Positional[Names] = ()
    """Figures to draw: figure1 … figure5, table1, or the path of your own; all by default."""
    out: Out = None
    """Write figures/ and tables/ here instead of into the study."""


@dataclass
class Claims:
    """Judge the paper's claims by a study: supported, contradicted or inconclusive, by rules fixed beforehand."""

    study: Positional[Annotated[Path, arg(metavar="STUDY", help_behavior_hint="")]]
    """Directory that holds runs/<method>-seed<k>/."""
    out: Out = None
    """Write tables/claims.parquet here instead of into the study."""
    markdown: Flag = False
    """Print Markdown on stdout and nothing else."""
    json: Flag = False
    """Print one JSON object on stdout and nothing else."""


@dataclass
class Check(Foreign):
    """Check every file of a run, and say what each analysis can and cannot read from it."""

    run: Positional[RunPath]
    """Directory of a run: ours (run.json), or the output or a log file of another framework (docs/readers.md)."""
    out: Out = None
    """Import another framework's run here instead of into entropy-lab/ beside its files."""


@dataclass
class Diagnose(Foreign):
    """Say what is wrong with a run: findings with evidence, since when, why, and what to change."""

    run: Positional[RunPath]
    """Directory of a run: ours (run.json), or the output or a log file of another framework (docs/readers.md)."""
    baseline: Annotated[Path | None, arg(metavar="RUN", help_behavior_hint="")] = None
    """A run known to be healthy, to judge this one beside."""
    fail_on: Annotated[tuple[str, ...], arg(metavar="NAME,… …", help_behavior_hint="")] = ()
    """Exit with 1 when one of these is found (more than a note), e.g. collapse,explosion; any for all of them."""
    json: Flag = False
    """Print one JSON object on stdout and nothing else."""
    markdown: Flag = False
    """Print Markdown on stdout and nothing else."""
    out: Out = None
    """Write diagnosis.json here, and keep the import of another framework's run; by default nothing is written."""
    skip_invalid: Flag = False
    """Leave invalid rows out, counted and named, and diagnose the rest."""


@dataclass
class Watch(Foreign):
    """Follow a run while it is trained: how it goes, and what is wrong as soon as that stands."""

    run: Positional[RunPath]
    """Directory of a run: ours (run.json), or the output or a log file of another framework (docs/readers.md)."""
    every: Annotated[float, arg(metavar="SECONDS")] = 3.0
    """Time between looks."""
    confirm: Annotated[int, arg(metavar="STEPS")] = 10
    """Steps through which a finding must stand before it is told (docs/watching.md)."""
    fail_on: Annotated[tuple[str, ...], arg(metavar="NAME,… …", help_behavior_hint="")] = ()
    """Stop and exit with 1 when one of these is told (more than a note), e.g. collapse,explosion; any for all."""
    stop_after: Annotated[float | None, arg(metavar="MINUTES", help_behavior_hint="")] = None
    """Stop when no step has come for so long; by default only when a run of ours has all its steps, or at Ctrl-C."""
    baseline: Annotated[Path | None, arg(metavar="RUN", help_behavior_hint="")] = None
    """A run known to be healthy, to judge this one beside."""
    wait: Flag = False
    """Wait for a run that is not there yet."""
    once: Flag = False
    """Look once."""
    json: Flag = False
    """Print one JSON object for each change on stdout and nothing else."""
    skip_invalid: Flag = False
    """Leave invalid rows out, counted and named, and judge the rest."""


@dataclass
class Import_(Foreign):
    """Turn what another framework wrote into a run: entropy-lab import DIR --out RUN."""

    run: Positional[RunPath]
    """Directory that a training run wrote, or one of its log files."""
    out: Annotated[Path, arg(metavar="RUN", help_behavior_hint="")]
    """Directory of the run to make; an earlier import there is replaced when the source has changed."""
    skip_invalid: Flag = False
    """Leave invalid rows and lines out, counted and named, and import the rest."""


@dataclass
class Score:
    """Recompute log-probabilities and entropies of recorded rollouts with checkpoints; recorded ones are kept."""

    run: Positional[RunPath]
    """Directory of the run, the one that holds run.json."""
    model: Annotated[str, arg(metavar="CKPT", help_behavior_hint="")]
    """Checkpoint before each update: 'ckpts/step-{step}'. Without {step}, a model of its own: logp_under_NAME."""
    after: Annotated[str | None, arg(metavar="CKPT", help_behavior_hint="")] = None
    """Checkpoint after each update, for increments: 'ckpts/step-{step+1}'."""
    as_policy: Annotated[int | None, arg(metavar="STEP", help_behavior_hint="")] = None
    """Without {step}: the one step whose policy the checkpoint is; only this step is scored."""
    name: Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")] = None
    """Keep the values in columns of this name, beside recorded ones: logp_under_NAME, …"""
    out: Out = None
    """Write a copy of the run there instead of adding to it."""
    temperature: Annotated[float | None, arg(metavar="T", help_behavior_hint="")] = None
    """Sampling temperature; run.json's by default, else 1."""
    prompt: Literal["auto", "text", "chat", "chat-boxed", "system-boxed", "plain"] = "auto"
    """How a prompt that was not recorded as tokens becomes some: text as it stands, or as entropy-lab train has it."""
    no_tokens: Flag = False
    """Leave out values by token."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of matrix products."""
    device: Annotated[str, arg(metavar="DEVICE")] = "auto"
    """auto takes the first GPU where there is one."""
    micro_tokens: Annotated[int, arg(metavar="N")] = 16384
    """Most tokens of one forward pass; changes memory and speed only."""


@dataclass
class Train:
    """Train a policy and record the run: entropy-lab train grpo --out RUN."""

    trainer: Positional[Annotated[str, arg(metavar="TRAINER", help_behavior_hint="")]]
    """A trainer by name or path; entropy-lab train grpo --help lists its settings."""


@dataclass
class Study:
    """Train every method of a study with several seeds; stop it at any time, the same command goes on."""

    plan: Positional[Annotated[str, arg(metavar="STUDY", help_behavior_hint="")]]
    """A built-in study (tiny), or the path of your own (./mine.toml)."""
    out: Out = None
    """Directory of the study; study-NAME by default."""
    seeds: Annotated[int | None, arg(metavar="N", help_behavior_hint="")] = None
    """Seeds of each method, instead of the file's."""
    jobs: Annotated[int, arg(metavar="N")] = 2
    """Runs at a time, each on one core."""
    keep: Literal["tables", "rollouts"] = "tables"
    """Keep the tables of the analyses (some 40 kB a run), or every rollout too (some 10 MB a run)."""
    dry_run: Flag = False
    """Print the plan and its estimated time, and do nothing."""


@dataclass
class Data:
    """Check problem files of the task math; without one, print the script that fetches six sets from the hub."""

    files: Positional[Annotated[tuple[Path, ...], arg(metavar="[FILE …]", help_behavior_hint="")]] = ()
    """JSON lines or Parquet; says what is used, repeated or shared, and which gold answers cannot be verified."""
    workers: Annotated[int, arg(metavar="N")] = 2
    """Most processes that verify."""


@dataclass
class List:
    """List trainers, analyses, figures, advantages, studies, presets, readers and tasks."""


@dataclass
class Copy:
    """Copy a recipe, a study or a preset to edit it: entropy-lab copy analyses/covariance ."""

    recipe: Positional[Annotated[str, arg(metavar="KIND/NAME", help_behavior_hint="")]]
    """trainers/NAME, analyses/NAME, figures/NAME, studies/NAME or presets/NAME."""
    target: Positional[Annotated[Path, arg(metavar="TARGET", help_behavior_hint="")]] = Path()
    """A folder, or the new file."""


@dataclass
class Doctor:
    """Check our additions to other frameworks: is the release known, is the plugin seen, does it work."""

    frameworks: Positional[Annotated[tuple[str, ...], arg(metavar="[FRAMEWORK …]", help_behavior_hint="")]] = ()
    """trl, verl; by default those that are installed."""
    json: Flag = False
    """Print one JSON object on stdout and nothing else."""


@dataclass
class Demo:
    """Train the tiny default, analyse it and draw its figures, in minutes on two cores."""

    out: Out = None
    """Directory of the run to make; demo, or demo-2, … when there is one."""


Command = (
    Annotated[Analyze, subcommand("analyze")]
    | Annotated[Figures, subcommand("figures")]
    | Annotated[Claims, subcommand("claims")]
    | Annotated[Check, subcommand("check")]
    | Annotated[Diagnose, subcommand("diagnose")]
    | Annotated[Watch, subcommand("watch")]
    | Annotated[Import_, subcommand("import")]
    | Annotated[Score, subcommand("score")]
    | Annotated[Train, subcommand("train")]
    | Annotated[Study, subcommand("study")]
    | Annotated[Data, subcommand("data")]
    | Annotated[List, subcommand("list")]
    | Annotated[Copy, subcommand("copy")]
    | Annotated[Doctor, subcommand("doctor")]
    | Annotated[Demo, subcommand("demo")]
)
NAMES: Final = tuple(get_args(each)[0].__name__.lower().rstrip("_") for each in get_args(Command))
"""The commands, in the order of the help."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``entropy-lab``.

    Exit codes: 0, or 2 for input that cannot be used, with one line on stderr that says what, where, what is allowed
    and what to do; 1 when ``diagnose`` or ``watch`` finds what ``--fail-on`` names, or ``doctor`` what does not work;
    130 when interrupted; 141 when the reader of a pipe has left.

    Parameters
    ----------
    arguments
        Words after the program's name; default those of the process.
    """
    # The matrices of an analysis are small: a second BLAS thread only waits, for milliseconds where the core is busy.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", UserWarning)
            warnings.showwarning = _warner()
            _dispatch(words)
            sys.stdout.flush()
    except EntropyLabError as error:
        sys.stderr.write(f"entropy-lab: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has left: `entropy-lab list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _dispatch(words: list[str]) -> None:
    if words == ["--version"]:
        sys.stdout.write(f"entropy-lab {__version__}\n")
        return
    _require_command(words)
    if words[:1] == ["train"] and len(words) > 1 and not words[1].startswith("-"):
        # A trainer's settings are its own: its file knows them, not this one.
        import_module("entropy_lab.commands.train").run(words[1], words[2:])
        return
    command: Any = tyro.cli(
        Command,
        args=words,
        prog="entropy-lab",
        description="Where did my policy's entropy go, and was it the useful kind?",
        config=(FlagCreatePairsOff,),
    )
    import_module(f"entropy_lab.commands.{type(command).__name__.lower()}").run(command)


def _require_command(words: list[str]) -> None:
    if not words or words[0].startswith("-") or words[0] in NAMES:
        return
    from difflib import get_close_matches

    close = get_close_matches(words[0], NAMES, n=1)
    hint = f"did you mean {close[0]}?" if close else "entropy-lab --help"
    raise UnknownNameError(words[0], "is no command", f"one of {', '.join(NAMES)}", hint)


def _warner() -> Callable[..., None]:
    """Make what prints warnings, each once: a file may be read several times."""
    told: set[str] = set()

    def warn(message: Warning | str, *_: object) -> None:
        if str(message) not in told:
            told.add(str(message))
            sys.stderr.write(f"warning: {message}\n")

    return warn


if __name__ == "__main__":
    main()
