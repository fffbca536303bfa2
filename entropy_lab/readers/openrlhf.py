"""OpenRLHF: its scalars, which are all that it keeps.

``train/entropy_loss`` is there only with ``--actor.entropy_coef`` (0 logs it and nothing else), of the update's own
forward pass: it keeps its name.
"""

from __future__ import annotations

from typing import Final

from entropy_lab.readers.dialects import read_scalars, sighting, spoken_logs
from entropy_lab.readers.reader import Reader, Sighting
from entropy_lab.readers.scalars import Dialect, deliver
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.tree import Tree

DIALECT: Final = Dialect(
    signature=frozenset(
        {"train/vllm_kl", "train/ppo_clip_ratio", "train/response_clip_ratio", "train/actor_grad_norm"}
    ),
    names={
        "train/reward": "reward",
        "train/response_length": "mean_length",
        "train/truncated": "truncated",
        "train/actor_lr": "lr",
        "train/actor_grad_norm": "grad_norm",
    },
)


def recognise(tree: Tree) -> Sighting | None:
    """See scalars such as ``train/ppo_clip_ratio``."""
    return sighting([], [], spoken_logs(tree, DIALECT), DIALECT)


def convert(tree: Tree, sink: Sink) -> None:
    """Write the scalars."""
    rows, settings = read_scalars(tree, sink, DIALECT)
    if settings:
        sink.facts["config"] = dict(settings)
    if any("train/entropy_loss" in row for row in rows.values()):
        sink.note("train/entropy_loss is of the update's own forward pass: it is kept under its own name")
    deliver(rows, DIALECT.names, sink)


_RECORDER: Final = "OpenRLHF dumps no rollouts: entropy_lab.Recorder in make_experience_batch records them"

READER: Final = Reader(
    name="openrlhf",
    title="OpenRLHF",
    recognise=recognise,
    convert=convert,
    how_to_record={
        "rollouts": _RECORDER,
        "evals": _RECORDER,
        "metrics": "--logger.tensorboard_dir DIR writes them; --actor.entropy_coef 0 adds the entropy",
    },
)
