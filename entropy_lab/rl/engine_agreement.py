"""How far the log-probabilities of the engine that sampled are from those of the trainer, on the same tokens.

The two compute the same model by different kernels, and may round to different types. What is sampled then comes from a
slightly other policy than the one that is updated, and importance weights between the two are not 1.
"""

from __future__ import annotations

import torch

from entropy_lab.errors import ParameterError
from entropy_lab.rl.kl import kl_estimate


def sampler_agreement(
    sampler_logp_BT: torch.Tensor, trainer_logp_BT: torch.Tensor, mask_BT: torch.Tensor
) -> dict[str, float]:
    """Compare the two log-probabilities of B sampled responses.

    With ``d[b, t] = trainer_logp[b, t] - sampler_logp[b, t]`` over the N response tokens and the importance weight
    ``w[b] = exp(sum_t d[b, t])`` of a whole response:

    - ``sampler_logp_difference_mean`` is ``sum |d| / N`` and ``sampler_logp_difference_max`` is ``max |d|``;
    - ``sampler_k3`` is ``sum (exp(d) - 1 - d) / N``, an estimate of KL(sampler || trainer) per token;
    - ``sampler_ess`` is ``(sum_b w)^2 / (B sum_b w^2)``, the effective sample size as a share of B.

    Parameters
    ----------
    sampler_logp_BT
        Log-probability of each token as the engine saw it, in nats.
    trainer_logp_BT
        The same as the trainer's forward pass gives it, at the same temperature and before any update.
    mask_BT
        True at response tokens.

    Returns
    -------
    dict of str to float
        The differences and k3 in nats, at least 0, and 0 when both agree; ``sampler_ess`` from 1 / B (one response has
        all the weight) to 1 (all weights are equal). Sums are in float64.

    Raises
    ------
    ParameterError
        When the shapes differ, or there is no token.

    References
    ----------
    k3: J. Schulman, Approximating KL divergence, 2020. Effective sample size: A. Kong, A note on importance sampling
    using standardized weights, Technical Report 348, University of Chicago, 1992; its limits: arXiv 1809.04129.

    Examples
    --------
    >>> sampler_BT, mask_BT = torch.tensor([[0.5, 0.25], [0.5, 1.0]]).log(), torch.tensor([[1, 1], [1, 0]]).bool()
    >>> found = sampler_agreement(sampler_BT, sampler_BT + torch.tensor([[0.0, 0.5], [-0.1, 0.0]]), mask_BT)
    >>> {name: round(value, 4) for name, value in found.items()}
    ... # doctest: +NORMALIZE_WHITESPACE
    {'sampler_logp_difference_mean': 0.2, 'sampler_logp_difference_max': 0.5, 'sampler_k3': 0.0512,
     'sampler_ess': 0.9218}
    """
    if not sampler_logp_BT.shape == trainer_logp_BT.shape == mask_BT.shape:
        shapes = ", ".join(str(tuple(each.shape)) for each in (sampler_logp_BT, trainer_logp_BT, mask_BT))
        raise ParameterError("sampler_agreement", f"got shapes {shapes}", "three times the same")
    if not bool(mask_BT.any()):
        raise ParameterError("sampler_agreement", "got no response token", "one or more")
    sampler_BT = sampler_logp_BT.double().masked_fill(~mask_BT, 0)
    trainer_BT = trainer_logp_BT.double().masked_fill(~mask_BT, 0)
    difference_BT = trainer_BT - sampler_BT
    # Only ratios of weights count: the largest is made 1, so that none overflows.
    weight_B = torch.softmax(difference_BT.sum(1), dim=0)
    return {
        "sampler_logp_difference_mean": float(difference_BT[mask_BT].abs().mean()),
        "sampler_logp_difference_max": float(difference_BT[mask_BT].abs().max()),
        "sampler_k3": float(kl_estimate(sampler_BT, trainer_BT, "k3")[mask_BT].mean()),
        "sampler_ess": float(1 / (len(weight_B) * weight_B.square().sum())),
    }
