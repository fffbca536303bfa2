"""Every advantage estimator by name, and those that change during training.

A new one is a function in a file of its own, and one line here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Annotated, Final, TypeVar

from entropy_lab.advantages.a_grae import a_grae
from entropy_lab.advantages.centred import dr_grpo, grpo, rloo
from entropy_lab.advantages.controller import entropy_target
from entropy_lab.advantages.entropy_advantage import with_entropy_bonus
from entropy_lab.advantages.estimator import Estimator
from entropy_lab.advantages.flipped import ent_decrease, ent_increase
from entropy_lab.advantages.modulation import Constant, Modulation
from entropy_lab.advantages.parameters import Choice, Real, checked
from entropy_lab.advantages.pass_at_k import pass_at_k
from entropy_lab.advantages.power import asym_grpo, neg_only, pos_only, reinforce
from entropy_lab.advantages.quantile import qae
from entropy_lab.advantages.schedule import asym_grpo_schedule
from entropy_lab.advantages.signed import nsr, psr, w_reinforce
from entropy_lab.advantages.token_modulation import token_asym_grpo
from entropy_lab.errors import UnknownNameError

_BASES: Final[Mapping[str, Callable[..., Estimator]]] = MappingProxyType(
    {
        "reinforce": reinforce,
        "grpo": grpo,
        "asym_grpo": asym_grpo,
        "pos_only": pos_only,
        "neg_only": neg_only,
        "ent_decrease": ent_decrease,
        "ent_increase": ent_increase,
        "dr_grpo": dr_grpo,
        "rloo": rloo,
        "pass_at_k": pass_at_k,
        "psr": psr,
        "nsr": nsr,
        "w_reinforce": w_reinforce,
        "qae": qae,
        "a_grae": a_grae,
        "token_asym_grpo": token_asym_grpo,
    }
)


def entropy_advantage(
    alpha: Annotated[float, Real(0)] = 0.4,
    kappa: Annotated[float, Real(1, open_at="low")] = 2.0,
    base: Annotated[str, Choice(*_BASES)] = "grpo",
) -> Estimator:
    """Entropy advantage on an estimator named by the user; see `with_entropy_bonus`.

    ``A_t = A + min(alpha H_t, |A| / kappa)`` at each token.

    Parameters
    ----------
    alpha
        Advantage per nat of entropy.
    kappa
        Cap: the bonus is at most ``|A| / kappa``.
    base
        Name of any other estimator, taken with its default parameters.

    Returns
    -------
    Estimator
        At the rollout level the same as ``base``.

    References
    ----------
    arXiv:2506.14758, Eq. 5 and 6 (v4).

    Examples
    --------
    >>> entropy_advantage(base="reinforce").label
    'REINFORCE (2r − 1) + entropy advantage'
    """
    return with_entropy_bonus(_BASES[base](), alpha, kappa)


ESTIMATORS: Final[Mapping[str, Callable[..., Estimator]]] = MappingProxyType(
    {**_BASES, "entropy_advantage": entropy_advantage}
)


MODULATIONS: Final[Mapping[str, Callable[..., Modulation]]] = MappingProxyType(
    {"asym_grpo_schedule": asym_grpo_schedule, "entropy_target": entropy_target}
)

_Built = TypeVar("_Built")


def names() -> tuple[str, ...]:
    """Names of all estimators.

    Returns
    -------
    tuple of str
        In the order of the registry; those that change during training are in `modulation_names`.

    Examples
    --------
    >>> names()[:3]
    ('reinforce', 'grpo', 'asym_grpo')
    """
    return tuple(ESTIMATORS)


def modulation_names() -> tuple[str, ...]:
    """Names of all advantages that change during training.

    Returns
    -------
    tuple of str
        In the order of the registry.

    Examples
    --------
    >>> modulation_names()
    ('asym_grpo_schedule', 'entropy_target')
    """
    return tuple(MODULATIONS)


def get(name: str, **params: object) -> Estimator:
    """Build an advantage estimator.

    Parameters
    ----------
    name
        One of `names`.
    **params
        Its parameters; those left out take their defaults.

    Returns
    -------
    Estimator
        Call it on rewards.

    Raises
    ------
    UnknownNameError
        When there is no such estimator; the message names the known ones.
    ParameterError
        For an unknown parameter or a value out of range; the message names the parameters with their ranges.

    Examples
    --------
    >>> get("asym_grpo", beta_pos=0.7).formula
    'A = ((1−p)/p)^0.7 if r = 1, −(p/(1−p))^0.4 if r = 0'
    >>> get("gpro")
    Traceback (most recent call last):
    entropy_lab.errors.UnknownNameError: advantage estimator: there is no 'gpro'; known: reinforce, grpo, asym_grpo, \
pos_only, neg_only, ent_decrease, ent_increase, dr_grpo, rloo, pass_at_k, psr, nsr, w_reinforce, qae, a_grae, \
token_asym_grpo, entropy_advantage. Hint: did you mean grpo?
    >>> get("entropy_target")
    Traceback (most recent call last):
    entropy_lab.errors.UnknownNameError: advantage estimator: 'entropy_target' changes during training; it has no one \
estimator. Hint: advantages.modulation('entropy_target')
    """
    if name in MODULATIONS:
        wrong = f"{name!r} changes during training"
        raise UnknownNameError(
            "advantage estimator", wrong, "it has no one estimator", f"advantages.modulation({name!r})"
        )
    return _build(ESTIMATORS, name, params)


def modulation(name: str, **params: object) -> Modulation:
    """Build the advantages of a training run: any estimator, as a constant, or one that changes during training.

    Parameters
    ----------
    name
        One of `names` or `modulation_names`.
    **params
        Its parameters; those left out take their defaults.

    Returns
    -------
    Modulation
        Ask its ``at`` for the estimator of each update.

    Raises
    ------
    UnknownNameError
        When there is no such name; the message names the known ones.
    ParameterError
        For an unknown parameter or a value out of range; the message names the parameters with their ranges.

    Examples
    --------
    >>> modulation("grpo").at(0, steps=80, entropy=0.4) == get("grpo")
    True
    >>> modulation("asym_grpo_schedule", shape="cosine").params["shape"]
    'cosine'
    >>> modulation("asym_grpo_schedule", shape="step")
    Traceback (most recent call last):
    entropy_lab.errors.ParameterError: asym_grpo_schedule: shape is 'step'; parameters: beta_pos in [0, ∞), \
beta_neg in [0, ∞), beta_pos_end in [0, ∞), beta_neg_end in [0, ∞), shape in {constant, linear, cosine}
    """
    builders: dict[str, Callable[..., Estimator | Modulation]] = {**ESTIMATORS, **MODULATIONS}
    built = _build(builders, name, params)
    return Constant(built) if isinstance(built, Estimator) else built


def _build(builders: Mapping[str, Callable[..., _Built]], name: str, params: Mapping[str, object]) -> _Built:
    if name not in builders:
        close = get_close_matches(str(name).lower().replace("-", "_"), builders, n=1)
        hint = f"did you mean {close[0]}?" if close else ""
        raise UnknownNameError("advantage estimator", f"there is no {name!r}", f"known: {', '.join(builders)}", hint)
    build = builders[name]
    return build(**checked(name, build, params))
