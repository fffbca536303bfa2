"""Names of ours among verl's own: of estimators, of their parameters in its configuration, and of its trainers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, Final

from entropy_lab.advantages import Modulation, modulation
from entropy_lab.advantages.registry import ESTIMATORS, MODULATIONS
from entropy_lab.errors import ParameterError

PREFIX: Final = "entropy_lab_"
"""Before a name of ours that verl uses itself."""
TAKEN: Final = frozenset({"grpo", "rloo"})
"""Names of our estimators that verl 0.9 uses itself."""
TAKEN_KEYS: Final = frozenset({"lam"})
"""Names of our estimators' parameters that verl 0.9 uses itself."""
TRAINERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "entropy_lab": "sync",
        "entropy_lab_colocate_async": "colocate_async",
        "entropy_lab_separate_async": "separate_async",
    }
)
"""Our values of ``trainer.v1.trainer_mode``, and verl's trainer that each of them adds to."""
SECTION: Final = "entropy_lab"
"""Part of ``trainer.v1`` that holds the record's settings."""


def estimator_names(taken: Collection[str]) -> dict[str, str]:
    """Give the names under which our estimators, and those that change during training, are registered.

    Parameters
    ----------
    taken
        Names that verl has itself.

    Returns
    -------
    dict of str to str
        Name in verl -> name in our registry.

    Examples
    --------
    >>> names = estimator_names({"gae", "grpo", "rloo"})
    >>> names["asym_grpo"], names["entropy_lab_grpo"], "grpo" in names
    ('asym_grpo', 'grpo', False)
    """
    ours = (*ESTIMATORS, *MODULATIONS)
    return {PREFIX + name if name in taken else name: name for name in ours}


def words_of(name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Write an advantage as verl's command line takes it.

    Parameters
    ----------
    name
        In our registry.
    params
        Its parameters, those with another value than their default.

    Returns
    -------
    dict of str to object
        Key with Hydra's plus for a new one -> value.

    Examples
    --------
    >>> words_of("w_reinforce", {"lam": 0.2})
    {'algorithm.adv_estimator': 'w_reinforce', '+algorithm.entropy_lab_lam': 0.2}
    """
    names = {ours: theirs for theirs, ours in estimator_names(TAKEN).items()}
    keys = {each: PREFIX + each if each in TAKEN_KEYS else each for each in params}
    return {"algorithm.adv_estimator": names[name], **{f"+algorithm.{keys[each]}": params[each] for each in params}}


def advantage_of(name: str, algorithm: Mapping[str, Any], own: Collection[str]) -> Modulation:
    """Build the advantages that verl's configuration asks for.

    Parameters
    ----------
    name
        In our registry.
    algorithm
        verl's section ``algorithm``; what stands there beside verl's own keys are parameters of the estimator.
    own
        verl's own keys; a parameter of such a name is written with `PREFIX`.

    Returns
    -------
    Modulation
        With the parameters given, and defaults for the others.

    Raises
    ------
    ParameterError
        A key is neither verl's nor a parameter of the estimator, or a value is out of range.

    Examples
    --------
    >>> advantage_of("asym_grpo", {"adv_estimator": "asym_grpo", "beta_pos": 0.7}, {"adv_estimator"}).label
    'AsymGRPO 0.7/0.4'
    >>> dict(advantage_of("w_reinforce", {"lam": 1.0, "entropy_lab_lam": 0.2}, {"lam"}).params)
    {'lam': 0.2}
    >>> advantage_of("asym_grpo", {"beta_pso": 0.7}, {"lam"})
    Traceback (most recent call last):
    entropy_lab.errors.ParameterError: asym_grpo: there is no parameter 'beta_pso'; parameters: beta_pos in [0, ∞), \
beta_neg in [0, ∞). Hint: did you mean beta_pos?
    """
    given = {str(key): value for key, value in algorithm.items() if key not in own}
    for key in list(given):
        if key.startswith(PREFIX):
            bare = key.removeprefix(PREFIX)
            if bare in given:
                raise ParameterError(f"algorithm.{bare}", f"stands beside algorithm.{key}", "one of them")
            given[bare] = given.pop(key)
    return modulation(name, **given)
