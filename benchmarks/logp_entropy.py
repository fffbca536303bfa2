"""Compare log-probabilities and entropies made block by block with the plain log_softmax, TRL's and Liger's.

Every contender gets hidden states, the output matrix and the tokens, and gives the log-probability of each token and
the entropy of its distribution, with a gradient for both (TRL's trainer takes none of the entropy, its functions have
one; Liger's fused cross-entropy has no entropy, and is timed for the log-probability alone). Contenders take turns in
one process: ratios are of the same minutes of the same machine. Peak memory is the most that one call holds beyond its
inputs and their gradients: on CUDA as the allocator tells it, on a processor by the high-water mark of a process of its
own (Linux).

``python benchmarks/logp_entropy.py`` is a look at a smaller size (two minutes on one core); ``--full`` is 4,096 tokens
x 151,936 vocabulary, Qwen's. With a GPU it runs there, in bfloat16, at full size.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch

from entropy_lab.rl.linear_logp import linear_logp_entropy

Values = tuple[torch.Tensor, torch.Tensor | None]
FULL: Final = (4096, 151_936)
LOOK: Final = (512, 32_768)
ENTROPY_COEF: Final = 0.01
TARGETS: Final = {"forward": 1.1, "forward+backward": 1.3, "memory": 0.1, "error": 1e-5}


@dataclass(frozen=True)
class Case:
    """What is measured."""

    tokens: int
    vocabulary: int
    hidden: int
    dtype: str
    device: str

    def inputs(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Draw hidden states, output matrix and tokens; logits have a standard deviation of 3, as trained models do."""
        generator = torch.Generator(self.device).manual_seed(0)

        def draw(rows: int, scale: float) -> torch.Tensor:
            numbers = torch.randn(rows, self.hidden, generator=generator, device=self.device) * scale
            return numbers.to(getattr(torch, self.dtype)).requires_grad_()

        hidden_ND, weight_VD = draw(self.tokens, 1.0), draw(self.vocabulary, 3 / self.hidden**0.5)
        token_N = torch.randint(self.vocabulary, (self.tokens,), generator=generator, device=self.device)
        return hidden_ND, weight_VD, token_N


def plain(hidden_ND: torch.Tensor, weight_VD: torch.Tensor, token_N: torch.Tensor) -> Values:
    """Make all logits, their log_softmax in float32, and read both numbers from it."""
    distribution_NV = torch.log_softmax((hidden_ND @ weight_VD.t()).float(), dim=-1)
    logp_N = distribution_NV.gather(1, token_N[:, None])[:, 0]
    return logp_N, -(distribution_NV.exp() * distribution_NV).sum(-1)


def with_trl(hidden_ND: torch.Tensor, weight_VD: torch.Tensor, token_N: torch.Tensor) -> Values:
    """Call the two functions that TRL's GRPO trainer calls on its logits, of the model's type."""
    from trl.trainer.utils import entropy_from_logits, selective_log_softmax

    logits_NV = hidden_ND @ weight_VD.t()
    return selective_log_softmax(logits_NV, token_N), entropy_from_logits(logits_NV)


def with_liger(hidden_ND: torch.Tensor, weight_VD: torch.Tensor, token_N: torch.Tensor) -> Values:
    """Call Liger's fused linear cross-entropy: the sum of the log-probabilities, its gradients made on the way."""
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss  # type: ignore[import-not-found]

    loss: torch.Tensor = LigerFusedLinearCrossEntropyLoss(reduction="sum")(weight_VD, hidden_ND, token_N)
    return -loss, None


def ours(hidden_ND: torch.Tensor, weight_VD: torch.Tensor, token_N: torch.Tensor) -> Values:
    """Call what the trainer calls."""
    return linear_logp_entropy(hidden_ND, weight_VD, token_N)


Contender = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], Values]


def contenders(case: Case) -> dict[str, Contender]:
    """Everyone who is here; Liger's kernels run on GPUs only."""
    found: dict[str, Contender] = {"plain": plain, "ours": ours}
    if importlib.util.find_spec("trl") is not None:
        found["TRL"] = with_trl
    if importlib.util.find_spec("liger_kernel") is not None and case.device == "cuda":
        found["Liger (no entropy)"] = with_liger
    return found


def forward(contender: Contender, inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    """Score, without gradients."""
    with torch.no_grad():
        contender(*inputs)


def forward_backward(contender: Contender, inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    """Score and take the gradient of mean log-probability and entropy bonus."""
    inputs[0].grad = inputs[1].grad = None
    logp_N, entropy_N = contender(*inputs)
    loss = -logp_N.mean()
    if entropy_N is not None:
        loss = loss - ENTROPY_COEF * entropy_N.mean()
    loss.backward()  # type: ignore[no-untyped-call]


PASSES: Final = {"forward": forward, "forward+backward": forward_backward}


def seconds(case: Case, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Let the contenders take turns at each pass; the first turn warms up and does not count."""
    inputs = case.inputs()
    taken: dict[str, dict[str, list[float]]] = {name: {each: [] for each in contenders(case)} for name in PASSES}
    for name, run in PASSES.items():
        for turn in range(rounds + 1):
            for each, contender in contenders(case).items():
                _wait(case)
                start = time.perf_counter()
                run(contender, inputs)
                _wait(case)
                if turn:
                    taken[name][each].append(time.perf_counter() - start)
    return taken


def _wait(case: Case) -> None:
    if case.device == "cuda":
        torch.cuda.synchronize()


def peak_mib(case: Case, name: str, contender: str) -> float:
    """Most memory that one call holds beyond its inputs and their gradients, in MiB."""
    if case.device != "cuda":
        words = [sys.executable, __file__, "--peak", json.dumps([asdict(case), name, contender])]
        peak = float(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    else:
        inputs = case.inputs()
        PASSES[name](contenders(case)[contender], inputs)
        inputs[0].grad = inputs[1].grad = None
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        PASSES[name](contenders(case)[contender], inputs)
        peak = (torch.cuda.max_memory_allocated() - before) / 2**20
    width = getattr(torch, case.dtype).itemsize / 2**20
    gradients = (case.tokens + case.vocabulary) * case.hidden * width if name != "forward" else 0
    return peak - gradients


def own_peak_mib(case: Case, name: str, contender: str) -> float:
    """Measure the same for this process: its high-water mark against what it held before the call."""

    def status(field: str) -> float:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))

    small = Case(8, 64, case.hidden, case.dtype, case.device)
    PASSES[name](contenders(case)[contender], small.inputs())  # the libraries' own memory, before it is counted
    inputs = case.inputs()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the mark starts again from here
    before = status("VmRSS")
    PASSES[name](contenders(case)[contender], inputs)
    return status("VmHWM") - before


def errors(case: Case) -> dict[str, float]:
    """Largest difference of our values from float64 ones, over the first 64 tokens."""
    hidden_ND, weight_VD, token_N = (each.detach() for each in case.inputs())
    with torch.no_grad():
        found = linear_logp_entropy(hidden_ND, weight_VD, token_N)
        exact = plain_float64(hidden_ND[:64], weight_VD, token_N[:64])
    names = ("log-probability", "entropy")
    return {name: float((a[:64].double() - b).abs().max()) for name, a, b in zip(names, found, exact, strict=True)}


def plain_float64(hidden_ND: torch.Tensor, weight_VD: torch.Tensor, token_N: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Compute the definitions, in float64."""
    distribution_NV = torch.log_softmax(hidden_ND.double() @ weight_VD.double().t(), dim=-1)
    logp_N = distribution_NV.gather(1, token_N[:, None])[:, 0]
    return logp_N, -(distribution_NV.exp() * distribution_NV).sum(-1)


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """Measure every contender; ratios are medians over rounds, each to the plain form in the same round."""
    times, rows = seconds(case, rounds), []
    for name in PASSES:
        plain_mib = peak_mib(case, name, "plain")
        for contender in contenders(case):
            mine, base = times[name][contender], times[name]["plain"]
            mib = plain_mib if contender == "plain" else peak_mib(case, name, contender)
            rows.append(
                {
                    "pass": name,
                    "contender": contender,
                    "seconds": statistics.median(mine),
                    "time_ratio": statistics.median(a / b for a, b in zip(mine, base, strict=True)),
                    "time_ratio_range": [f(a / b for a, b in zip(mine, base, strict=True)) for f in (min, max)],
                    "peak_mib": mib,
                    "memory_ratio": mib / plain_mib,
                }
            )
    machine = torch.cuda.get_device_name() if case.device == "cuda" else platform.processor() or platform.machine()
    about = {"machine": machine, "threads": torch.get_num_threads(), "torch": torch.__version__, "rounds": rounds}
    return {"case": asdict(case), **about, "rows": rows, "errors": errors(case)}


def report(found: dict[str, Any]) -> None:
    """Print the table and the targets."""
    case = found["case"]
    print(
        f"{case['tokens']:,} tokens x {case['vocabulary']:,} vocabulary, hidden {case['hidden']}, {case['dtype']}, "
        f"{found['machine']}, {found['threads']} threads, torch {found['torch']}, median of {found['rounds']}"
    )
    print(f"{'':36}{'seconds':>9}{'x plain':>9}{'(range)':>15}{'peak MiB':>11}{'x plain':>9}")
    for row in found["rows"]:
        low, high = row["time_ratio_range"]
        print(
            f"{row['pass']:17} {row['contender']:18}{row['seconds']:9.3f}{row['time_ratio']:9.2f}"
            f"{f'({low:.2f}-{high:.2f})':>15}{row['peak_mib']:11.0f}{row['memory_ratio']:9.3f}"
        )
    for row in found["rows"]:
        if row["contender"] == "ours":
            print(f"{row['pass']:17} time   {row['time_ratio']:.2f} x plain   target at most {TARGETS[row['pass']]}")
            print(f"{row['pass']:17} memory {row['memory_ratio']:.3f} x plain  target at most {TARGETS['memory']}")
    for name, error in found["errors"].items():
        print(f"{name:17} off the float64 value by at most {error:.1e}   target {TARGETS['error']:.0e}")


def main() -> None:
    """Measure, print, and write JSON where asked."""
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="4,096 tokens x 151,936 vocabulary")
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--vocabulary", type=int)
    parser.add_argument("--hidden", type=int, default=1536 if cuda else 1024)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16" if cuda else "float32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if cuda else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="processor threads")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak:
        case, name, contender = json.loads(options.peak)
        print(own_peak_mib(Case(**case), name, contender))
        return
    tokens, vocabulary = FULL if options.full or options.device == "cuda" else LOOK
    case = Case(
        options.tokens or tokens, options.vocabulary or vocabulary, options.hidden, options.dtype, options.device
    )
    found = measure(case, options.rounds)
    report(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
