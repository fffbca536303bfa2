"""The lines in which verl, slime, prime-rl and NeMo-RL print the scalars of a step, under the names of their sinks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from entropy_lab.readers.scalars import as_number

_NUMBER: Final = r"(?:np\.\w+|tensor)\([^)]*\)|[-+]?(?:\d[\d.]*(?:[eE][-+]?\d+)?|nan|inf)"

_VERL: Final = re.compile(r"(?:^|\s)step:(\d+) - (\S.*)$")
_PAIR: Final = re.compile(rf"(.+?):({_NUMBER})(?:\s|$)")
_ENTRY: Final = re.compile(rf"'([^']+)': *({_NUMBER})(?=[,}}])")
_SLIME: Final = re.compile(r"(?:^|\s)[a-z_]+ (\d+): (\{'(?:rollout|perf|train|eval|passrate|multi_turn)/.*\})")
_PRIME_RL: Final = re.compile(r"(?:^|\s)(?<!Micro )Step (\d+) \| (.*)$")
_LABELLED: Final = re.compile(rf"(Loss|Entropy|Mismatch KL|Grad\. Norm|LR):? +({_NUMBER})(?:\s|$)")
_NEMO_RL: Final = re.compile(r"=+ Step (\d+)/\d+ =+")
_BULLET: Final = re.compile(rf"• ([^:•]+): ({_NUMBER})(?:\s|$)")

_PRIME_RL_NAMES: Final = {
    "Loss": "loss/mean",
    "Entropy": "entropy/all/mean",
    "Mismatch KL": "mismatch_kl/all/mean",
    "Grad. Norm": "optim/grad_norm",
    "LR": "optim/lr",
}
_NEMO_RL_NAMES: Final = {
    "Loss": "train/loss",
    "Generation KL Error": "train/gen_kl_error",
    "Avg Reward": "train/reward",
    "Mean Generation Length": "train/mean_gen_tokens_per_sample",
}


class Printed(NamedTuple):
    """One line of scalars; ``step`` is None where the line does not say."""

    step: int | None
    values: dict[str, float]


def styled_lines(lines: Iterable[str]) -> Iterator[Printed]:
    r"""Yield the scalars of lines that state their step, or stand below a headline that does.

    Parameters
    ----------
    lines
        Of a console log, without colours; Ray, a logger or a progress bar may have put something before each.

    Examples
    --------
    >>> verl = "(TaskRunner pid=7) step:2 - actor/entropy:np.float64(0.4) - actor/lr:1e-6"
    >>> slime = "[2026-01-01 10:00:00] data.py:7 - rollout 3: {'rollout/raw_reward': 0.5, 'rollout/name': 'a'}"
    >>> prime_rl = "10:00:00 SUCCESS Step 4 |   7.1s | Loss 0.0100 | Entropy 0.5000 | Throughput 9 tokens/s"
    >>> nemo_rl = ["===== Step 5/10 =====", "📊 Training Results:", "  • Avg Reward: 0.2500"]
    >>> for line in styled_lines([verl, slime, prime_rl, *nemo_rl]):
    ...     print(line.step, line.values)
    2 {'actor/entropy': 0.4, 'actor/lr': 1e-06}
    3 {'rollout/raw_reward': 0.5}
    4 {'loss/mean': 0.01, 'entropy/all/mean': 0.5}
    5 {'train/reward': 0.25}
    """
    step: int | None = None
    in_results = False
    for line in lines:
        if "step:" in line and (match := _VERL.search(line)):
            pairs = [pair for part in match[2].split(" - ") if (pair := _PAIR.match(part))]
            yield _printed(match[1], {pair[1].strip(): pair[2] for pair in pairs})
        elif "{'" in line and (match := _SLIME.search(line)):
            yield _printed(match[1], dict(_ENTRY.findall(match[2])))
        elif "Step " in line and (match := _NEMO_RL.search(line)):
            step, in_results = int(match[1]), False
        elif "tokens/s" in line and (match := _PRIME_RL.search(line)):
            found = [pair for part in match[2].split(" | ") if (pair := _LABELLED.match(part.strip()))]
            yield _printed(match[1], {_PRIME_RL_NAMES[pair[1]]: pair[2] for pair in found})
        elif "Training Results:" in line:
            in_results = step is not None
        elif in_results and (match := _BULLET.search(line)):
            if name := _NEMO_RL_NAMES.get(match[1].strip()):
                yield _printed(str(step), {name: match[2]})
        elif "Timing:" in line or "Validation Results:" in line:
            in_results = False


def _printed(step: str, texts: dict[str, str]) -> Printed:
    return Printed(int(step), {name: value for name, text in texts.items() if (value := as_number(text)) is not None})
