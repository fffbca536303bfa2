"""Which quantities a diagnosis looks at, and what each can be read from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True)
class Signal:
    """One quantity per step.

    Parameters
    ----------
    meaning
        What it is, for people.
    columns
        Columns of the rollouts that it is computed from; empty when it cannot be.
    metrics
        Keys of ``metrics.jsonl`` whose sum it is; empty when none hold it. Other frameworks' names for it stand in
        ``frameworks.toml``.

    Examples
    --------
    >>> SIGNALS["clipped"].metrics
    ('clip_fraction_low', 'clip_fraction_high')
    """

    meaning: str
    columns: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()


_INCREMENT: Final = ("logp_after", "logp", "n_tokens", "correct", "reward")
_OUTCOME: Final = ("advantage", "reward")
_CUT: Final = ("truncated", "correct")

SIGNALS: Final[Mapping[str, Signal]] = MappingProxyType(
    {
        "entropy": Signal("policy entropy, mean over response tokens", ("entropy", "n_tokens"), ("entropy",)),
        "surprisal": Signal("minus log-probability, mean over sampled tokens", ("logp", "n_tokens")),
        "distinct_logp": Signal("share of groups whose rollouts differ in log-probability", ("logp",)),
        "distinct_entropy": Signal("share of groups whose rollouts differ in entropy", ("entropy",)),
        "reward": Signal("mean reward", ("reward",), ("reward",)),
        "accuracy": Signal("mean verdict", ("correct",), ("accuracy",)),
        "validation": Signal("validation accuracy (evals)"),
        "length": Signal("mean response length", ("n_tokens",), ("mean_length",)),
        "length_reward": Signal(
            "correlation of reward and length among equal verdicts of a group", ("reward", "n_tokens", "correct")
        ),
        "truncated": Signal("share of rollouts stopped by the length limit", ("truncated",), ("truncated",)),
        "lost_to_limit": Signal("accuracy that finished rollouts of the same groups have over cut-off ones", _CUT),
        "cut_and_wrong": Signal("share of rollouts that are cut off and wrong", _CUT),
        "cut_failures": Signal("share of wrong rollouts that are cut off", _CUT),
        "zero_signal": Signal("share of groups without reward differences", ("reward",), ("zero_signal",)),
        "all_solved": Signal("share of groups that every rollout solves", ("correct",), ("all_solved",)),
        "none_solved": Signal("share of groups that no rollout solves", ("correct",), ("none_solved",)),
        "channel_ratio": Signal("log ratio of positive to negative advantage, by tokens", ("advantage",)),
        "mean_advantage": Signal("mean advantage over its root mean square", ("advantage",)),
        "uncentred": Signal("share of mixed groups whose advantages do not sum to 0", _OUTCOME),
        "phantom_low": Signal("share of unanimous groups below the mean reward with an advantage", _OUTCOME),
        "phantom_high": Signal("share of unanimous groups above the mean reward with an advantage", _OUTCOME),
        "inverted": Signal("share of mixed groups in which more reward got less advantage", _OUTCOME),
        "clipped": Signal("share of tokens clipped", (), ("clip_fraction_low", "clip_fraction_high")),
        "mismatch": Signal(
            "log-probability of sampler less trainer's, per token", ("sampler_logp", "logp", "n_tokens")
        ),
        "effective_sample": Signal("effective share of a batch under the sampler's weights", ("sampler_logp", "logp")),
        "increment": Signal("log-probability gained by correct rollouts of mixed groups, per token", _INCREMENT),
        "increment_wrong": Signal("log-probability gained by wrong rollouts of mixed groups, per token", _INCREMENT),
        "coherence": Signal("correlation of minus log-probability with length (times entropy)", ("logp", "n_tokens")),
    }
)
