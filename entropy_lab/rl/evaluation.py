"""A validation pass: greedy and sampled answers to the held-out problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from entropy_lab.rl.engine import RolloutEngine
from entropy_lab.rl.tokens import Tokens
from entropy_lab.tasks.task import Problem, Task, verify_all

Columns = dict[str, list[object]]


def evaluate(
    engine: RolloutEngine,
    tokens: Tokens,
    task: Task,
    benchmarks: Mapping[str, Sequence[Problem]],
    *,
    n_samples: int,
    temperature: float,
    max_new_tokens: int,
    generator: torch.Generator,
) -> Columns:
    """Answer every held-out problem once greedily and `n_samples` times by sampling.

    Parameters
    ----------
    engine
        Has the policy to be evaluated.
    tokens
        Of the policy.
    task
        Verifies the answers.
    benchmarks
        Problems by the name of their set.
    n_samples
        Sampled answers to each problem; 0 for none.
    temperature
        Of the sampled answers; greedy ones are recorded with 0.
    max_new_tokens
        Length limit of an answer.
    generator
        Source of randomness.

    Returns
    -------
    dict of str to list
        Columns of the run format's ``evals`` table but for ``step``; one entry an answer.
    """
    asked = [(name, problem) for name, problems in benchmarks.items() for problem in problems]
    prompts = [tokens.encode(problem.prompt) for _, problem in asked]
    columns: Columns = {
        name: []
        for name in ("benchmark", "problem_id", "sample", "greedy", "temperature", "correct", "n_tokens", "completion")
    }
    for greedy, n in ((True, 1), (False, n_samples)):
        if n == 0:
            continue
        rollouts = engine.generate(
            prompts, n, temperature=temperature, max_new_tokens=max_new_tokens, generator=generator, greedy=greedy
        )
        responses = rollouts.responses()
        completions = [tokens.decode(response) for response in responses]
        problems = [problem for _, problem in asked for _ in range(n)]
        columns["correct"] += verify_all(task, problems, completions, rollouts.truncated_B.tolist())
        columns["completion"] += completions
        for row, response in enumerate(responses):
            benchmark, problem = asked[row // n]
            columns["benchmark"].append(benchmark)
            columns["problem_id"].append(problem.id)
            columns["sample"].append(row % n)
            columns["greedy"].append(greedy)
            columns["temperature"].append(0.0 if greedy else temperature)
            columns["n_tokens"].append(len(response))
    return columns
