"""The sampling loop and the log-probabilities, against transformers' own generate, plain forward passes and scipy."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import chisquare, entropy

from entropy_lab.errors import ParameterError
from entropy_lab.rl.linear import use_onednn
from entropy_lab.rl.logprobs import score, token_scores
from entropy_lab.rl.micro_batches import micro_batches
from entropy_lab.rl.model import ModelSizes, build_model
from entropy_lab.rl.sequences import Sequences
from entropy_lab.rl.transformers_engine import TransformersEngine

torch.set_num_threads(1)
SIZES = ModelSizes(hidden=16, layers=2, heads=4, kv_heads=2, head_dim=8, feed_forward=16)
SAME_LENGTH = [[5, 6, 7], [2, 2, 2], [10, 3, 4]]
MIXED_LENGTHS = [[5, 6, 7, 8], [2], [10, 3]]


@pytest.fixture(scope="module")
def model():
    model = build_model(SIZES, vocabulary_size=11, seed=3)
    with torch.no_grad():  # fresh weights are nearly uniform: sharpen them, so that wrong masks or positions would show
        for parameter in model.parameters():
            parameter.mul_(4.0 if parameter.dim() == 2 else 1.0)
    return model


def generate(model, prompts, n=4, *, seed=0, temperature=1.0, limit=8, batch_size=512, greedy=False):
    engine = TransformersEngine(model, batch_size=batch_size)
    generator = torch.Generator().manual_seed(seed)
    return engine.generate(
        prompts, n, temperature=temperature, max_new_tokens=limit, generator=generator, greedy=greedy
    )


def joined(prompts, rollouts, n):
    return Sequences.join([prompt for prompt in prompts for _ in range(n)], rollouts.responses())


@pytest.mark.parametrize("prompts", [SAME_LENGTH, MIXED_LENGTHS])
def test_greedy_decoding_is_that_of_transformers(model, prompts):
    ours = generate(model, prompts, 1, limit=12, greedy=True).responses()
    for prompt, response in zip(prompts, ours, strict=True):
        ids = torch.tensor([prompt])
        theirs = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12)
        assert response == theirs[0, len(prompt) :].tolist()


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
@pytest.mark.parametrize("prompts", [SAME_LENGTH, MIXED_LENGTHS])
def test_sampler_and_trainer_agree_on_log_probabilities(model, prompts, temperature):
    rollouts = generate(model, prompts, 16, temperature=temperature)
    assert len({int(n) for n in rollouts.n_tokens_B}) > 2  # rows have left the batch at different times
    scores = score(model, joined(prompts, rollouts, 16), temperature)
    torch.testing.assert_close(rollouts.logp_BT, scores.logp_BT, atol=1e-4, rtol=0)


def test_response_ends_with_end_of_sequence_unless_truncated(model):
    rollouts = generate(model, SAME_LENGTH, 50)
    assert 0 < rollouts.truncated_B.float().mean() < 1
    for response, truncated in zip(rollouts.responses(), rollouts.truncated_B.tolist(), strict=True):
        assert 1 not in response[:-1]
        assert (response[-1] == 1) is (not truncated)
        assert not truncated or len(response) == 8
    padding_BT = torch.arange(rollouts.logp_BT.shape[1]) >= rollouts.n_tokens_B[:, None]
    assert rollouts.logp_BT[padding_BT].eq(0).all()
    assert rollouts.token_ids_BT[padding_BT].eq(0).all()


def test_sampled_frequencies_match_the_probabilities(model):
    n = 20_000
    rollouts = generate(model, [[5, 6, 7]], n, limit=1, temperature=1.3, batch_size=n)
    probabilities = softmax(model(input_ids=torch.tensor([[5, 6, 7]])).logits[0, -1].double().detach().numpy() / 1.3)
    counts = np.bincount(rollouts.token_ids_BT[:, 0], minlength=11)
    assert chisquare(counts, probabilities * n).pvalue > 1e-3


def test_equal_generators_give_equal_rollouts_and_others_do_not(model):
    first, again, other = (generate(model, MIXED_LENGTHS, 8, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.token_ids_BT, again.token_ids_BT)
    assert torch.equal(first.logp_BT, again.logp_BT)
    assert not torch.equal(first.token_ids_BT, other.token_ids_BT[:, : first.token_ids_BT.shape[1]])


def test_sampling_leaves_the_global_generator_alone(model):
    before = torch.get_rng_state()
    generate(model, SAME_LENGTH)
    build_model(SIZES, vocabulary_size=11, seed=9)
    assert torch.equal(torch.get_rng_state(), before)


def test_cutting_the_prompts_into_chunks_changes_no_greedy_answer(model):
    whole, cut = (generate(model, MIXED_LENGTHS, 2, greedy=True, batch_size=size) for size in (512, 2))
    assert whole.responses() == cut.responses()
    assert whole.responses()[0] == whole.responses()[1]


def test_weights_of_another_model_are_taken_over(model):
    engine = TransformersEngine(model)
    other = build_model(SIZES, vocabulary_size=11, seed=4)
    engine.update_weights(other)
    answers = engine.generate(SAME_LENGTH, 1, temperature=1.0, max_new_tokens=8, greedy=True)
    assert answers.responses() == generate(other, SAME_LENGTH, 1, greedy=True).responses()


@pytest.mark.parametrize(
    "wrong", [{"prompts": []}, {"prompts": [[5], []]}, {"n": 0}, {"temperature": 0.0}, {"limit": 0}]
)
def test_impossible_requests_are_refused(model, wrong):
    with pytest.raises(ParameterError):
        generate(model, **{"prompts": SAME_LENGTH, **wrong})


@pytest.fixture(scope="module")
def sequences():
    rng = np.random.default_rng(0)
    responses = [rng.integers(1, 11, n).tolist() for n in (3, 1, 6, 2, 5)]
    return Sequences.join([rng.integers(2, 11, n).tolist() for n in (4, 1, 2, 2, 3)], responses)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_scores_are_those_of_plain_forward_passes_and_scipy(model, sequences, temperature):
    scores = score(model, sequences, temperature, micro_batch=2)
    for b in range(5):
        n_prompt, n_tokens = int(sequences.n_prompt_B[b]), int(sequences.n_tokens_B[b])
        ids = sequences.ids_BS[b, : n_prompt + n_tokens]
        logits_SV = model(input_ids=ids[None]).logits[0].double().detach().numpy() / temperature
        probabilities_TV = softmax(logits_SV[n_prompt - 1 : -1], axis=-1)
        expected_logp = np.log(probabilities_TV[np.arange(n_tokens), ids[n_prompt:]])
        np.testing.assert_allclose(scores.logp_BT[b, :n_tokens], expected_logp, atol=1e-5)
        np.testing.assert_allclose(scores.entropy_BT[b, :n_tokens], entropy(probabilities_TV, axis=-1), atol=1e-5)
        assert scores.logp_BT[b, n_tokens:].eq(0).all()
        assert scores.entropy_BT[b, n_tokens:].eq(0).all()


def test_scoring_does_not_depend_on_the_micro_batch(model, sequences):
    whole, single = score(model, sequences, 1.0, micro_batch=5), score(model, sequences, 1.0, micro_batch=1)
    torch.testing.assert_close(whole.logp_BT, single.logp_BT, atol=1e-6, rtol=0)
    torch.testing.assert_close(whole.entropy_BT, single.entropy_BT, atol=1e-6, rtol=0)


def test_uniform_policy_has_entropy_log_v(sequences):
    flat = build_model(SIZES, vocabulary_size=11, seed=0)
    with torch.no_grad():
        flat.model.embed_tokens.weight.zero_()
    scores = token_scores(flat, sequences, 1.0)
    np.testing.assert_allclose(scores.entropy_BT[sequences.mask_BT].detach(), np.log(11), rtol=1e-6)
    np.testing.assert_allclose(scores.logp_BT[sequences.mask_BT].detach(), -np.log(11), rtol=1e-6)


def test_micro_batches_cover_every_row_once_from_short_to_long(sequences):
    batches = list(micro_batches(sequences, torch.tensor([4, 0, 2, 1]), 3))
    assert sorted(torch.cat(batches).tolist()) == [0, 1, 2, 4]
    lengths = (sequences.n_prompt_B + sequences.n_tokens_B)[torch.cat(batches)]
    assert lengths.tolist() == sorted(lengths.tolist())


@pytest.mark.parametrize(("prompts", "responses"), [([], []), ([[5]], []), ([[]], [[5]])])
def test_rows_without_a_prompt_are_refused(prompts, responses):
    with pytest.raises(ParameterError):
        Sequences.join(prompts, responses)


@pytest.mark.parametrize("n_rows", [64, 63])
def test_onednn_products_and_gradients_are_those_of_torch(n_rows):
    generator = torch.Generator().manual_seed(0)
    theirs, ours = torch.nn.Linear(8, 5, bias=False), torch.nn.Linear(8, 5, bias=False)
    ours.load_state_dict(theirs.state_dict())
    use_onednn(ours)
    inputs = torch.randn(n_rows // 3 if n_rows % 2 else n_rows, 3 if n_rows % 2 else 1, 8, generator=generator)
    weight = torch.randn(*inputs.shape[:-1], 5, generator=generator)
    grads = []
    for layer in (theirs, ours):
        x = inputs.clone().requires_grad_()
        output = layer(x)
        (output * weight).sum().backward()
        grads.append((output.detach(), x.grad, layer.weight.grad))
    for expected, found in zip(*grads, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_onednn_layers_follow_autocast():
    theirs, ours = torch.nn.Linear(8, 5, bias=False), torch.nn.Linear(8, 5, bias=False)
    ours.load_state_dict(theirs.state_dict())
    use_onednn(ours)
    inputs = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            expected, found = theirs(inputs.to(dtype)), ours(inputs.to(dtype))
        assert found.dtype == torch.bfloat16
        assert torch.equal(found, expected)


@pytest.mark.parametrize("wrong", [{"layers": 0}, {"heads": 3, "kv_heads": 2}, {"head_dim": 7}])
def test_impossible_model_sizes_are_refused(wrong):
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        ModelSizes(**wrong)
