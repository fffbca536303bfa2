"""``entropy-lab score``: log-probabilities, entropies and increments for a run that did not record them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from entropy_lab.cli import Score
from entropy_lab.commands.terminal import console
from entropy_lab.errors import MissingExtraError, ParameterError
from entropy_lab.run import Run, open_run

if TYPE_CHECKING:
    from entropy_lab.rl.rescoring import Outcome
    from entropy_lab.rl.score_passes import Pass


def run(command: Score) -> None:
    """Score every step, with progress, and say what the columns mean.

    Raises
    ------
    MissingExtraError
        torch or transformers is not installed.
    """
    try:
        from entropy_lab.rl.progress import TrainingProgress
        from entropy_lab.rl.rescoring import rescore
        from entropy_lab.rl.score_passes import plan_passes
        from entropy_lab.rl.scorer import ScoreSettings
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "transformers"):
            raise
        hint = "pip install 'entropy-lab[train]'"
        raise MissingExtraError("score", f"{error.name} is not installed", "the extra `train`", hint) from error
    passes = plan_passes(command.model, command.after, command.name, command.as_policy)
    opened = open_run(command.run)
    temperature, told = _temperature(opened, command.temperature)
    settings = ScoreSettings(
        temperature=temperature,
        prompt=_prompt(opened, command.prompt),
        tokens=not command.no_tokens,
        dtype=command.dtype,
        device=command.device,
        micro_tokens=command.micro_tokens,
        only_step=command.as_policy,
    )
    with TrainingProgress() as progress:
        outcome = rescore(
            command.run, passes, settings, command.out, lambda done, total: progress.show("scoring", done, total, {})
        )
    where = f"{command.out or command.run}: {outcome.n_rollouts:,} rollouts, temperature {temperature:g} ({told})"
    for line in (f"scored       {_steps(outcome.scored)} of {where}", *_meaning(outcome, passes), *_rollouts(outcome)):
        console().print(line, soft_wrap=True, markup=False, highlight=False)


def _temperature(opened: Run, asked: float | None) -> tuple[float, str]:
    """Choose the sampling temperature: as asked, else as the run's configuration has it."""
    if asked is not None:
        if not asked > 0:
            raise ParameterError("--temperature", f"is {asked}", "above 0")
        return asked, "--temperature"
    recorded = _config(opened).get("temperature")
    if isinstance(recorded, int | float) and recorded > 0:
        return float(recorded), "run.json"
    return 1.0, "not recorded: --temperature says another"


def _prompt(opened: Run, asked: str) -> str:
    """Choose how prompts become tokens: runs of our own trainer say it."""
    model = _config(opened).get("model")
    ours = model.get("prompt") if isinstance(model, dict) and model.get("path") else None
    return (ours or "text") if asked == "auto" else asked


def _config(opened: Run) -> dict[str, Any]:
    config = opened.info.get("config")
    return config if isinstance(config, dict) else {}


def _meaning(outcome: Outcome, passes: tuple[Pass, ...]) -> Iterator[str]:
    """Say which columns were filled from where, and what they are."""
    for each in passes:
        filled = [name for name in each.columns.values() if name in outcome.columns]
        kept = "" if filled or not outcome.scored else f" ({each.columns['logp']} and what belongs to it were there)"
        yield f"columns      {', '.join(filled) or 'none'} from {each.checkpoints.text}{kept}"
    if passes[0].columns["logp"] == "logp":
        yield "meaning      logp, entropy: of the policy before each step's update, if the checkpoints are what you say"
    else:
        names = ", ".join(each.columns["logp"] for each in passes)
        yield f"meaning      {names}: under the models named, not log π_old; no analysis takes them for logp"


def _rollouts(outcome: Outcome) -> Iterator[str]:
    """Say what became of the rollouts and steps."""
    redone = {"prompts": outcome.prompts_retokenised, "responses": outcome.retokenised}
    if any(redone.values()):
        what = " and ".join(name for name, again in redone.items() if again)
        yield f"tokens       {what} were tokenised again from their texts: their token ids were not recorded"
    for reason, n in outcome.left_null.items():
        yield f"left null    {n:,} of {outcome.n_rollouts:,} rollouts {reason}"
    if outcome.differences:
        mean, largest = sum(outcome.differences) / len(outcome.differences), max(outcome.differences)
        yield f"difference   {mean:.2g} nats/token from the recorded logp on average, at most {largest:.2g}"
    if outcome.complete:
        yield f"complete     {_steps(outcome.complete)} had every column; --name NAME computes them beside"
    if outcome.without_checkpoint:
        yield f"left out     {_steps(outcome.without_checkpoint)}: no checkpoint is there"


def _steps(steps: list[int]) -> str:
    some = ", ".join(map(str, steps[:5])) + (" …" if steps[5:] else "")
    return f"{len(steps)} step{'' if len(steps) == 1 else 's'}" + (f" ({some})" if steps else "")
