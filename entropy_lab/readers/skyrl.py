"""SkyRL: the batches of ``trainer.dump_data_batch``, its evaluation results, and its scalars.

A batch is a pickle, read by ``safe_pickle``. The trainer takes rewards and group ids out before it writes one: the rollouts
have log-probabilities, advantages and tokens, but no ``reward`` and no ``correct``, and equal prompts make a group. SkyRL
counts updates from 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from entropy_lab.errors import RunFormatError
from entropy_lab.readers.answers import Answer, write_answers
from entropy_lab.readers.dialects import described, read_scalars, spoken_logs
from entropy_lab.readers.json_lines import read_objects
from entropy_lab.readers.reader import Reader, Sighting
from entropy_lab.readers.records import Record, parsed
from entropy_lab.readers.rollouts import Rollout, token_text, write_rollouts
from entropy_lab.readers.safe_pickle import Kept, as_array, load_kept
from entropy_lab.readers.scalars import Dialect, deliver
from entropy_lab.readers.sink import Sink
from entropy_lab.readers.step_folders import by_folder, one_run
from entropy_lab.readers.tree import Tree

DIALECT: Final = Dialect(
    signature=frozenset(
        {"policy/policy_entropy", "reward/avg_raw_reward", "loss/avg_final_rewards", "trainer/global_step"}
        - {"trainer/global_step"}
    ),
    names={"policy/policy_entropy": "entropy", "reward/avg_raw_reward": "reward"},
)

NAMES: Final = frozenset(
    {"_rebuild_tensor_batch", "TrainingInputBatch", "TensorBatch", "device"},
)
"""What the pickle of a batch may name."""

_BATCH: Final = re.compile(r"global_step_(\d+)_training_input\.pkl")
_PASS: Final = re.compile(r"global_step_(\d+)_evals")
_FIELDS: Final = {
    "token_logp": "action_log_probs",
    "token_sampler_logp": "rollout_logprobs",
    "token_advantage": "advantages",
}
_EVAL_KEYS: Final = frozenset({"input_prompt", "output_response", "score"})
