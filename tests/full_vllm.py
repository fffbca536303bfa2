"""The real vLLM as rollout engine, on the processor; `make test-vllm` runs it, in an environment of its own."""

import gc
import os
import random
import weakref
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import chi2_contingency, chisquare
from transformers import Qwen3ForCausalLM

import entropy_lab as el
from entropy_lab import recipes
from entropy_lab.errors import EngineError, ParameterError
from entropy_lab.rl import vllm_engine
from entropy_lab.rl.engine_agreement import sampler_agreement
from entropy_lab.rl.logprobs import score
from entropy_lab.rl.model import ModelSizes, build_model
from entropy_lab.rl.policy import PolicySettings
from entropy_lab.rl.precision import compute_in
from entropy_lab.rl.sequences import Sequences
from entropy_lab.rl.transformers_engine import TransformersEngine
from entropy_lab.rl.vllm_engine import VllmEngine
from entropy_lab.rl.vllm_options import VllmOptions

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
SIZES = ModelSizes(hidden=64, layers=2, heads=4, kv_heads=2, head_dim=32, feed_forward=64)
OPTIONS = VllmOptions(max_model_len=512, kv_cache_memory_bytes=2**26)
MIXED_LENGTHS = [[5, 6, 7, 8], [2], [10, 3]]
LONG = [np.random.default_rng(0).integers(2, 11, 300).tolist()]  # more than two blocks of the prefix cache


def made(seed, *, tied=True):
    model = build_model(SIZES, vocabulary_size=11, seed=seed)
    if not tied:
        config = deepcopy(model.config)
        config.tie_word_embeddings = False
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = Qwen3ForCausalLM(config).train(False)
    with torch.no_grad():  # fresh weights are nearly uniform: sharpen them, so that anything wrong would show
        for parameter in model.parameters():
            parameter.mul_(4.0 if parameter.dim() == 2 else 1.0)
    return model


def state_of_process():
    numpy = np.random.get_state()  # noqa: NPY002 - the global state is what is looked at
    return (
        random.getstate(),
        (numpy[0], numpy[1].tolist(), *numpy[2:]),
        torch.get_rng_state().tolist(),
        torch.get_num_threads(),
        torch.set_num_threads,
        dict(os.environ),
    )


@pytest.fixture(scope="module", params=["tied", "untied"])
def tied(request):
    return request.param == "tied"


@pytest.fixture(scope="module")
def started(tied):
    model, before = made(3, tied=tied), state_of_process()
    with VllmEngine(model, options=OPTIONS) as engine:
        yield model, engine, before, state_of_process()


@pytest.fixture
def policy(started):
    model, engine, _, _ = started
    engine.update_weights(model)
    return model, engine


def generate(engine, prompts=MIXED_LENGTHS, n=8, *, seed=0, temperature=1.0, limit=8, greedy=False):
    generator = torch.Generator().manual_seed(seed)
    return engine.generate(
        prompts, n, temperature=temperature, max_new_tokens=limit, generator=generator, greedy=greedy
    )


def agreement(model, prompts, rollouts, temperature=1.0):
    n = len(rollouts.n_tokens_B) // len(prompts)
    sequences = Sequences.join([prompt for prompt in prompts for _ in range(n)], rollouts.responses())
    scores = score(model, sequences, temperature)
    return sampler_agreement(rollouts.logp_BT, scores.logp_BT, sequences.mask_BT)


def worst(model, prompts, rollouts, temperature=1.0):
    return agreement(model, prompts, rollouts, temperature)["sampler_logp_difference_max"]


def test_greedy_decoding_is_that_of_the_transformers_engine(policy):
    model, engine = policy
    for prompts in (MIXED_LENGTHS, LONG):
        ours, theirs = (
            generate(each, prompts, 2, limit=24, greedy=True) for each in (engine, TransformersEngine(model))
        )
        assert ours.responses() == theirs.responses()
        assert torch.equal(ours.truncated_B, theirs.truncated_B)
        assert torch.equal(ours.token_ids_BT, theirs.token_ids_BT)
        torch.testing.assert_close(ours.logp_BT, theirs.logp_BT, atol=1e-4, rtol=0)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
def test_log_probabilities_are_those_of_the_trainer(policy, temperature):
    model, engine = policy
    for prompts in (MIXED_LENGTHS, LONG):
        rollouts = generate(engine, prompts, 32, temperature=temperature)
        assert len({int(n) for n in rollouts.n_tokens_B}) > 2
        found = agreement(model, prompts, rollouts, temperature)
        assert found["sampler_logp_difference_max"] < 1e-4
        assert found["sampler_ess"] > 1 - 1e-6
        assert found["sampler_k3"] < 1e-8
    assert rollouts.entropy_BT is None


def test_response_ends_with_a_stop_token_unless_truncated(policy):
    _, engine = policy
    rollouts = generate(engine, n=100)
    assert 0 < rollouts.truncated_B.float().mean() < 1
    for response, truncated in zip(rollouts.responses(), rollouts.truncated_B.tolist(), strict=True):
        assert 1 not in response[:-1]
        assert (response[-1] == 1) is (not truncated)
        assert not truncated or len(response) == 8
    padding_BT = torch.arange(rollouts.logp_BT.shape[1]) >= rollouts.n_tokens_B[:, None]
    assert rollouts.logp_BT[padding_BT].eq(0).all()
    assert rollouts.token_ids_BT[padding_BT].eq(0).all()


def test_equal_generators_give_equal_rollouts_whatever_was_asked_before(policy):
    _, engine = policy
    first = generate(engine, MIXED_LENGTHS + LONG, seed=1)
    other = generate(engine, MIXED_LENGTHS + LONG, seed=2)
    again = generate(engine, MIXED_LENGTHS + LONG, seed=1)
    assert torch.equal(first.token_ids_BT, again.token_ids_BT)
    assert torch.equal(first.logp_BT, again.logp_BT)
    assert first.responses() != other.responses()
    assert len({tuple(response) for response in first.responses()[:8]}) > 4


def test_greedy_decoding_draws_nothing(policy):
    _, engine = policy
    generator = torch.Generator().manual_seed(0)
    engine.generate([[5]], 1, temperature=1.0, max_new_tokens=2, generator=generator, greedy=True)
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(0).get_state())


def test_first_and_second_tokens_are_distributed_as_they_should_be(policy):
    model, engine = policy
    n, prompt = 6000, [5, 6, 7]
    ours = generate(engine, [prompt], n, limit=2, temperature=1.3)
    probabilities = softmax(model(input_ids=torch.tensor([prompt])).logits[0, -1].double().detach().numpy() / 1.3)
    firsts = np.bincount(ours.token_ids_BT[:, 0], minlength=11)
    rare = probabilities * n < 5
    expected, found = (np.append(each[~rare], each[rare].sum()) for each in (probabilities * n, firsts))
    keep = expected > 0
    assert chisquare(found[keep], expected[keep]).pvalue > 1e-3
    theirs = generate(TransformersEngine(model), [prompt], n, limit=2, temperature=1.3)
    seconds = [np.bincount(each.token_ids_BT[each.n_tokens_B == 2, 1], minlength=11) for each in (ours, theirs)]
    common = np.array(seconds).sum(0) >= 20
    assert common.sum() > 3
    assert chi2_contingency(np.array(seconds)[:, common]).pvalue > 1e-3


def test_pushed_weights_are_taken_over(policy, tied):
    _, engine = policy
    other = made(4, tied=tied)
    before = generate(engine, greedy=True)
    engine.update_weights(other)
    after, expected = generate(engine, greedy=True), generate(TransformersEngine(other), greedy=True)
    assert after.responses() == expected.responses() != before.responses()
    with torch.no_grad():  # updates in place, as an optimizer makes them
        for parameter in other.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)), alpha=0.05)
    unaware = generate(engine, n=32)
    assert worst(other, MIXED_LENGTHS, unaware) > 0.1  # the engine has weights of its own until they are pushed
    engine.update_weights(other)
    rollouts = generate(engine, n=32)
    assert worst(other, MIXED_LENGTHS, rollouts) < 1e-4


def test_a_push_forgets_cached_prefixes(policy, tied, monkeypatch):
    _, engine = policy
    other = made(4, tied=tied)
    with monkeypatch.context() as patched:
        generate(engine, LONG)
        patched.setattr(engine._llm, "reset_prefix_cache", lambda: True)
        engine.update_weights(other)
        assert worst(other, LONG, generate(engine, LONG)) > 0.1  # what would happen: the trap is there
    assert worst(other, LONG, generate(engine, LONG)) < 1e-4


def test_a_push_that_does_not_arrive_is_refused(policy, tied, monkeypatch):
    _, engine = policy
    other = made(4, tied=tied)
    with monkeypatch.context() as patched:
        patched.setattr(engine, "_push", lambda model: None)
        with pytest.raises(EngineError, match=r"differs from the model by .* nats"):
            engine.update_weights(other)
    if tied:  # vLLM's own trap: the output layer goes on with a copy of the old weights, and nothing says so
        with monkeypatch.context() as patched:
            patched.setattr(vllm_engine, "_prepare_output_layers", lambda model: None)
            with pytest.raises(EngineError, match=r"differs from the model by .* nats"):
                engine.update_weights(other)
    engine.update_weights(other)


def test_weights_that_are_no_numbers_are_refused():
    model = made(3)
    with VllmEngine(model, options=OPTIONS) as engine:
        with torch.no_grad():
            next(model.parameters()).fill_(float("nan"))
        with pytest.raises(EngineError, match="nan nats"):
            engine.update_weights(model)


def test_the_process_is_left_as_it_was(started):
    model, engine, before, after = started
    assert before == after  # around the start of the engine
    torch.set_num_threads(2)
    try:
        before = state_of_process()
        engine.update_weights(model)
        generate(engine)
        assert state_of_process() == before
    finally:
        torch.set_num_threads(1)
    assert torch.get_num_threads() == 1


def test_without_a_generator_seeds_come_from_the_global_one(policy):
    _, engine = policy
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(engine.generate(MIXED_LENGTHS, 8, temperature=1.0, max_new_tokens=8).responses())
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompts": []},
        {"prompts": [[5], []]},
        {"n": 0},
        {"limit": 0},
        {"prompts": [[5] * 505]},
        {"temperature": 0.0},
        {"temperature": 0.005},
    ],
)
def test_impossible_requests_are_refused(policy, wrong):
    with pytest.raises(ParameterError):
        generate(policy[1], **wrong)
    generate(policy[1], [[5] * 504])


def test_stop_tokens_are_those_asked_for_and_no_others():
    model = made(3)
    with VllmEngine(model, stop_ids=(4, 9), options=OPTIONS) as engine:
        rollouts = generate(engine, n=100, limit=12)
        greedy = [
            generate(each, limit=12, greedy=True) for each in (engine, TransformersEngine(model, stop_ids=(4, 9)))
        ]
    assert greedy[0].responses() == greedy[1].responses()
    lasts = {response[-1] for response in rollouts.responses() if len(response) < 12}
    assert lasts == {4, 9}
    assert any(1 in response for response in rollouts.responses())  # the model's own end token is like any other


def test_a_saved_model_is_loaded_and_then_replaced(tmp_path):
    model, other = made(3), made(4)
    model.save_pretrained(tmp_path)
    with VllmEngine(tmp_path, options=OPTIONS) as engine:
        assert worst(model, MIXED_LENGTHS, generate(engine)) < 1e-4
        engine.update_weights(other)
        assert worst(other, MIXED_LENGTHS, generate(engine)) < 1e-4


def test_bfloat16_differs_by_rounding_only():
    model = made(3)
    compute_in(model, "bfloat16")
    with VllmEngine(model, options=OPTIONS) as engine:
        found = agreement(model, MIXED_LENGTHS, generate(engine, n=64))
        engine.update_weights(made(4))
    assert 1e-4 < found["sampler_logp_difference_mean"] < 0.1
    assert found["sampler_ess"] > 0.8


def test_closing_frees_the_model_and_another_engine_can_be_made():
    engine = VllmEngine(made(3), options=OPTIONS)
    inside = weakref.ref(engine._llm.apply_model(lambda model: model)[0])
    assert inside() is not None
    engine.close()
    engine.close()
    gc.collect()
    assert inside() is None
    assert not torch.distributed.is_initialized()


def test_what_vllm_cannot_start_is_one_line(tmp_path):
    model = made(3)
    for source, options in ((model, VllmOptions(kv_cache_memory_bytes=2**50)), (tmp_path / "nothing", OPTIONS)):
        with pytest.raises(EngineError, match="did not start") as error:
            VllmEngine(source, options=options)
        assert "\n" not in str(error.value)
    with pytest.raises(EngineError, match="differs from the model"):
        VllmEngine(model, options=VllmOptions(max_model_len=512, kv_cache_memory_bytes=2**26, tolerance=1e-12))
    assert not torch.distributed.is_initialized()
    with VllmEngine(model, options=OPTIONS) as engine:  # one that can start
        assert worst(model, MIXED_LENGTHS, generate(engine)) < 1e-4


def test_what_was_pushed_and_asked_before_leaves_no_trace():
    model, other = made(3), made(4)
    with VllmEngine(model, options=OPTIONS) as engine:
        fresh = generate(engine, MIXED_LENGTHS + LONG)
        engine.update_weights(other)
        generate(engine, LONG, seed=1)
        engine.update_weights(model)
        again = generate(engine, MIXED_LENGTHS + LONG)
    assert torch.equal(fresh.token_ids_BT, again.token_ids_BT)
    assert torch.equal(fresh.logp_BT, again.logp_BT)


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    grpo = recipes.load("trainers", "grpo")
    sizes = PolicySettings(hidden=32, layers=1, feed_forward=32)
    config = grpo.Config(
        out=tmp_path / "whole", model=sizes, engine="vllm", vllm=OPTIONS, warm_start_steps=30, steps=4, train_prompts=8,
        prompts_per_step=4, group_size=4, eval_every=0, checkpoint_every=1, resume=True, lr=1e-2,
    )  # fmt: skip
    whole = grpo.main(config)
    update = grpo.update

    def stopped(config, model, optimizer, step, *rest):
        if step == 2:
            raise KeyboardInterrupt
        return update(config, model, optimizer, step, *rest)

    monkeypatch.setattr(grpo, "update", stopped)
    config = replace(config, out=tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        grpo.main(config)
    monkeypatch.setattr(grpo, "update", update)
    resumed = grpo.main(config)
    rows = [el.open_run(run).scan().collect() for run in (whole, resumed)]
    assert rows[0]["step"].unique().to_list() == [0, 1, 2, 3]
    assert rows[0]["token_ids"].to_list() == rows[1]["token_ids"].to_list()
    np.testing.assert_array_equal(rows[0]["logp_after"], rows[1]["logp_after"])
