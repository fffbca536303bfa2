"""The memory estimate against closed forms, real tensors and PyTorch's own account; what there is, and the refusal."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

from entropy_lab import recipes
from entropy_lab.errors import ParameterError
from entropy_lab.rl import transformers_engine
from entropy_lab.rl.memory import (
    Workload,
    available_memory,
    estimate_host,
    estimate_memory,
    footprint,
    require_memory,
    tokens_of,
)
from entropy_lab.rl.memory.estimate import GIB
from entropy_lab.rl.micro_batches import micro_batches
from entropy_lab.rl.objective import Objective
from entropy_lab.rl.precision import autocast, compute_in
from entropy_lab.rl.sequences import Sequences
from entropy_lab.rl.transformers_engine import TransformersEngine
from entropy_lab.rl.update import MiniBatch, accumulate_gradients
from entropy_lab.studies.command_line import from_command_line

torch.set_num_threads(1)

# The numbers of config.json of Qwen/Qwen3-4B and Qwen/Qwen2.5-Math-1.5B on the Hugging Face hub.
QWEN3_4B = Qwen3Config(
    vocab_size=151936,
    hidden_size=2560,
    num_hidden_layers=36,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=128,
    intermediate_size=9728,
    tie_word_embeddings=True,
)
QWEN25_MATH = Qwen2Config(
    vocab_size=151936,
    hidden_size=1536,
    num_hidden_layers=28,
    num_attention_heads=12,
    num_key_value_heads=2,
    intermediate_size=8960,
    tie_word_embeddings=True,
)
SMALL = Qwen3Config(
    vocab_size=8000,
    hidden_size=128,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
    intermediate_size=512,
    tie_word_embeddings=True,
)
LLAMA = LlamaConfig(
    vocab_size=500, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=160, bos_token_id=None
)
LOAD = Workload(steps=3, prompts_per_step=4, group_size=4, prompt_tokens=16, max_new_tokens=48, micro_batch=8)


@pytest.fixture(scope="module")
def qwen25():
    return footprint(QWEN25_MATH, "bfloat16")


@pytest.mark.parametrize(("config", "published"), [(QWEN3_4B, 4_022_468_096), (QWEN25_MATH, 1_543_714_304)])
def test_the_published_numbers_of_parameters(config, published):
    """4.02 B and 1.54 B on the hub: half the bytes of their bfloat16 safetensors files."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert model.num_parameters() == published


def test_a_footprint_has_the_parameters_too(qwen25):
    assert qwen25.n_parameters == 1_543_714_304
    assert (qwen25.n_layers, qwen25.n_vocabulary, qwen25.shares_output) == (28, 151936, True)


def test_what_qwen3_keeps_is_the_sum_over_its_operations():
    """Inputs that the backward pass of each operation of a block needs, counted by hand from the model's definition."""
    hidden, wide, heads, kv_heads, width, layers = 128, 512, 4, 2, 32, 4
    norms = 2 * (2 * hidden + 1)  # input and normalised input of the two, and 1 / its root mean square
    head_norms = (heads + kv_heads) * (2 * width + 1)
    products = 2 * hidden + heads * width + wide  # inputs of (q, k, v), (gate, up), of the output, of down
    attention = (heads + 2 * kv_heads) * width + heads  # rotated q and k, v; its log-sums; its result is counted above
    gated = 3 * wide  # gate, its SiLU, up
    block = norms + head_norms + products + attention + gated
    last_norm, rotation, ids = 2 * hidden + 1, 2 * width, 2
    found = footprint(SMALL)
    assert found.saved_per_token == 4 * (layers * block + last_norm + rotation + ids)
    assert found.cache_per_token == 4 * layers * 2 * kv_heads * width
    assert found.between_blocks == 4 * hidden
    assert found.saved_fixed == 0


@pytest.mark.parametrize("config", [SMALL, LLAMA], ids=lambda config: config.model_type)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_fake_tensors_tell_what_real_ones_keep(config, dtype):
    generator = torch.get_rng_state()
    found = footprint(config, dtype)
    assert torch.equal(torch.get_rng_state(), generator)
    model = AutoModelForCausalLM.from_config(config)
    compute_in(model, dtype)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor), autocast(model):
        model.base_model(input_ids=torch.zeros(2, 128, dtype=torch.long), use_cache=False)
    real = sum(storage.nbytes() for pointer, storage in kept.items() if pointer not in weights)
    rotation = 2 * 4 * (config.hidden_size // config.num_attention_heads) * 128  # two rows share it
    expected = found.saved_fixed + 256 * found.saved_per_token - rotation
    assert expected == pytest.approx(real, rel=0.01)


def peak_of_backward(load, dtype):
    """Most bytes that PyTorch holds in a backward pass beyond weights and gradients, by its own account."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(SMALL)
    compute_in(model, dtype)
    if load.gradient_checkpointing:
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    model.train(load.gradient_checkpointing)
    prompts, responses = (
        torch.randint(SMALL.vocab_size, (load.rollouts, n)).tolist() for n in (load.prompt_tokens, load.max_new_tokens)
    )
    advantage_BT = torch.randn(load.rollouts, load.max_new_tokens)
    keep_B = torch.ones(load.rollouts, dtype=torch.bool)
    mini = MiniBatch(Sequences.join(prompts, responses), torch.zeros_like(advantage_BT), advantage_BT, keep_B)
    objective = Objective("token-mean", load.max_new_tokens)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        accumulate_gradients(model, mini, objective, load.micro_batch, np.random.default_rng(0), load.micro_tokens)
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    in_use = np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())])
    return in_use.max() - 4 * model.num_parameters()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_the_peak_of_an_update_is_what_pytorch_says_it_is(gradient_checkpointing, dtype):
    load = replace(LOAD, gradient_checkpointing=gradient_checkpointing)
    parts = estimate_memory(footprint(SMALL, dtype), load).parts
    counted = sum(part.n_bytes for part in parts if part.phase == "update" and "C library" not in part.what)
    assert counted == pytest.approx(peak_of_backward(load, dtype), rel=0.15)


sizes = st.integers(1, 40)


@given(st.lists(st.tuples(sizes, sizes), min_size=1, max_size=30), sizes, st.integers(0, 200))
def test_no_micro_batch_is_larger_than_assumed(lengths, micro_batch, micro_tokens):
    sequences = Sequences.join([[1] * n for n, _ in lengths], [[1] * n for _, n in lengths])
    n_prompt, n_new = (max(column) for column in zip(*lengths, strict=True))
    load = Workload(
        steps=1,
        prompts_per_step=len(lengths),
        group_size=1,
        prompt_tokens=n_prompt,
        max_new_tokens=n_new,
        micro_batch=micro_batch,
        micro_tokens=micro_tokens,
    )
    for rows in micro_batches(sequences, torch.arange(len(lengths)), micro_batch, micro_tokens):
        assert sequences.rows(rows).ids_BS.numel() <= load.micro_width


def test_settings_move_the_estimate_as_they_move_the_memory(qwen25):
    def peaks(**changed):
        return estimate_memory(qwen25, replace(LOAD, **changed), "cpu")

    plain, n = peaks(), qwen25.n_parameters
    assert plain.peak == max(plain.phases.values())
    assert peaks(kl_coef=0.1).peak - plain.peak == 4 * n
    assert peaks(gradient_checkpointing=True).phases["update"] < plain.phases["update"]
    assert peaks(micro_batch=4).phases["update"] < plain.phases["update"]
    assert peaks(micro_tokens=64).phases["update"] < peaks(micro_tokens=128).phases["update"]
    assert peaks(rollout_batch=4).phases["rollout"] < plain.phases["rollout"]
    assert peaks(rollout_batch=4).phases["update"] == plain.phases["update"]
    with_vllm = peaks(engine="vllm", kv_cache_memory_bytes=GIB)
    assert "rollout" not in with_vllm.phases
    assert with_vllm.phases["update"] - plain.phases["update"] == 4 * n + GIB
    on_gpu = replace(LOAD, engine="vllm", gpu_memory_utilization=0.4)
    share = estimate_memory(qwen25, on_gpu, "cuda", 100 * GIB).peak - estimate_memory(qwen25, on_gpu, "cuda", 0).peak
    assert share == pytest.approx(40 * GIB)
    told = estimate_memory(qwen25, replace(on_gpu, kv_cache_memory_bytes=GIB), "cuda", 100 * GIB).phases["update"]
    own = estimate_memory(qwen25, on_gpu, "cuda", 0).phases["update"]
    assert told - own == 4 * n + GIB  # vLLM then takes what it was told, not a share
    assert estimate_memory(qwen25, LOAD, "mps").peak == estimate_memory(qwen25, LOAD, "cuda").peak
    assert (
        estimate_host(qwen25, replace(LOAD, checkpoint_every=1)).peak == 12 * n == 3 * estimate_host(qwen25, LOAD).peak
    )


def test_the_papers_run_fits_on_a_gpu_of_80_gb_and_not_here(qwen25):
    trainer = recipes.load("trainers", "grpo")
    config = from_command_line(trainer.Config, ["--preset", "qwen2.5-math-1.5b-math", "--out", "run"])
    load = Workload.of(config, prompt_tokens=1024)
    assert (load.rollouts, load.micro_width, load.gradient_checkpointing) == (4096, 16384, True)
    assert "512 prompts x 8 = 4,096 rollouts, at most 10,485,760 response tokens" in next(tokens_of(load))
    gpu = 80 * 10**9
    peak = estimate_memory(qwen25, load, "cuda", gpu).peak
    assert 16 * qwen25.n_parameters + load.gpu_memory_utilization * gpu < peak < 0.9 * gpu
    with pytest.raises(ParameterError, match=r"needs about .* GiB, and there are 23 GiB"):
        require_memory(QWEN25_MATH, "bfloat16", load, torch.device("cpu"), lambda line: None, lambda device: 23 * GIB)


def test_a_refusal_says_what_would_help_and_how_much():
    said = []
    load = replace(LOAD, prompts_per_step=64, micro_batch=256)
    whole = require_memory(SMALL, "float32", load, torch.device("cpu"), said.append, lambda device: 2 * GIB)
    assert whole.peak < 2 * GIB
    assert any("weights of 0.002 B parameters" in line for line in said)
    assert any(line.startswith("peak") for line in said)
    assert any("= 256 rollouts" in line for line in said)
    with pytest.raises(ParameterError) as refused:
        require_memory(SMALL, "float32", load, torch.device("cpu"), said.append, lambda device: int(whole.peak) - 1)
    message = str(refused.value)
    assert "--model.gradient-checkpointing (" in message
    assert "--micro-tokens 64 (" in message
    least = replace(LOAD, gradient_checkpointing=True, micro_tokens=64, rollout_batch=4)
    with pytest.raises(ParameterError, match=r"there are 0.001 GiB\. Hint: a smaller model"):
        require_memory(SMALL, "float32", least, torch.device("cpu"), said.append, lambda device: GIB // 1000)


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def test_what_is_there_is_the_least_that_anything_leaves(tmp_path):
    cpu, proc, groups = torch.device("cpu"), tmp_path / "proc", tmp_path / "cgroup"
    everything = available_memory(cpu, proc, groups)
    assert everything > GIB // 10
    write(proc, meminfo="MemTotal: 64000000 kB\nMemAvailable:   8388608 kB")
    assert available_memory(cpu, proc, groups) == 8 * GIB
    write(proc / "self", cgroup="0::/user/job")
    write(groups / "user" / "job", memory__max="max", memory__current=1)
    assert available_memory(cpu, proc, groups) == 8 * GIB
    write(groups / "user", memory__max=4 * GIB, memory__current=3 * GIB, memory__stat=f"inactive_file {GIB}\nanon 1")
    assert available_memory(cpu, proc, groups) == 2 * GIB
    write(proc / "self", cgroup="4:memory:/job\n1:cpu:/")
    of_v1 = {"memory__limit_in_bytes": 3 * GIB, "memory__usage_in_bytes": 2 * GIB}
    write(groups / "memory", **of_v1, memory__stat="total_inactive_file 0")
    assert available_memory(cpu, proc, groups) == GIB


prompts, samples = st.integers(1, 20), st.integers(0, 5)


@given(prompts, st.integers(1, 8), st.integers(0, 20), samples, st.integers(1, 64))
def test_no_more_responses_are_sampled_side_by_side_than_assumed(n_prompts, group_size, held_out, n_samples, at_once):
    """In training and in validation, whose greedy answers can be more than the rollouts of an update."""
    together = []

    class Counted(Exception):
        pass

    def count(model, prompts, n, first_row):
        together.append(len(prompts) * n)
        raise Counted

    load = replace(
        LOAD,
        prompts_per_step=n_prompts,
        group_size=group_size,
        held_out=held_out,
        eval_samples=n_samples,
        rollout_batch=at_once,
    )
    engine = TransformersEngine(torch.nn.Linear(1, 1), batch_size=at_once)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformers_engine, "_OpenRows", count)
        for asked, n in ((n_prompts, group_size), (held_out, 1), (held_out, n_samples)):
            if asked and n:
                with pytest.raises(Counted):
                    engine.generate([[5]] * asked, n, temperature=1.0, max_new_tokens=2)
    assert max(together) == load.side_by_side


def test_a_workload_takes_what_a_trainer_has():
    parts = {"model": SimpleNamespace(gradient_checkpointing=True), "vllm": SimpleNamespace(kv_cache_memory_bytes=7)}
    known = {"steps": 1, "prompts_per_step": 2, "group_size": 3, "max_new_tokens": 5, "micro_batch": 4}
    load = Workload.of(SimpleNamespace(**known, **parts, lr=1e-4), prompt_tokens=9)
    assert load == Workload(**known, prompt_tokens=9, gradient_checkpointing=True, kv_cache_memory_bytes=7)
    assert load.side_by_side == load.rollouts == 6
    assert replace(load, rollout_batch=4).side_by_side == 3
    assert replace(load, rollout_batch=1).side_by_side == 3
