"""The run format, version 1, as data: every table and column with dtype, unit and meaning.

One rule: a column may be absent, but a name has one meaning. All logarithms are natural, entropies are in nats.
The tables of ``docs/run-format.md`` are generated from this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

FORMAT: Final = "entropy-lab/run"
SUPPORTED_VERSIONS: Final = (1,)


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Parameters
    ----------
    dtype
        Polars name of the type written: ``Int32``, ``Int64``, ``Float32``, ``Float64``, ``Boolean``, ``String``,
        ``List(Int32)`` or ``List(Float32)``. Readers accept any width of the same kind.
    meaning
        What the value is, with its reduction.
    unit
        ``nats``, ``tokens``, …; empty for a pure number, a name or a text.
    required
        True when the run cannot be read without the column.

    Examples
    --------
    >>> ROLLOUTS["logp"].unit
    'nats'
    """

    dtype: str
    meaning: str
    unit: str = ""
    required: bool = False


def _frozen(columns: dict[str, Column]) -> Mapping[str, Column]:
    return MappingProxyType(columns)


ROLLOUTS: Final = _frozen(
    {
        "step": Column("Int32", "index of the policy update that the rollout is used in, from 0", required=True),
        "epoch": Column("Int32", "pass over the training prompts, from 0"),
        "prompt_id": Column("String", "the prompt, stable across steps", required=True),
        "group_id": Column("Int64", "rollouts of one prompt drawn together; unique within a step", required=True),
        "sample": Column("Int32", "index of the rollout in its group, from 0", required=True),
        "reward": Column("Float32", "the reward that training used; absent when the source keeps none"),
        "correct": Column(
            "Boolean",
            "the verifier's verdict; null = not verified (such rollouts leave their group's accuracy)",
            required=True,
        ),
        "group_accuracy": Column("Float32", "p, mean of `correct` over the group's verified rollouts"),
        "advantage": Column("Float32", "rollout-level advantage that training used"),
        "n_tokens": Column("Int32", "response tokens, end-of-sequence included when sampled", "tokens"),
        "logp": Column(
            "Float32",
            "sum over response tokens of log π_old(token), trainer's forward pass, at sampling temperature",
            "nats",
        ),
        "logp_after": Column("Float32", "the same sum under the policy after this step's update", "nats"),
        "sampler_logp": Column("Float32", "the sum that the rollout engine reported", "nats"),
        "entropy": Column(
            "Float32",
            "mean over response tokens of the full-vocabulary entropy of π_old at sampling temperature",
            "nats/token",
        ),
        "truncated": Column("Boolean", "stopped by the length limit"),
        "source": Column("String", "data set or environment"),
        "prompt": Column("String", "text of the prompt"),
        "completion": Column("String", "text of the response"),
        "answer": Column("String", "reference answer, or the answer found in the response"),
        "token_ids": Column("List(Int32)", "response tokens"),
        "token_logp": Column("List(Float32)", "log π_old of each response token", "nats"),
        "token_logp_after": Column("List(Float32)", "the same under the policy after this step's update", "nats"),
        "token_entropy": Column("List(Float32)", "full-vocabulary entropy of π_old at each response token", "nats"),
    }
)

EVALS: Final = _frozen(
    {
        "step": Column("Int32", "update after which the validation pass was made", required=True),
        "benchmark": Column("String", "held-out problem set", required=True),
        "problem_id": Column("String", "the problem, stable across passes", required=True),
        "sample": Column("Int32", "index of the answer to this problem, from 0", required=True),
        "greedy": Column("Boolean", "decoded greedily (temperature 0)"),
        "temperature": Column("Float32", "sampling temperature"),
        "correct": Column("Boolean", "the verifier's verdict; null = not verified", required=True),
        "n_tokens": Column("Int32", "response tokens", "tokens"),
        "completion": Column("String", "text of the response"),
    }
)

METRICS: Final = _frozen(
    {
        "step": Column("Int32", "index of the policy update, from 0", required=True),
        "epoch": Column("Int32", "pass over the training prompts, from 0"),
        "time": Column("Float64", "since the run began", "s"),
        "entropy": Column("Float64", "policy entropy, mean over the step's response tokens", "nats/token"),
        "reward": Column("Float64", "mean over the step's rollouts"),
        "loss": Column("Float64", "mean over the step's mini-batches"),
        "grad_norm": Column("Float64", "before clipping, mean over the step's mini-batches"),
        "lr": Column("Float64", "learning rate of the step's last mini-batch"),
        "clip_fraction_low": Column("Float64", "share of response tokens clipped at 1 - eps_low"),
        "clip_fraction_high": Column("Float64", "share of response tokens clipped at 1 + eps_high"),
        "beta_pos": Column("Float64", "exponent of the positive channel, of advantages that change during training"),
        "beta_neg": Column("Float64", "exponent of the negative channel, likewise"),
        "entropy_smoothed": Column("Float64", "moving average of `entropy` that a controller reads", "nats/token"),
        "entropy_target": Column("Float64", "the entropy that a controller holds", "nats/token"),
        "clip_fraction_dual": Column("Float64", "share of response tokens clipped by the dual clip, where it is on"),
        "chosen_fraction": Column("Float64", "share of response tokens that Clip-Cov or KL-Cov chose"),
        "reference_kl": Column("Float64", "estimated divergence from the reference policy, mean over tokens", "nats"),
        "entropy_coef": Column("Float64", "weight of an entropy bonus that moves by itself, as applied"),
        "n_tokens": Column("Int64", "response tokens of the step, sum", "tokens"),
        "mean_length": Column("Float64", "mean over the step's rollouts", "tokens"),
        "truncated": Column("Float64", "share of the step's rollouts stopped by the length limit"),
        "all_solved": Column("Float64", "share of the step's groups with accuracy 1"),
        "none_solved": Column("Float64", "share of the step's groups with accuracy 0"),
        "unverified": Column("Float64", "share of the step's rollouts without a verdict"),
        "sampler_logp_difference_mean": Column("Float64", "engine's log π against trainer's, mean distance", "nats"),
        "sampler_logp_difference_max": Column("Float64", "the same, largest distance over the step's tokens", "nats"),
        "sampler_k3": Column("Float64", "estimated KL(engine ‖ trainer), mean over tokens", "nats/token"),
        "sampler_ess": Column("Float64", "effective sample size of the rollouts' trainer/engine ratios, as a share"),
        "time_rollout": Column("Float64", "sampling", "s"),
        "time_logp": Column("Float64", "log-probabilities before and after the update", "s"),
        "time_update": Column("Float64", "gradient steps", "s"),
    }
)

ANALYSES: Final[Mapping[str, Mapping[str, Column]]] = MappingProxyType(
    {
        "entropy": _frozen(
            {
                "step": Column("Int32", "index of the policy update"),
                "entropy": Column("Float64", "policy entropy, mean over response tokens", "nats/token"),
                "entropy_correct": Column("Float64", "the same over correct rollouts", "nats/token"),
                "entropy_wrong": Column("Float64", "the same over wrong rollouts", "nats/token"),
                "ci_low": Column("Float64", "lower bound of `entropy`, bootstrap over prompts", "nats/token"),
                "ci_high": Column("Float64", "upper bound of `entropy`, bootstrap over prompts", "nats/token"),
                "n_tokens": Column("Int64", "response tokens counted", "tokens"),
            }
        ),
        "covariance": _frozen(
            {
                "accuracy": Column("Float64", "group accuracy p (bin centre with `bins`)"),
                "n_groups": Column("Int64", "groups averaged", "groups"),
                "covariance": Column("Float64", "mean over groups of Cov(log π / n_tokens, A)", "nats/token"),
                "ci_low": Column("Float64", "lower bound, bootstrap over prompts", "nats/token"),
                "ci_high": Column("Float64", "upper bound, bootstrap over prompts", "nats/token"),
            }
        ),
        "solve_rates": _frozen(
            {
                "epoch": Column("Int32", "pass over the training prompts"),
                "n_groups": Column("Int64", "groups with an accuracy", "groups"),
                "all_solved": Column("Float64", "share of groups with p = 1"),
                "none_solved": Column("Float64", "share of groups with p = 0"),
                "expected_all": Column("Float64", "share with p = 1 under the Beta-binomial with the same two moments"),
                "expected_none": Column("Float64", "share with p = 0 under the same Beta-binomial"),
            }
        ),
        "likelihood": _frozen(
            {
                "step": Column("Int32", "index of the policy update"),
                "n_correct": Column("Int64", "correct rollouts averaged", "rollouts"),
                "n_wrong": Column("Int64", "wrong rollouts averaged", "rollouts"),
                "increment_correct": Column("Float64", "mean of logp_after - logp, correct rollouts", "nats/rollout"),
                "increment_wrong": Column("Float64", "mean of logp_after - logp, wrong rollouts", "nats/rollout"),
                "increment_correct_per_token": Column(
                    "Float64", "mean of (logp_after - logp) / n_tokens, correct rollouts with tokens", "nats/token"
                ),
                "increment_wrong_per_token": Column(
                    "Float64", "mean of (logp_after - logp) / n_tokens, wrong rollouts with tokens", "nats/token"
                ),
            }
        ),
        "advantages": _frozen(
            {
                "accuracy": Column("Float64", "group accuracy p"),
                "n_groups": Column("Int64", "groups averaged", "groups"),
                "mean_positive": Column("Float64", "mean over groups of the mean advantage of correct rollouts"),
                "mean_negative": Column("Float64", "mean over groups of the mean advantage of wrong rollouts"),
                "mean": Column("Float64", "mean over groups of the mean advantage"),
                "mass_positive": Column("Float64", "mean over groups of E[A; correct]"),
                "mass_negative": Column("Float64", "mean over groups of E[-A; wrong]"),
            }
        ),
        "ledger": _frozen(
            {
                "step": Column("Int32", "index of the policy update"),
                "channel": Column("String", "sign of the advantage: `positive`, `negative`, `zero`; `all` = total"),
                "accuracy": Column("Float64", "group accuracy p; null in totals and where nothing was verified"),
                "n_groups": Column("Int64", "groups with such rollouts", "groups"),
                "n_rollouts": Column("Int64", "rollouts with an advantage", "rollouts"),
                "advantage": Column("Float64", "part of the step's mean advantage"),
                "covariance": Column("Float64", "part of minus Cov(log π/n_tokens, A), mean over groups", "nats/token"),
                "increment": Column("Float64", "part of the prediction by likelihoods before and after", "nats/token"),
                "vanilla": Column("Float64", "part of the prediction by the gradient on the logits", "nats/token"),
                "predicted": Column("Float64", "the chosen prediction times its fitted scale", "nats/token"),
                "measured": Column("Float64", "entropy of the next step minus this step's", "nats/token"),
                "ci_low": Column("Float64", "lower bound of `measured`, bootstrap over prompts", "nats/token"),
                "ci_high": Column("Float64", "upper bound of `measured`, bootstrap over prompts", "nats/token"),
                "residual": Column("Float64", "measured minus predicted", "nats/token"),
            }
        ),
        "counterfactual": _frozen(
            {
                "kind": Column("String", "`map`, `estimator` (registered, with its defaults) or `recorded`"),
                "name": Column("String", "estimator; of `recorded`, the run's method"),
                "label": Column("String", "name for a reader; empty on the map"),
                "beta_pos": Column("Float64", "exponent of the positive channel; null off the beta plane"),
                "beta_neg": Column("Float64", "exponent of the negative channel; null off the beta plane"),
                "pressure": Column("Float64", "entropy change per unit of step, to first order", "nats/token"),
                "ci_low": Column("Float64", "lower bound of `pressure`, bootstrap over prompts", "nats/token"),
                "ci_high": Column("Float64", "upper bound of `pressure`, bootstrap over prompts", "nats/token"),
                "rms_advantage": Column("Float64", "root mean square of the advantages over response tokens"),
                "per_rms": Column("Float64", "`pressure` / `rms_advantage`", "nats/token"),
                "per_rms_low": Column("Float64", "lower bound of `per_rms`, bootstrap over prompts", "nats/token"),
                "per_rms_high": Column("Float64", "upper bound of `per_rms`, bootstrap over prompts", "nats/token"),
                "against_own": Column("Float64", "`per_rms` minus that of the recorded advantages", "nats/token"),
                "against_low": Column("Float64", "lower bound of `against_own`, bootstrap over prompts", "nats/token"),
                "against_high": Column("Float64", "upper bound of `against_own`, bootstrap over prompts", "nats/token"),
            }
        ),
        "entropy_audit": _frozen(
            {
                "name": Column("String", "a logged scalar, or `rollouts.` and a column"),
                "verdict": Column("String", "what could be found out"),
                "definition": Column("String", "reduction over tokens and responses that it follows"),
                "estimator": Column("String", "`full vocabulary`, or `Monte Carlo`: of the sampled tokens"),
                "n_steps": Column("Int64", "steps compared", "steps"),
                "error": Column("Float64", "relative error of the definition, median over steps"),
                "next_definition": Column("String", "the best definition that is ruled out"),
                "next_error": Column("Float64", "its relative error"),
                "factor": Column("Float64", "what turns it into nats per token, median over steps"),
                "nats_per_token": Column("Float64", "mean over the steps compared", "nats/token"),
                "low": Column("Float64", "lower bound of that mean as an entropy", "nats/token"),
                "high": Column("Float64", "upper bound", "nats/token"),
                "note": Column("String", "evidence and doubts in words"),
            }
        ),
        "group_size": _frozen(
            {
                "kind": Column(
                    "String", "`accuracy`: groups of equal counts; `estimator`: registered, with its defaults"
                ),
                "name": Column("String", "estimator; null in rows by accuracy"),
                "label": Column("String", "name of the estimator for a reader; empty in rows by accuracy"),
                "own": Column("Boolean", "the run's own estimator, with its parameters"),
                "accuracy": Column("Float64", "group accuracy p; null in rows of estimators"),
                "n_correct": Column("Int64", "correct rollouts of a group", "rollouts"),
                "n_rollouts": Column("Int64", "verified rollouts of a group", "rollouts"),
                "n_groups": Column("Int64", "groups with these counts", "groups"),
                "share": Column("Float64", "of all groups"),
                "expected": Column("Float64", "that share under the fitted Beta-binomial"),
                "excess": Column("Float64", "`share` - `expected`"),
                "excess_low": Column("Float64", "lower bound of `excess`, bootstrap over prompts"),
                "excess_high": Column("Float64", "upper bound of `excess`, bootstrap over prompts"),
                "posterior": Column("Float64", "mean of the true accuracy, given the counts and the fit"),
                "posterior_low": Column("Float64", "lower end of its credible interval"),
                "posterior_high": Column("Float64", "upper end of its credible interval"),
                "ratio_positive": Column(
                    "Float64", "own estimator: mean A of correct rollouts of mixed groups / A+(p)"
                ),
                "ratio_negative": Column("Float64", "own estimator: mean A of wrong rollouts of mixed groups / A-(p)"),
                "bias_positive": Column("Float64", "expected mass of the positive channel / true mass - 1"),
                "bias_negative": Column("Float64", "expected mass of the negative channel / true mass - 1"),
                "misplaced": Column("Float64", "mean absolute error of both masses / true masses"),
                "needed": Column("Int64", "fewest rollouts tried with `misplaced` within the tolerance", "rollouts"),
            }
        ),
        "mismatch": _frozen(
            {
                "step": Column("Int32", "index of the policy update; null in rows by position, and of the whole run"),
                "position": Column(
                    "Int64", "first token, from 1, of a bin; null in rows by step, and of the whole run"
                ),
                "n_rollouts": Column("Int64", "rollouts with log-probabilities of both", "rollouts"),
                "n_tokens": Column("Int64", "their response tokens; of a position, those in its bin", "tokens"),
                "k1": Column("Float64", "KL by k1, sampler → trainer", "nats/token"),
                "k1_low": Column("Float64", "lower bound of `k1`, bootstrap over prompts", "nats/token"),
                "k1_high": Column("Float64", "upper bound of `k1`, bootstrap over prompts", "nats/token"),
                "k3": Column("Float64", "KL by k3, sampler → trainer; of tokens", "nats/token"),
                "k3_low": Column("Float64", "lower bound of `k3`, bootstrap over prompts", "nats/token"),
                "k3_high": Column("Float64", "upper bound of `k3`, bootstrap over prompts", "nats/token"),
                "chi_square": Column("Float64", "chi-square divergence, sampler → trainer; mean over tokens"),
                "response_k3": Column("Float64", "KL by k3, sampler → trainer; of responses", "nats/response"),
                "response_chi_square": Column("Float64", "chi-square divergence, sampler → trainer; of responses"),
                "ess": Column("Float64", "effective share of responses weighted by their ratio, sampler → trainer"),
                "ess_low": Column("Float64", "lower bound of `ess`, bootstrap over prompts"),
                "ess_high": Column("Float64", "upper bound of `ess`, bootstrap over prompts"),
                "spread": Column("Float64", "root mean square of responses' log ratio, sampler → trainer", "nats"),
                "drift_k1": Column("Float64", "KL by k1, trainer before → after the update", "nats/token"),
                "drift_k1_low": Column("Float64", "lower bound of `drift_k1`, bootstrap over prompts", "nats/token"),
                "drift_k1_high": Column("Float64", "upper bound of `drift_k1`, bootstrap over prompts", "nats/token"),
                "drift_k3": Column("Float64", "KL by k3, trainer before → after the update; of tokens", "nats/token"),
                "drift_k3_low": Column("Float64", "lower bound of `drift_k3`, bootstrap over prompts", "nats/token"),
                "drift_k3_high": Column("Float64", "upper bound of `drift_k3`, bootstrap over prompts", "nats/token"),
                "drift_chi_square": Column(
                    "Float64", "chi-square divergence, trainer before → after the update; mean over tokens"
                ),
                "drift_response_k3": Column(
                    "Float64", "KL by k3, trainer before → after the update; of responses", "nats/response"
                ),
                "drift_response_chi_square": Column(
                    "Float64", "chi-square divergence, trainer before → after the update; of responses"
                ),
                "drift_ess": Column(
                    "Float64", "effective share of responses weighted by their ratio, trainer before → after the update"
                ),
                "drift_ess_low": Column("Float64", "lower bound of `drift_ess`, bootstrap over prompts"),
                "drift_ess_high": Column("Float64", "upper bound of `drift_ess`, bootstrap over prompts"),
                "drift_spread": Column(
                    "Float64", "root mean square of responses' log ratio, trainer before → after the update", "nats"
                ),
            }
        ),
        "training": _frozen(
            {
                "step": Column("Int32", "index of the policy update"),
                "reward": Column("Float64", "mean over rollouts"),
                "accuracy": Column("Float64", "mean of `correct` over verified rollouts"),
                "mean_length": Column("Float64", "mean over rollouts", "tokens"),
                "truncated": Column("Float64", "share of rollouts stopped by the length limit"),
                "clip_fraction_low": Column("Float64", "share of response tokens clipped at 1 - eps_low"),
                "clip_fraction_high": Column("Float64", "share of response tokens clipped at 1 + eps_high"),
            }
        ),
        "validation": _frozen(
            {
                "step": Column("Int32", "update after which the pass was made"),
                "benchmark": Column("String", "held-out problem set"),
                "greedy": Column("Boolean", "decoded greedily; null when not recorded"),
                "k": Column("Int64", "answers per problem (the smallest number, when problems differ)", "answers"),
                "accuracy": Column("Float64", "mean over problems of correct / k"),
                "ci_low": Column("Float64", "lower bound, bootstrap over problems"),
                "ci_high": Column("Float64", "upper bound, bootstrap over problems"),
            }
        ),
    }
)
"""Columns of each built-in analysis' table; `validation` adds ``pass_at_k`` for k = 1, 2, 4, … up to its k."""
