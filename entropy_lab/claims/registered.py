"""The claims, fixed before any study was run: C1 to C11 of arXiv 2604.04894, and X1 to X4 on methods beyond it.

A method's name is one that `entropy_lab.plots.series.family` understands. Where a claim does not speak of a sweep,
exponent 0.5 stands for Pos-Only and Neg-Only.
"""

from __future__ import annotations

from typing import Final

from entropy_lab.claims.claim import (
    Claim,
    Method,
    above,
    alike,
    below,
    comparable,
    falling,
    near_zero,
    positive,
)

SHARE_MARGIN: Final = 0.02
"""All- or none-solved shares that differ by less are "about where REINFORCE has them": 2 points of 100 groups."""
RATIO_MARGIN: Final = (0.8, 1.25)
"""Entropies in this ratio are "comparable": the limits by which bioequivalence is judged, taken over as they are."""
TARGET_MARGIN: Final = 0.1
"""A controller that ends within this fraction of its target has met it."""

_REINFORCE, _GRPO = Method("reinforce", "REINFORCE"), Method("grpo", "GRPO")
_POS = {beta: Method("pos_only", f"Pos-Only {beta:g}", beta) for beta in (0.25, 0.5, 0.75, 0.9)}
_NEG = {beta: Method("neg_only", f"Neg-Only {beta:g}", beta) for beta in (0.25, 0.5, 0.75)}
_BONUS = Method("reinforce+entropy_bonus", "REINFORCE + entropy bonus")
_DECREASE, _INCREASE = Method("ent_decrease", "EntDecrease"), Method("ent_increase", "EntIncrease")
_ASYM, _SYMMETRIC = Method("asym_grpo", "AsymGRPO"), Method("asym_grpo_symmetric", "AsymGRPO (symmetric)")
_CLIP = Method("grpo+clip_higher", "GRPO + Clip-higher")
_ASYM_CLIP = Method("asym_grpo+clip_higher", "AsymGRPO + Clip-higher")
_SCHEDULED = Method("asym_grpo_schedule", "scheduled AsymGRPO")
_CONTROLLED = Method("entropy_target", "entropy-target AsymGRPO")
_TOKEN_LEVEL = Method("token_asym_grpo", "token-level AsymGRPO")

PAPER: Final = (
    Claim(
        "C1",
        "The covariance of log-likelihood and advantage increases with group accuracy",
        "Fig. 1c",
        (positive("covariance_slope", _GRPO),),
        tuple(
            positive("covariance_slope", method)
            for method in (_REINFORCE, _POS[0.5], _NEG[0.5], _ASYM, _DECREASE, _INCREASE)
        ),
    ),
    Claim(
        "C2",
        "Pos-Only keeps entropy above REINFORCE",
        "Fig. 2a,e",
        (above("entropy", _POS[0.5], _REINFORCE),),
        tuple(above("entropy", _POS[beta], _REINFORCE) for beta in (0.25, 0.75, 0.9)),
    ),
    Claim(
        "C3",
        "Pos-Only has fewer none-solved groups than REINFORCE, more so with larger beta_pos",
        "Fig. 2c,g",
        (
            below("none_solved", _POS[0.5], _REINFORCE),
            falling("none_solved", tuple(_POS.values()), "slope of Pos-Only over beta_pos 0.25, 0.5, 0.75, 0.9"),
        ),
        tuple(below("none_solved", _POS[beta], _REINFORCE) for beta in (0.25, 0.75, 0.9)),
    ),
    Claim(
        "C4",
        "Neg-Only drives entropy below REINFORCE",
        "Fig. 2a,e",
        (below("entropy", _NEG[0.5], _REINFORCE),),
        tuple(below("entropy", _NEG[beta], _REINFORCE) for beta in (0.25, 0.75)),
    ),
    Claim(
        "C5",
        "The likelihood increment of correct rollouts rises with beta_neg up to 0.5 and falls below the baseline "
        "at 0.75",
        "Fig. 2d,h",
        (
            above("increment_correct", _NEG[0.25], _REINFORCE),
            above("increment_correct", _NEG[0.5], _NEG[0.25]),
            below("increment_correct", _NEG[0.75], _REINFORCE),
        ),
    ),
    Claim(
        "C6",
        "Pos-Only and Neg-Only each beat REINFORCE in validation accuracy, and GRPO beats both",
        "Fig. 2b,f, Table 1",
        (
            above("accuracy", _POS[0.5], _REINFORCE),
            above("accuracy", _NEG[0.5], _REINFORCE),
            above("accuracy", _GRPO, _POS[0.5]),
            above("accuracy", _GRPO, _NEG[0.5]),
        ),
    ),
    Claim(
        "C7",
        "An entropy bonus raises entropy but not accuracy as much as Pos-Only, and leaves the all- and none-solved "
        "shares about where REINFORCE has them",
        "Fig. 2",
        (
            above("entropy", _BONUS, _REINFORCE),
            below("accuracy", _BONUS, _POS[0.5]),
            alike("all_solved", _BONUS, _REINFORCE, SHARE_MARGIN),
            alike("none_solved", _BONUS, _REINFORCE, SHARE_MARGIN),
        ),
    ),
    Claim(
        "C8",
        "Entropy: EntDecrease < GRPO < EntIncrease",
        "Fig. 3a,c",
        (below("entropy", _DECREASE, _GRPO), above("entropy", _INCREASE, _GRPO)),
    ),
    Claim(
        "C9",
        "Both flips end below GRPO in validation accuracy",
        "Fig. 3b,d, Table 1",
        (below("accuracy", _DECREASE, _GRPO), below("accuracy", _INCREASE, _GRPO)),
    ),
    Claim(
        "C10",
        "AsymGRPO beats GRPO and its symmetric ablation in accuracy, at an entropy comparable to GRPO's",
        "Fig. 4, Table 1",
        (
            above("accuracy", _ASYM, _GRPO),
            above("accuracy", _ASYM, _SYMMETRIC),
            comparable("entropy", _ASYM, _GRPO, *RATIO_MARGIN),
        ),
    ),
    Claim(
        "C11",
        "Clip-higher and AsymGRPO add up in accuracy: together above either alone",
        "Fig. 4, Table 1",
        (above("accuracy", _ASYM_CLIP, _ASYM), above("accuracy", _ASYM_CLIP, _CLIP)),
        (above("accuracy", _CLIP, _GRPO), above("entropy", _ASYM_CLIP, _ASYM)),
    ),
)
"""The paper's claims."""

EXTRAS: Final = (
    Claim(
        "X1",
        "AsymGRPO with scheduled exponents beats AsymGRPO in accuracy",
        "ours",
        (above("accuracy", _SCHEDULED, _ASYM),),
    ),
    Claim(
        "X2",
        "AsymGRPO controlled towards a target entropy beats AsymGRPO in accuracy",
        "ours",
        (above("accuracy", _CONTROLLED, _ASYM),),
    ),
    Claim("X3", "Token-level AsymGRPO beats AsymGRPO in accuracy", "ours", (above("accuracy", _TOKEN_LEVEL, _ASYM),)),
    Claim(
        "X4",
        "The controller ends within 10 % of its target entropy",
        "ours",
        (near_zero("target_error", _CONTROLLED, TARGET_MARGIN),),
    ),
)
"""Claims of our own; judged by the same rules in a family of their own, so that they change no verdict on the paper."""

FAMILIES: Final = {"paper": PAPER, "extras": EXTRAS}
"""Name -> claims that are corrected for together."""
