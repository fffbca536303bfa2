"""From a batch in verl's TransferQueue to columns of the recorder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from entropy_lab.errors import ParameterError
from entropy_lab.integrations.verl_settings import RecordSettings

LOGP_AFTER: Final = "entropy_lab_logp_after"
"""Field of the TransferQueue that our trainer adds in the steps that take it."""
FIELDS: Final = (
    "uid",
    "prompts",
    "responses",
    "response_mask",
    "rm_scores",
    "token_level_rewards",
    "old_log_probs",
    "entropy",
    "advantages",
    "rollout_log_probs",
    "extra_fields",
    "extra_info",
    "reward_model",
    "data_source",
    LOGP_AFTER,
)
"""What the record reads, where it is there."""


@dataclass(frozen=True)
class Outputs:
    """Which rows of a batch are rollouts: the last output of each session of an agent loop, without padding.

    Parameters
    ----------
    keys
        ``{uid}_{session}_{output}``, in the batch's order.
    padding_B
        True for rows that only fill up the batch.

    Examples
    --------
    >>> outputs = Outputs.of(["b_0_0", "a_1_0", "a_0_1", "a_0_0", "pad_0_0"], [{}, {}, {}, {}, {"is_padding": True}])
    >>> outputs.final_B, outputs.rollouts
    (array([0, 1, 2, 2, 4]), ['a_0_1', 'a_1_0', 'b_0_0'])
    """

    keys: tuple[str, ...]
    padding_B: NDArray[np.bool_]

    @classmethod
    def of(cls, keys: Sequence[str], tags: Sequence[Mapping[str, Any]]) -> Outputs:
        """Read keys and tags of a batch, as many of each."""
        padding = [bool(tag.get("is_padding", False)) for tag in tags]
        return cls(tuple(keys), np.array(padding, dtype=np.bool_))

    @property
    def final_B(self) -> NDArray[np.int64]:
        """Row of the last output of each row's session."""
        last: dict[tuple[str, int], int] = {}
        parts = [_parts(key) for key in self.keys]
        for row, (uid, session, output) in enumerate(parts):
            before = last.setdefault((uid, session), row)
            if parts[before][2] < output:
                last[uid, session] = row
        return np.array([last[uid, session] for uid, session, _ in parts], dtype=np.int64)

    @property
    def rollouts(self) -> list[str]:
        """Keys of the rollouts, those of a group side by side, in the order of verl's own dumps."""
        rows = {int(row) for row in self.final_B if not self.padding_B[row]}
        return sorted((self.keys[row] for row in rows), key=_parts)


def _parts(key: str) -> tuple[str, int, int]:
    uid, session, output = [*key.rsplit("_", 2), "", ""][:3]
    return (uid, int(session), int(output)) if session.isdigit() and output.isdigit() else (key, 0, 0)


class Columns:
    """Lays rollouts out for `Recorder.step`.

    Parameters
    ----------
    settings
        Of the record.
    tokenizer
        Of the policy.
    longest
        Length limit of a response, in tokens.
    """

    def __init__(self, settings: RecordSettings, tokenizer: Any, longest: int) -> None:  # noqa: ANN401 - of transformers
        self._settings, self._tokenizer, self._longest = settings, tokenizer, longest
        self._special = {int(each) for each in tokenizer.all_special_ids}
        self._verdicts_are_told = True

    def of(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Lay out rollouts.

        Parameters
        ----------
        data
            Fields of the TransferQueue, one entry a rollout; see `FIELDS`.

        Returns
        -------
        dict
            See `recording.columns.Rollouts`.
        """
        found: dict[str, Any] = {name: data[name] for name in FIELDS if name in data.keys()}  # noqa: SIM118 - a TensorDict is no dict
        uids, responses = as_list(found["uid"]), list(found["responses"].unbind())
        given: dict[str, Any] = {
            "groups": [str(uid) for uid in uids],
            "rewards": sums(found.get("token_level_rewards", found["rm_scores"])),
            "mask": rows_of(found["response_mask"]),
            "truncated": [self._is_cut(ids.tolist()) for ids in responses],
        }
        given |= {ours: rows_of(found[theirs]) for ours, theirs in _BY_TOKEN.items() if theirs in found}
        for name in ("logps", "logps_after", "sampler_logps"):
            if name in given:  # rounding may leave the log-probability of a sure token just above 0
                given[name] = [row.clamp(max=0.0) for row in given[name]]
        if "entropies" in given:
            given["entropies"] = [row.clamp(min=0.0) for row in given["entropies"]]
        given |= self._prompts(found, uids)
        if self._settings.tokens:
            given["token_ids"] = responses
        if self._settings.texts:
            given |= self._texts(found, responses)
        if "data_source" in found:
            given["source"] = [str(source) for source in as_list(found["data_source"])]
        correct = self._verdicts(found)
        return given if correct is None else {**given, "correct": correct}

    def _is_cut(self, ids: Sequence[int]) -> bool:
        """Tell whether the length limit ended a response: there is no stop token where it ends."""
        return len(ids) >= self._longest and ids[-1] not in self._special

    def _prompts(self, found: Mapping[str, Any], uids: Sequence[Any]) -> dict[str, Any]:
        prompts = list(found["prompts"].unbind())
        text_of: dict[str, str] = {}
        for uid, ids in zip(uids, prompts, strict=True):
            if uid not in text_of:  # decoded as verl's dumps have it, so that their reader names prompts alike
                text_of[uid] = self._tokenizer.decode(ids, skip_special_tokens=True)
        given: dict[str, Any] = {"prompts": [text_of[uid] for uid in uids]}
        if self._settings.prompt_id:
            key = self._settings.prompt_id
            infos = as_list(found["extra_info"]) if "extra_info" in found else [{}] * len(uids)
            given["prompt_ids"] = [_entry(info, key, "extra_info") for info in infos]
        return {**given, "prompt_token_ids": prompts} if self._settings.tokens else given

    def _texts(self, found: Mapping[str, Any], responses: Sequence[Any]) -> dict[str, Any]:
        given = {"completions": [self._tokenizer.decode(ids, skip_special_tokens=True) for ids in responses]}
        if "reward_model" in found:
            answers = [model.get("ground_truth") for model in as_list(found["reward_model"])]
            given["answers"] = [None if answer is None else str(answer) for answer in answers]
        return given

    def _verdicts(self, found: Mapping[str, Any]) -> list[Any] | None:
        """Give what the reward function said of right and wrong; None where the reward has to tell."""
        told = [_reward_info(info) for info in as_list(found["extra_fields"])] if "extra_fields" in found else []
        if key := self._settings.correct:
            return [_entry(info, key, "what the reward function returns") for info in told]
        values = [info.get("acc") for info in told]
        # verl's default manager names any score so: it is a verdict as long as all were 0 or 1.
        self._verdicts_are_told &= bool(values) and all(value in (0, 1) for value in values)
        return values if self._verdicts_are_told else None


_BY_TOKEN: Final = {
    "logps": "old_log_probs",
    "entropies": "entropy",
    "advantages": "advantages",
    "sampler_logps": "rollout_log_probs",
    "logps_after": LOGP_AFTER,
}


def as_list(values: Any) -> list[Any]:  # noqa: ANN401 - what the queue's backend returns
    """Give a field that is no tensor as a list, whatever it comes back as.

    Examples
    --------
    >>> as_list(np.array(["a", "b"])), as_list(["a"])
    (['a', 'b'], ['a'])
    """
    return list(values.tolist() if hasattr(values, "tolist") else values)


def rows_of(values: Any) -> list[Any]:  # noqa: ANN401 - a nested tensor
    """Give a field by token as one float32 (or integer) tensor a rollout."""
    rows = (row.detach().cpu() for row in values.unbind())
    return [row.float() if row.is_floating_point() else row for row in rows]


def sums(values: Any) -> list[float]:  # noqa: ANN401 - a nested tensor
    """Add up a field over each rollout's tokens."""
    return [float(row.double().sum()) for row in values.unbind()]


def _reward_info(extra: object) -> Mapping[str, Any]:
    found = extra.get("reward_extra_info") if isinstance(extra, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _entry(info: object, key: str, where: str) -> object:
    if not isinstance(info, Mapping) or key not in info:
        names = ", ".join(map(str, info)) if isinstance(info, Mapping) else ""
        raise ParameterError(where, f"has no {key!r}", f"there is: {names or 'nothing'}")
    return info[key]
