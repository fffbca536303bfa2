"""Fill the columns of a run that hold nothing with log-probabilities and entropies under checkpoints, step by step."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from entropy_lab.amending import amend_info, amend_step, empty_columns
from entropy_lab.errors import ParameterError, UnknownNameError
from entropy_lab.files import replacing
from entropy_lab.rl.recorded_tokens import TEXT_COLUMNS, RecordedTokens
from entropy_lab.rl.score_passes import Pass
from entropy_lab.rl.scorer import Scorer, ScoreSettings
from entropy_lab.run import Run, open_run
from entropy_lab.schema import ROLLOUTS
from entropy_lab.step_files import StepFile
from entropy_lab.writer import require_free


@dataclass
class Outcome:
    """What was done to a run."""

    scored: list[int] = field(default_factory=list)
    """Steps that got columns."""
    complete: list[int] = field(default_factory=list)
    """Steps that had them all."""
    without_checkpoint: list[int] = field(default_factory=list)
    """Steps a checkpoint of which is not there."""
    columns: dict[str, str] = field(default_factory=dict)
    """Column that was filled -> pattern of the checkpoints."""
    n_rollouts: int = 0
    """Rollouts of the scored steps."""
    left_null: dict[str, int] = field(default_factory=dict)
    """Why rollouts were left null -> how many."""
    retokenised: bool = False
    """Some responses were tokenised again."""
    prompts_retokenised: bool = False
    """Some prompts were."""
    differences: list[float] = field(default_factory=list)
    """|recomputed − recorded| log π_old per token, a rollout each, where it was recorded."""

    def count(self, step: int, n_rollouts: int, tokens: RecordedTokens) -> None:
        """Add a step that was scored."""
        self.scored.append(step)
        self.n_rollouts += n_rollouts
        for reason, n in tokens.why.items():
            self.left_null[reason] = self.left_null.get(reason, 0) + n
        self.retokenised |= tokens.redone
        self.prompts_retokenised |= tokens.prompts_redone


def rescore(
    run: Path,
    passes: tuple[Pass, ...],
    settings: ScoreSettings,
    out: Path | None = None,
    show: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Fill the columns of a run that hold nothing, step by step; recorded ones are never touched.

    Each step's file is replaced whole when all its passes are done, and names the checkpoints in its metadata (key
    ``scored``); ``run.json`` lists them too. Stopped in the middle, the same call goes on where it was.

    Parameters
    ----------
    run
        Directory of the run.
    passes
        From `plan_passes`.
    settings
        How.
    out
        Directory of a copy that gets the columns; None for the run itself.
    show
        Told steps done and steps in all.

    Returns
    -------
    Outcome
        What was done.

    Raises
    ------
    ParameterError
        A column is there from another checkpoint, or the tokens are not the model's.
    UnknownNameError
        No checkpoint is there.
    RunNotFoundError, RunFormatError, OutputError
        The run cannot be read or written.
    """
    opened = open_run(run)
    steps = [file.step for file in opened.sound_files if settings.only_step in (None, file.step)]
    if not steps:
        raise ParameterError("--as-policy", f"is {settings.only_step}", f"a step of {run}")
    _require_some_checkpoint(passes, steps)
    target = run if out is None else _begun_copy(opened, out)
    filling, outcome = _Filling(passes, settings), Outcome()
    for done, file in enumerate(opened.sound_files):
        there = target / "rollouts" / file.path.name
        _copy(file.path, there)
        if file.step in steps:
            filling.fill(StepFile(file.step, there, str(there)), outcome)
        if outcome.scored[-1:] == [file.step]:
            _note(target, passes, settings, outcome)
        if show is not None:
            show(done + 1, len(opened.sound_files))
    return outcome


class _Filling:
    """Fills the empty columns of step files."""

    def __init__(self, passes: tuple[Pass, ...], settings: ScoreSettings) -> None:
        self._passes, self._settings, self._scorer = passes, settings, Scorer(settings)

    def fill(self, file: StepFile, outcome: Outcome) -> None:
        """Score one step, and replace its file where something was filled."""
        names = {column for each in self._passes for column in each.columns.values()}
        frame = file.read([name for name in file.schema() if name in {*TEXT_COLUMNS, *names, "logp", "step"}])
        earlier = json.loads(pl.read_parquet_metadata(file.path).get("scored", "{}"))
        filled: list[pl.Series] = []
        facts: dict[str, Any] = {}
        tokens, empty = None, False
        for each in self._passes:
            checkpoint = each.checkpoints.at(file.step)
            _require_same_checkpoint(file, each, earlier, checkpoint)
            kinds = [kind for kind, name in self._kept(each).items() if empty_columns(frame, (name,))]
            empty |= bool(kinds)
            if kinds and each.checkpoints.is_there(file.step):
                tokens = tokens or self._scorer.tokens(frame, checkpoint)
                scored = self._scorer.scored(checkpoint, tokens)
                new = [scored[kind].alias(each.columns[kind]) for kind in kinds]
                new += self._redone(frame, tokens) if not filled else []
                filled += new
                facts |= {series.name: self._fact(checkpoint, tokens) for series in new}
                outcome.columns |= {series.name: each.checkpoints.text for series in new}
                outcome.differences += _differences(each, frame, tokens, scored["logp"])
        if tokens is None:
            (outcome.without_checkpoint if empty else outcome.complete).append(file.step)
            return
        amend_step(file, pl.DataFrame(filled), {"scored": json.dumps({**earlier, **facts})}, file.path)
        outcome.count(file.step, frame.height, tokens)

    def _kept(self, each: Pass) -> Mapping[str, str]:
        keep = self._settings.tokens
        return {kind: name for kind, name in each.columns.items() if keep or not kind.startswith("token_")}

    def _redone(self, frame: pl.DataFrame, tokens: RecordedTokens) -> list[pl.Series]:
        """Give numbers and ids of tokens that were not recorded: the values are of these tokens."""
        known = [ids if usable else None for ids, usable in zip(tokens.responses, tokens.usable_B, strict=True)]
        lengths = [None if ids is None else len(ids) for ids in known]
        found = []
        if tokens.redone and empty_columns(frame, ("n_tokens",)):
            found.append(pl.Series("n_tokens", lengths, dtype=pl.Int32))
        if tokens.redone and self._settings.tokens and empty_columns(frame, ("token_ids",)):
            found.append(pl.Series("token_ids", known, dtype=pl.List(pl.Int32)))
        return found

    def _fact(self, checkpoint: str, tokens: RecordedTokens) -> dict[str, Any]:
        return {
            "checkpoint": checkpoint,
            "temperature": self._settings.temperature,
            "dtype": self._settings.dtype,
            "tokens": "tokenised again" if tokens.redone else "recorded",
            "prompts": f"tokenised again ({self._settings.prompt})" if tokens.prompts_redone else "recorded",
        }


def _differences(each: Pass, frame: pl.DataFrame, tokens: RecordedTokens, logp: pl.Series) -> list[float]:
    """Tell how far a policy's log-probabilities are from those that were recorded of it, per token."""
    if each.columns["logp"] != "logp" or empty_columns(frame, ("logp",)):
        return []
    n_B = pl.Series([max(1, len(response)) for response in tokens.responses])
    return ((logp - frame["logp"]).abs() / n_B).drop_nulls().to_list()


def _require_some_checkpoint(passes: tuple[Pass, ...], steps: list[int]) -> None:
    for each in passes:
        if not any(each.checkpoints.is_there(step) for step in steps):
            wrong = f"there is no directory {each.checkpoints.at(steps[0])} … {each.checkpoints.at(steps[-1])}"
            raise UnknownNameError(each.checkpoints.text, wrong, "a directory for each step, or for some")


def _require_same_checkpoint(file: StepFile, each: Pass, earlier: Mapping[str, Any], checkpoint: str) -> None:
    for name in each.columns.values():
        if name not in ROLLOUTS and name in earlier and earlier[name]["checkpoint"] != checkpoint:
            wrong = f"has {name} from {earlier[name]['checkpoint']}, not {checkpoint}"
            raise ParameterError(file.label, wrong, "one checkpoint a column", "--name NAME keeps both")


def _note(target: Path, passes: tuple[Pass, ...], settings: ScoreSettings, outcome: Outcome) -> None:
    """Say in run.json which columns are recomputed; one entry for each kind of call, with all its steps."""
    checkpoints = {each.columns["logp"]: each.checkpoints.text for each in passes}
    how = {"checkpoints": checkpoints, "temperature": settings.temperature, "dtype": settings.dtype}
    entries = [dict(entry) for entry in open_run(target).info.get("scored", [])]
    mine = next((entry for entry in entries if {**entry, **how} == entry), None)
    if mine is None:
        mine = {**how, "columns": [], "steps": []}
        entries.append(mine)
    mine |= {
        "columns": sorted({*mine["columns"], *outcome.columns}),
        "steps": sorted({*mine["steps"], *outcome.scored}),
    }
    amend_info(target, scored=entries)


def _begun_copy(run: Run, out: Path) -> Path:
    """Begin a copy of a run without its rollouts, or go on with it."""
    origin = str(run.path.resolve())
    if not (out / "run.json").exists() or open_run(out).info.get("scored_from") != origin:
        require_free(out)
        with replacing(out / "run.json") as temporary:
            temporary.write_text(json.dumps({**run.info, "scored_from": origin}, indent=2) + "\n", encoding="utf-8")
    for path in (run.path / "metrics.jsonl", *(file.path for file in run.eval_files)):
        if path.exists():
            _copy(path, out / path.relative_to(run.path))
    return out


def _copy(path: Path, target: Path) -> None:
    if not target.exists():
        with replacing(target) as temporary:
            shutil.copyfile(path, temporary)
