"""Time what recording adds to a training step: a tiny step that is measured here, and the rollouts of a large one.

Where the machine is busy with other things, the processor's seconds say what recording takes.

Tiny: 64 prompts x 8 rollouts of up to 26 tokens, the sizes of ``entropy-lab train grpo``: sample, score, four gradient
steps, score again; then the recorder writes everything by token. Both are timed in the same run, step by step; the
ratio is the median over steps. Large: 1,024 rollouts of up to 2,048 tokens as padded float32 arrays with texts of 4
characters a token. No step of that size can run here, so its time is given as it is, by million tokens, and as the
shortest step that it is 2 % of.

``python benchmarks/recorder_overhead.py``: a minute on one core.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import entropy_lab as el
from entropy_lab.rl.logprobs import score, token_scores
from entropy_lab.rl.model import ModelSizes, build_model
from entropy_lab.rl.sequences import Sequences
from entropy_lab.rl.transformers_engine import TransformersEngine

TARGET = 0.02
PROMPTS, GROUP, MINI_BATCHES, MAX_TOKENS = 64, 8, 4, 26


def tiny_steps(steps: int, seconds: dict[str, list[float]]) -> None:
    """Train and record, and take the time of both."""
    model, generator = build_model(ModelSizes(), vocabulary_size=20, seed=0), torch.Generator().manual_seed(0)
    optimizer, engine = torch.optim.AdamW(model.parameters(), lr=1e-4), TransformersEngine(model)
    with tempfile.TemporaryDirectory() as folder, el.Recorder(folder, method="grpo", group_size=GROUP) as rec:
        for _ in range(steps):
            start, processor_start = time.perf_counter(), time.process_time()
            columns = tiny_step(model, optimizer, engine, generator)
            trained, processor_trained = time.perf_counter(), time.process_time()
            rec.step(**columns, metrics={"loss": 0.0})
            seconds["step"].append(trained - start)
            seconds["record"].append(time.perf_counter() - trained)
            seconds["processor_step"].append(processor_trained - processor_start)
            seconds["processor_record"].append(time.process_time() - processor_trained)


def tiny_step(
    model: Any,  # noqa: ANN401 - a model of transformers
    optimizer: torch.optim.Optimizer,
    engine: TransformersEngine,
    generator: torch.Generator,
) -> dict[str, Any]:
    """Take one update by policy gradient, with made-up rewards."""
    prompts = torch.randint(2, 20, (PROMPTS, 12), generator=generator).tolist()
    drawn = engine.generate(prompts, GROUP, temperature=1.0, max_new_tokens=MAX_TOKENS, generator=generator)
    each = [prompt for prompt in prompts for _ in range(GROUP)]
    sequences = Sequences.join(each, drawn.responses())
    before = score(model, sequences, 1.0)
    rewards = torch.randint(0, 2, (len(each),), generator=generator).float()
    advantages = torch.from_numpy(el.advantages.get("grpo")(rewards.reshape(-1, GROUP).numpy())).reshape(-1).float()
    for rows in torch.arange(len(each)).chunk(MINI_BATCHES):
        optimizer.zero_grad()
        for part in rows.chunk(2):
            scores = token_scores(model, sequences.rows(part), 1.0)
            (-(scores.logp_BT * advantages[part, None]).sum() / MAX_TOKENS).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    after = score(model, sequences, 1.0)
    return {
        "prompts": [" ".join(map(str, prompt)) for prompt in each],
        "completions": [" ".join(map(str, response)) for response in drawn.responses()],
        "rewards": rewards,
        "advantages": advantages,
        "mask": sequences.mask_BT,
        "token_ids": drawn.token_ids_BT,
        "logps": before.logp_BT,
        "logps_after": after.logp_BT,
        "sampler_logps": drawn.logp_BT,
        "entropies": before.entropy_BT,
        "truncated": drawn.truncated_B,
    }


def large_step(rollouts: int, width: int) -> dict[str, Any]:
    """Make up the rollouts of a large step."""
    rng = np.random.default_rng(0)
    n_tokens = rng.integers(width // 8, width + 1, rollouts)
    mask = np.arange(width) < n_tokens[:, None]
    shape = (rollouts, width)
    text = "".join(rng.choice(list("abcdefghij 0123456789\n"), 4 * width))
    return {
        "prompts": [f"problem {row // GROUP}" for row in range(rollouts)],
        "completions": [text[row : row + 4 * n] for row, n in enumerate(n_tokens.tolist())],
        "rewards": (rng.random(rollouts) < 0.5).astype(np.float32),
        "advantages": rng.standard_normal(rollouts, dtype=np.float32),
        "mask": mask,
        "token_ids": rng.integers(0, 151_936, shape),
        "logps": -rng.exponential(0.4, shape).astype(np.float32),
        "logps_after": -rng.exponential(0.4, shape).astype(np.float32),
        "entropies": rng.exponential(0.5, shape).astype(np.float32),
        "truncated": n_tokens == width,
    }


def seconds_of(record: Callable[[], Path | None], rounds: int) -> tuple[list[float], float, int]:
    """Time calls, the first of which warms up; processor time of one, and the bytes of the last file, beside it."""
    taken, size, processor = [], 0, 0.0
    for turn in range(rounds + 1):
        start, processor_start = time.perf_counter(), time.process_time()
        file = record()
        if turn and file is not None:
            taken.append(time.perf_counter() - start)
            processor += (time.process_time() - processor_start) / rounds
            size = file.stat().st_size
    return taken, processor, size


def measure_large(rollouts: int, width: int, rounds: int) -> list[dict[str, Any]]:
    """Time the recording of a large step: everything, and without lists by token."""
    columns, found = large_step(rollouts, width), []
    n_tokens = int(columns["mask"].sum())
    for tokens in (True, False):
        with tempfile.TemporaryDirectory() as folder:
            with el.Recorder(folder, method="grpo", group_size=GROUP, tokens=tokens) as rec:
                taken, processor, size = seconds_of(lambda rec=rec: rec.step(**columns), rounds)  # type: ignore[misc]
            median = statistics.median(taken)
            found.append(
                {
                    "by_token": tokens,
                    "rollouts": rollouts,
                    "width": width,
                    "tokens": n_tokens,
                    "seconds": median,
                    "range": [min(taken), max(taken)],
                    "processor_seconds": processor,
                    "seconds_per_million_tokens": median / n_tokens * 1e6,
                    "megabytes": size / 1e6,
                    "step_it_is_2_percent_of": median / TARGET,
                }
            )
    return found


def main() -> None:
    """Measure, print, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10, help="tiny training steps")
    parser.add_argument("--rollouts", type=int, default=1024)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = defaultdict(list)
    tiny_steps(options.steps + 1, seconds)
    tiny = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    for kind in ("", "processor_"):
        pairs = zip(seconds[f"{kind}step"][1:], seconds[f"{kind}record"][1:], strict=True)
        tiny[f"{kind}ratio"] = statistics.median(record / step for step, record in pairs)
    verdict = "met" if max(tiny["ratio"], tiny["processor_ratio"]) < TARGET else "missed"
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} thread, torch {torch.__version__}")
    print(
        f"tiny   step {tiny['step']:.3f} s, recording {tiny['record']:.4f} s: {tiny['ratio']:.2%}; of a processor"
        f" {tiny['processor_step']:.3f} and {tiny['processor_record']:.4f} s: {tiny['processor_ratio']:.2%}"
        f" (under 2 %: {verdict})"
    )
    large = measure_large(options.rollouts, options.width, options.rounds)
    for row in large:
        what = "by token" if row["by_token"] else "by rollout"
        print(
            f"large  {row['tokens']:,} tokens, {what}: {row['seconds']:.3f} s"
            f" ({row['range'][0]:.3f}-{row['range'][1]:.3f}; of a processor {row['processor_seconds']:.3f}),"
            f" {row['seconds_per_million_tokens']:.3f} s a million tokens, {row['megabytes']:.1f} MB;"
            f" 2 % of a step of {row['step_it_is_2_percent_of']:.0f} s"
        )
    if options.json:
        options.json.write_text(json.dumps({"tiny": tiny, "large": large}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
