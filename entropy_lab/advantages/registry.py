"""Every advantage estimator by name. A new one is a function in a file of its own, and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Annotated, Final

from entropy_lab.advantages.a_grae import a_grae
from entropy_lab.advantages.centred import dr_grpo, grpo, rloo
from entropy_lab.advantages.entropy_advantage import with_entropy_bonus
from entropy_lab.advantages.estimator import Estimator
from entropy_lab.advantages.flipped import ent_decrease, ent_increase
from entropy_lab.advantages.parameters import Choice, Real, checked
from entropy_lab.advantages.pass_at_k import pass_at_k
from entropy_lab.advantages.power import asym_grpo, neg_only, pos_only, reinforce
from entropy_lab.advantages.quantile import qae
from entropy_lab.advantages.signed import nsr, psr, w_reinforce
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


def names() -> tuple[str, ...]:
    """Names of all estimators.

    Returns
    -------
    tuple of str
        In the order of the registry.

    Examples
    --------
    >>> names()[:3]
    ('reinforce', 'grpo', 'asym_grpo')
    """
    return tuple(ESTIMATORS)


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
entropy_advantage. Hint: did you mean grpo?
    """
    if name not in ESTIMATORS:
        close = get_close_matches(str(name).lower().replace("-", "_"), ESTIMATORS, n=1)
        hint = f"did you mean {close[0]}?" if close else ""
        raise UnknownNameError("advantage estimator", f"there is no {name!r}", f"known: {', '.join(names())}", hint)
    build = ESTIMATORS[name]
    return build(**checked(name, build, params))
