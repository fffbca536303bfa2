"""What checkpoints stand for, and in which columns their numbers go: one name has one meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from entropy_lab.errors import ParameterError
from entropy_lab.rl.checkpoint_pattern import CheckpointPattern


@dataclass(frozen=True)
class Pass:
    """One forward pass over every step's rollouts, and where its numbers go.

    Parameters
    ----------
    checkpoints
        The policy of each step.
    columns
        ``logp``, ``entropy``, ``token_logp``, ``token_entropy`` -> the column's name; what is not in it is not kept.
    """

    checkpoints: CheckpointPattern
    columns: Mapping[str, str]

    @classmethod
    def as_policy(cls, pattern: CheckpointPattern) -> Pass:
        """Score by the policies that sampled: the columns are those of the run format."""
        return cls(pattern, {name: name for name in ("logp", "entropy", "token_logp", "token_entropy")})

    @classmethod
    def as_policy_after(cls, pattern: CheckpointPattern) -> Pass:
        """Score by the policies after each step's update."""
        return cls(pattern, {"logp": "logp_after", "token_logp": "token_logp_after"})

    @classmethod
    def under(cls, pattern: CheckpointPattern, name: str) -> Pass:
        """Score by any model: the columns have its name, because they are not the policy's.

        Examples
        --------
        >>> Pass.under(CheckpointPattern("ckpts/base"), "base").columns["logp"]
        'logp_under_base'
        """
        kinds = ("logp", "entropy", "token_logp", "token_entropy")
        return cls(pattern, {kind: f"{kind}_under_{name}" for kind in kinds})


def plan_passes(model: str, after: str | None, name: str | None, as_policy: int | None) -> tuple[Pass, ...]:
    """Decide what checkpoints stand for.

    One checkpoint a step is the policy of that step, and ``after`` the policy after its update. One checkpoint for all
    steps is the policy of one of them at most: it is a model of its own, unless the user says for which step it is the
    policy.

    Parameters
    ----------
    model, after
        Patterns, see `CheckpointPattern`.
    name
        Keep the numbers in columns of this name, beside recorded ones.
    as_policy
        The one step whose policy `model` is.

    Returns
    -------
    tuple of Pass
        One, or two with `after`.

    Raises
    ------
    ParameterError
        What was said does not fit together.

    Examples
    --------
    >>> [list(each.columns.values())[0] for each in plan_passes("ckpts/{step}", "ckpts/{step+1}", None, None)]
    ['logp', 'logp_after']
    >>> [list(each.columns.values())[0] for each in plan_passes("ckpts/base", None, None, None)]
    ['logp_under_base']
    """
    patterns = [CheckpointPattern(model), *([CheckpointPattern(after)] if after else [])]
    if len({pattern.by_step for pattern in patterns}) > 1:
        raise ParameterError("--after", f"is {after!r} beside --model {model!r}", "{step} in both, or in none")
    if name is not None and not name.isidentifier():
        raise ParameterError("--name", f"is {name!r}", "letters, digits and underscores")
    if as_policy is not None and (patterns[0].by_step or name):
        raise ParameterError("--as-policy", f"is {as_policy}", "one checkpoint without {step}, and no --name")
    if name is None and (patterns[0].by_step or as_policy is not None):
        made = [Pass.as_policy, Pass.as_policy_after]
        return tuple(make(pattern) for make, pattern in zip(made, patterns, strict=False))
    names = [name, f"{name}_after"] if name else [pattern.name for pattern in patterns]
    if len({*names[: len(patterns)]}) < len(patterns):
        raise ParameterError("--after", f"has the same name as --model, {names[0]!r}", "--name NAME tells them apart")
    return tuple(Pass.under(pattern, each) for pattern, each in zip(patterns, names, strict=False))
