"""What the readers make of console logs of slime, prime-rl and NeMo-RL."""

import pytest

from entropy_lab.errors import RunFormatError
from entropy_lab.readers import open_any


def written(tmp_path, text, name="run.log"):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def slime_lines(rollout, steps=1):
    """slime logs what was drawn under the rollout, and what was trained under the gradient step."""
    yield (
        f"\x1b[36m(RolloutManager pid=4)\x1b[0m [2026-01-01 10:00:00] rollout.py:7 - perf {rollout}: "
        f"{{'rollout/response_len/mean': {30.5 + rollout}, 'rollout/truncated_ratio': 0.125, 'perf/note': 'x'}}"
    )
    yield f"(Actor pid=5) [2026-01-01 10:00:01] x.py:7 - rollout {rollout}: {{'rollout/raw_reward': 0.{rollout + 1}}}"
    for step in range(rollout * steps, rollout * steps + steps):
        yield f"(Actor pid=5) [2026-01-01 10:00:02] model.py:7 - step {step}: {{'train/grad_norm': {step}.0}}"


def test_slime_prints_dictionaries(tmp_path):
    text = "\n".join(line for rollout in range(3) for line in slime_lines(rollout))
    run = open_any(written(tmp_path, text))
    metrics = run.metrics()
    assert run.info["imported"]["format"] == "slime"
    assert metrics["step"].to_list() == [0, 1, 2]
    assert metrics["reward"].to_list() == [0.1, 0.2, 0.3]
    assert metrics["mean_length"].to_list() == [30.5, 31.5, 32.5]
    assert metrics["grad_norm"].to_list() == [0.0, 1.0, 2.0]


def test_slime_s_gradient_steps_are_put_to_their_rollouts(tmp_path):
    text = "\n".join(line for rollout in range(3) for line in slime_lines(rollout, steps=4))
    run = open_any(written(tmp_path, text))
    assert run.metrics()["step"].to_list() == [0, 1, 2]
    assert run.metrics()["grad_norm"].to_list() == [1.5, 5.5, 9.5]  # means of 0 to 3, 4 to 7, 8 to 11
    assert "4 gradient steps a rollout" in " ".join(run.info["imported"]["notes"])


OLD = "10:00:0{n} SUCCESS Step {n} | Time: 63.05s | Loss: 0.0100 | Entropy: 0.5{n}00 | Mismatch KL: 0.0011 | "
OLD += "Grad. Norm: 0.1000 | LR: 1.00e-06 | Throughput: 4000 tokens/s | MFU: 12.0%"
NEW = "10:00:0{n} SUCCESS Step {n} |   63.1s | Loss 0.0100 | Entropy 0.5{n}00 | Mismatch KL 0.0011 | "
NEW += "Grad. Norm 0.1000 | LR 1.00e-06 | Throughput 4000 tokens/s | MFU 12.0%"


@pytest.mark.parametrize("line", [OLD, NEW])
def test_prime_rl_prints_a_line_a_step(tmp_path, line):
    micro = "10:00:00 DEBUG Micro Step 0/8 | Loss 9.0000 | Entropy 9.0000 | 1 tokens/s\n"
    orchestrator = "10:00:00 SUCCESS Step 1 | Time: 9.00s | Reward: 0.5000 | Throughput: 9.0 tokens/s\n"
    run = open_any(
        written(tmp_path, micro + orchestrator + "\n".join(line.format(n=n) for n in range(3)), "trainer.log")
    )
    metrics = run.metrics()
    assert run.info["imported"]["format"] == "prime_rl"
    assert metrics["entropy"].to_list() == [0.5, 0.51, 0.52]
    assert metrics["lr"].to_list() == [1e-6] * 3
    assert metrics["grad_norm"].to_list() == [0.1] * 3


def test_a_line_like_prime_rl_s_is_not_taken_for_it(tmp_path):
    text = "\n".join(f"Step {n} | Loss: 0.1 | Entropy: 0.5" for n in range(3))  # of some script: which entropy?
    with pytest.raises(RunFormatError, match="holds nothing that a reader knows"):
        open_any(written(tmp_path, text))


def test_nemo_rl_prints_a_list_a_step(tmp_path):
    step = "\n0: {bar} Step {n}/100 {bar}\n▶ Generating responses...\n📊 Training Results:\n0:   • Loss: 0.01\n"
    step += "(VllmWorker pid=3) INFO a line between\n"
    step += "  • Generation KL Error: 0.002\n  • Avg Reward: 0.{n}\n  • Mean Generation Length: 51{n}.0\n\n"
    step += "⏱️  Timing:\n  • Total step time: 31.20s\n\n📊 Validation Results:\n    • Accuracy: 0.9\n"
    run = open_any(written(tmp_path, "".join(step.format(bar="=" * 25, n=n) for n in (1, 2)), "ray-driver.log"))
    metrics = run.metrics()
    assert run.info["imported"]["format"] == "nemo_rl"
    assert metrics["step"].to_list() == [0, 1]
    assert metrics["reward"].to_list() == [0.1, 0.2]
    assert metrics["mean_length"].to_list() == [511.0, 512.0]
    assert metrics["train/gen_kl_error"].to_list() == [0.002] * 2
