"""Compare the memory estimate with measured peaks: models of 10 to 50 M parameters, a process each, on the processor.

``python benchmarks/memory_estimate.py [CASE …]`` prints a table in Markdown; docs/training.md has ours. What is
measured is the peak of the resident memory in each phase (Linux), less what the process had before the model.
"""

from __future__ import annotations

import ctypes
import gc
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedConfig, Qwen3Config

from entropy_lab.rl.checkpoint import Checkpoint
from entropy_lab.rl.memory import Workload, estimate_memory, footprint
from entropy_lab.rl.memory.estimate import ALWAYS
from entropy_lab.rl.objective import Objective
from entropy_lab.rl.precision import compute_in
from entropy_lab.rl.sequences import Sequences
from entropy_lab.rl.transformers_engine import TransformersEngine
from entropy_lab.rl.update import MiniBatch, accumulate_gradients


def qwen3(**sizes: int) -> Qwen3Config:
    """Make a small Qwen3's configuration; `sizes` change some of it."""
    small: dict[str, Any] = {
        "vocab_size": 32_000,
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "intermediate_size": 1_152,
    }
    return Qwen3Config(tie_word_embeddings=True, **{**small, **sizes})


QWEN: Final = qwen3()
DEEP: Final = qwen3(vocab_size=4_000, num_hidden_layers=16)
WIDE: Final = qwen3(vocab_size=100_000, num_hidden_layers=3)
LLAMA: Final = LlamaConfig(
    vocab_size=16_000, hidden_size=512, num_hidden_layers=6, num_attention_heads=8, intermediate_size=1_408
)
GPT2: Final = GPT2Config(vocab_size=16_000, n_embd=384, n_layer=8, n_head=6, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
LOAD: Final = Workload(
    steps=1,
    prompts_per_step=4,
    group_size=4,
    prompt_tokens=32,
    max_new_tokens=128,
    micro_batch=8,
    checkpoint_every=1,
)


@dataclass(frozen=True)
class Case:
    """A model and settings."""

    config: PreTrainedConfig
    dtype: str = "float32"
    load: Workload = LOAD


CASES: Final = {
    "qwen3": Case(QWEN),
    "qwen3, checkpointing": Case(QWEN, load=replace(LOAD, gradient_checkpointing=True)),
    "qwen3, bfloat16": Case(QWEN, "bfloat16"),
    "qwen3, bfloat16, checkpointing": Case(QWEN, "bfloat16", replace(LOAD, gradient_checkpointing=True)),
    "qwen3, 16 layers": Case(DEEP),
    "qwen3, 16 layers, checkpointing": Case(DEEP, load=replace(LOAD, gradient_checkpointing=True)),
    "qwen3, 100,000 token ids": Case(WIDE),
    "qwen3, micro_tokens 512": Case(QWEN, load=replace(LOAD, micro_tokens=512)),
    "llama, untied": Case(LLAMA),
    "gpt2": Case(GPT2),
}


def main(names: list[str]) -> None:
    """Measure each case in a process of its own, and print a table."""
    print("| model | parameters | phase | estimated | measured | estimated / measured |\n|---|---|---|---|---|---|")
    for name in names or CASES:
        case = CASES[name]
        found = footprint(case.config, case.dtype)
        estimated = estimate_memory(found, case.load)
        # A checkpoint is written straight from the tensors.
        phases = {**estimated.phases, "checkpoint": sum(p.n_bytes for p in estimated.parts if p.phase == ALWAYS)}
        words = [sys.executable, __file__, "--measure", name]
        measured = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
        for phase, n_bytes in measured.items():
            sizes = " | ".join(f"{each / 2**20:,.0f} MiB" for each in (phases[phase], n_bytes))
            parameters = f"{found.n_parameters / 1e6:.1f} M"
            print(f"| {name} | {parameters} | {phase} | {sizes} | {phases[phase] / n_bytes:.2f} |", flush=True)


def measure(case: Case) -> dict[str, int]:
    """Make an update, sample, and write a checkpoint, with real tensors.

    Returns
    -------
    dict of str to int
        Phase -> most bytes in use.
    """
    torch.manual_seed(0)
    _step(Case(qwen3(hidden_size=64, vocab_size=100), case.dtype))  # what torch needs
    _forget_the_peak()
    before = _resident("VmRSS")
    return {phase: peak - before for phase, peak in _step(case).items()}


def _step(case: Case) -> dict[str, int]:
    load = case.load
    model: Any = AutoModelForCausalLM.from_config(case.config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    compute_in(model, case.dtype)
    if load.gradient_checkpointing:
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    engine = TransformersEngine(model, stop_ids=(-1,), batch_size=load.rollout_batch)
    vocabulary = case.config.vocab_size
    prompts = torch.randint(vocabulary, (load.prompts_per_step, load.prompt_tokens)).tolist()
    peaks: dict[str, int] = {}
    for phase in ("rollout", "update", "rollout", "update"):  # the second time, gradients and moments are there
        _forget_the_peak()
        if phase == "rollout":
            model.train(False)
            drawn = engine.generate(prompts, load.group_size, temperature=1.0, max_new_tokens=load.max_new_tokens)
        else:
            model.train(load.gradient_checkpointing)
            sequences = Sequences.join([each for each in prompts for _ in range(load.group_size)], drawn.responses())
            advantage_B = torch.randn(load.rollouts)
            mini = MiniBatch(
                sequences,
                drawn.logp_BT,
                advantage_B[:, None].expand_as(drawn.logp_BT).contiguous(),
                torch.ones(load.rollouts, dtype=torch.bool),
            )
            objective = Objective("token-mean", load.max_new_tokens)
            optimizer.zero_grad()
            rng = np.random.default_rng(0)
            accumulate_gradients(model, mini, objective, load.micro_batch, rng, load.micro_tokens)
            optimizer.step()
        peaks[phase] = _resident("VmHWM")
    _forget_the_peak()
    with tempfile.TemporaryDirectory() as folder:
        Checkpoint.of(0, 0.0, model, optimizer, {}).save(Path(folder))
    peaks["checkpoint"] = _resident("VmHWM")
    return peaks


def _forget_the_peak() -> None:
    """Let the peak begin anew, with what is in use only: the C library keeps freed memory for later."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def _resident(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith(name)]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(CASES[sys.argv[2]])))
    else:
        main(sys.argv[1:])
