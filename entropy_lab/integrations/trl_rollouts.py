"""Rollouts that TRL has drawn and not yet used up, and what is measured at them on the way to the optimizer's step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor

ROW: Final = "entropy_lab_row"
"""Name of the tensor that tells rows apart after TRL has shuffled and split what it generated."""

Scores = tuple[Tensor, Tensor]
"""Log-probabilities and entropies of completion tokens, (B, T) each."""


@dataclass
class Heard:
    """What passes by while TRL generates and scores; its result leaves these out."""

    inputs: list[Mapping[str, Any]] = field(default_factory=list)
    """Rows of the data set."""
    prompts: list[Any] = field(default_factory=list)
    completions: list[Any] = field(default_factory=list)
    completion_ids: list[list[int]] = field(default_factory=list)
    rewards_NF: Tensor = field(default_factory=lambda: torch.zeros(0, 0))
    """Of all processes, by reward function."""
    scores: list[Scores] = field(default_factory=list)
    """Of every forward pass of the policy."""

    def scores_of(self, logp_BT: Tensor | None) -> Scores | None:
        """Find the pass that gave these log-probabilities: the policy's own, and not a reference's.

        Examples
        --------
        >>> reference, policy = torch.zeros(1, 2), torch.ones(1, 2)
        >>> heard = Heard(scores=[(reference, reference), (policy, policy)])
        >>> heard.scores_of(policy)[1]
        tensor([[1., 1.]])
        """
        return next((scores for scores in self.scores if scores[0] is logp_BT), None)

    def verdicts(self, names: Sequence[str], own: slice, correct: str | None) -> dict[str, Any]:
        """Lay out what the reward functions said of this process's rollouts.

        Parameters
        ----------
        names
            Of the functions.
        own
            Place of the rollouts among those of all processes.
        correct
            The function whose values are verdicts; None for none.

        Returns
        -------
        dict of str to object
            Columns of the recorder: the functions' own values where there are several, and verdicts.

        Examples
        --------
        >>> heard = Heard(rewards_NF=torch.tensor([[1.0, 0.5], [0.0, torch.nan]]))
        >>> heard.verdicts(["right", "short"], slice(0, 2), correct="right")
        {'extra': {'reward_right': [1.0, 0.0], 'reward_short': [0.5, None]}, 'correct': [1.0, 0.0]}
        """
        told_BF = self.rewards_NF[own].cpu()
        parts = {name: [None if v != v else v for v in told_BF[:, i].tolist()] for i, name in enumerate(names)}
        extra = {f"reward_{name}": values for name, values in parts.items()} if len(names) > 1 else {}
        return {"extra": extra, **({"correct": parts[correct]} if correct is not None else {})}


@dataclass
class Drawn:
    """The rollouts of one generation on this process, in the order in which they were drawn."""

    first_row: int
    """Number of its first row, unique among those that wait."""
    inputs: Mapping[str, Tensor]
    """What TRL returned: padded tokens, masks and advantages."""
    about: dict[str, Any]
    """Columns of the recorder that need no forward pass."""
    kept_B: Tensor
    """False for rollouts that are not recorded."""
    logp_BT: Tensor
    entropy_BT: Tensor
    measured_B: Tensor
    update_B: Tensor
    """TRL's number of the first optimizer step that used the row; 0 before one did."""

    @property
    def mask_BT(self) -> Tensor:
        """1 at the tokens that the policy wrote and the loss counts."""
        return token_mask(self.inputs)

    def columns(self, *, tokens: bool) -> dict[str, Any]:
        """Lay the rollouts out for `Recorder.add`.

        Parameters
        ----------
        tokens
            Give ids by token too.
        """
        inputs, kept_B = self.inputs, self.kept_B
        found: dict[str, Any] = {
            "mask": self.mask_BT,
            # Rounding may leave the log-probability of a sure token just above 0.
            "logps": self.logp_BT.clamp(max=0.0),
            "entropies": self.entropy_BT.clamp(min=0.0),
            "advantages": inputs["advantages"],
        }
        if tokens:
            found |= {"token_ids": inputs["completion_ids"], "prompt_token_ids": inputs["prompt_ids"]}
            found |= {"prompt_mask": inputs["prompt_mask"]}
        found = {name: value.detach().cpu()[kept_B] for name, value in found.items()}
        chosen = kept_B.tolist()
        about = {name: _rows(value, chosen) for name, value in self.about.items()}
        used = [update or None for update in self.update_B[kept_B].tolist()]
        return {**found, **about, "extra": {**about.get("extra", {}), "trainer_step": used}}


class Waiting:
    """The rollouts of this process between generation and the end of the step that they make.

    Examples
    --------
    >>> mask = torch.ones(2, 3, dtype=torch.long)
    >>> waiting, inputs = Waiting(), {"completion_mask": mask, "advantages": torch.tensor([1.0, -1.0])}
    >>> rows = waiting.add(inputs, {"rewards": [1.0, 0.0]}, torch.tensor([True, True]), None)
    >>> waiting.measure(rows[[1]], (torch.full((1, 3), -2.0), torch.zeros(1, 3)), update=7)
    >>> waiting.drawn[0].logp_BT[:, 0], waiting.drawn[0].update_B
    (tensor([nan, -2.]), tensor([0, 7]))
    """

    def __init__(self) -> None:
        self.drawn: list[Drawn] = []

    def add(self, inputs: Mapping[str, Tensor], about: dict[str, Any], kept_B: Tensor, scores: Scores | None) -> Tensor:
        """Take in a generation.

        Parameters
        ----------
        inputs
            What TRL returned.
        about
            See `Drawn.about`.
        kept_B
            See `Drawn.kept_B`.
        scores
            Of the policy that drew; None where the loss's own forward pass is of that policy.

        Returns
        -------
        Tensor
            Numbers of the rows, shape (B,), to carry along.
        """
        shape = inputs["completion_mask"].shape
        first = sum(len(drawn.kept_B) for drawn in self.drawn)
        logp_BT, entropy_BT = (
            (torch.full(shape, torch.nan), torch.full(shape, torch.nan))
            if scores is None
            else (scores[0].detach().float().cpu(), scores[1].detach().float().cpu())
        )
        measured_B = torch.full(shape[:1], scores is not None)
        update_B = torch.zeros(shape[0], dtype=torch.long)
        self.drawn.append(Drawn(first, inputs, about, kept_B.cpu(), logp_BT, entropy_BT, measured_B, update_B))
        return torch.arange(first, first + shape[0], device=inputs["completion_mask"].device)

    def measure(self, rows: Tensor, scores: Scores, update: int) -> None:
        """Note that an optimizer step uses rows; keep what its forward pass says where nothing is known yet.

        Parameters
        ----------
        rows
            Their numbers, all of one generation.
        scores
            Of the rows, (rows, T).
        update
            TRL's number of the optimizer step, from 1.
        """
        if not len(rows):
            return
        row = int(rows[0])
        drawn = next(each for each in reversed(self.drawn) if each.first_row <= row)
        place = rows.cpu() - drawn.first_row
        new = ~drawn.measured_B[place]
        drawn.logp_BT[place[new]] = scores[0].detach().float().cpu()[new]
        drawn.entropy_BT[place[new]] = scores[1].detach().float().cpu()[new]
        drawn.measured_B[place] = True
        drawn.update_B[place] = torch.where(drawn.update_B[place] == 0, update, drawn.update_B[place])


def token_mask(inputs: Mapping[str, Tensor]) -> Tensor:
    """Give the mask of TRL's loss: completion tokens without the answers of tools, shape (B, T).

    Examples
    --------
    >>> token_mask({"completion_mask": torch.tensor([[1, 1, 0]]), "tool_mask": torch.tensor([[0, 1, 1]])})
    tensor([[0, 1, 0]])
    """
    mask = inputs["completion_mask"]
    return mask * inputs["tool_mask"] if "tool_mask" in inputs else mask


def sums_or_none(logp_BT: Tensor, mask_BT: Tensor) -> list[float | None]:
    """Add up a sampler's log-probabilities over tokens; None where it could not tell one.

    Examples
    --------
    >>> sums_or_none(torch.tensor([[-1.0, -2.0], [torch.nan, -1.0]]), torch.ones(2, 2))
    [-3.0, None]
    """
    sum_B = torch.where(mask_BT.bool(), logp_BT, 0.0).double().sum(1)
    return [None if value != value else value for value in sum_B.tolist()]


def _rows(value: Any, chosen: list[bool]) -> Any:  # noqa: ANN401 - what the recorder takes
    if isinstance(value, dict):
        return {name: _rows(each, chosen) for name, each in value.items()}
    if isinstance(value, list):
        return [each for each, keep in zip(value, chosen, strict=True) if keep]
    return value
