"""prime-rl's token export: what the trainer saw and computed of every packed sequence, one file a rank and step."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from numpy.typing import NDArray

from entropy_lab.readers.records import BoolArray, FloatArray, IntArray, Record, line_records, parsed
from entropy_lab.readers.rollouts import Rollout, masked, prompt_of, token_text
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.step_folders import home
from entropy_lab.readers.tree import Tree

FIELDS: Final = {
    "token_logp": "trainer_logprobs",
    "token_sampler_logp": "inference_logprobs",
    "token_entropy": "entropy",
    "token_advantage": "advantages",
}
_STEP: Final = re.compile(r"step_(\d+)")
_RANK: Final = re.compile(r"rank_\d+\.jsonl")
_COUNTED: Final = ("is_masked_low", "is_masked_high")


@dataclass(frozen=True)
class ExportedSequence:
    """One exported sequence.

    Parameters
    ----------
    ids
        Prompt and response, shape (tokens,).
    mask
        Tokens of the loss, shape (tokens,).
    fields
        Our name -> one value a token, or None.
    environment
        Its name.
    n_masked
        Key of the export -> tokens that the trust region left out of the loss.
    """

    ids: IntArray
    mask: BoolArray
    fields: dict[str, FloatArray | None]
    environment: str | None
    n_masked: dict[str, int]

    @property
    def key(self) -> bytes:
        """What tells the sequence from others of its step."""
        return self.ids.tobytes()

    def tokens(self, mask: BoolArray) -> dict[str, NDArray[Any] | None]:
        """Give ids and values of some tokens."""
        return {"token_ids": self.ids[mask], **{name: masked(values, mask) for name, values in self.fields.items()}}

    def alone(self) -> Rollout:
        """Give the rollout that it is, by itself: without a reward, and grouped by the tokens of its prompt."""
        ids, interrupted = prompt_of(self.ids, self.mask)
        tokens = {**self.tokens(self.mask), "prompt_token_ids": ids}
        theirs = {**self.n_masked, "interrupted": interrupted}
        return Rollout(token_text(ids), token_text(ids), tokens, {"source": self.environment}, theirs)


def find_exports(tree: Tree) -> dict[Path, dict[int, list[Path]]]:
    """Find the files of every rank: folder of the export -> step -> files."""
    folders: dict[Path, dict[int, list[Path]]] = {}
    for file in tree.having(lambda file: bool(_RANK.fullmatch(file.name))):
        match = _STEP.fullmatch(home(file).name)
        first = tree.first_object(file)
        if match and (first is None or {"token_ids", "loss_mask"} <= first.keys()):
            folders.setdefault(file.parent.parent, {}).setdefault(int(match[1]), []).append(file)
    return folders


def read_export(tree: Tree, step: int, files: list[Path], sink: Sink) -> Iterator[ExportedSequence]:
    """Yield the sequences of a step, rank by rank."""
    stable = files[0].with_name("STABLE")
    if tree.path.is_dir() and stable not in tree.files:
        sink.warn(f"{tree.label(files[0].parent)}: has no STABLE: step {step} was still being exported")
    for file in files:
        label = tree.label(file)
        yield from parsed(line_records(file, label, sink), lambda record: _sequence(record, step), sink)


def _sequence(record: Record, step: int) -> ExportedSequence:
    ids = record.whole_numbers("token_ids")
    mask = record.mask("loss_mask", None if ids is None else len(ids))
    if ids is None or mask is None:
        raise record.fault("has no token_ids and loss_mask")
    # A multi-run trainer writes its own step beside the run's, which names the folder.
    written = record.values.get("export_step", record.values.get("step"))
    if written not in (step, None):
        raise record.fault(f"is of step {str(written)[:40]}: rows of several steps are mixed", f"step {step}")
    marks = {name: record.mask(name, len(ids)) for name in _COUNTED}
    return ExportedSequence(
        ids,
        mask,
        {ours: record.floats(theirs, len(ids)) for ours, theirs in FIELDS.items()},
        record.text("env_name"),
        {f"n_{name.removeprefix('is_')}": int(mark.sum()) for name, mark in marks.items() if mark is not None},
    )
