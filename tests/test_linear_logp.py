"""Log-probabilities and entropies from hidden states, against scipy, autograd of the plain form and closed forms."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from scipy.stats import entropy as scipy_entropy
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from entropy_lab.errors import ParameterError
from entropy_lab.rl import logprobs
from entropy_lab.rl.linear_logp import linear_logp_entropy
from entropy_lab.rl.logprobs import score, token_scores
from entropy_lab.rl.model import ModelSizes, build_model
from entropy_lab.rl.sequences import Sequences

torch.set_num_threads(1)
BYTE = 2**-20


def draw(n, v, d, dtype=torch.float64, seed=0, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    hidden_ND = torch.randn(n, d, generator=generator, dtype=torch.float64) * spread
    weight_VD = torch.randn(v, d, generator=generator, dtype=torch.float64)
    token_N = torch.randint(v, (n,), generator=generator)
    return hidden_ND.to(dtype).requires_grad_(), weight_VD.to(dtype).requires_grad_(), token_N


def plain(hidden_ND, weight_VD, token_N, temperature=1.0):
    distribution_NV = torch.log_softmax(hidden_ND @ weight_VD.T / temperature, -1)
    return distribution_NV.gather(1, token_N[:, None])[:, 0], -(distribution_NV.exp() * distribution_NV).sum(-1)


def reference(hidden_ND, weight_VD, token_N, temperature):
    """The definitions in float64, without torch."""
    logits_NV = hidden_ND.detach().double().numpy() @ weight_VD.detach().double().numpy().T / temperature
    logp_NV = log_softmax(logits_NV, axis=-1)
    return logp_NV[np.arange(len(token_N)), token_N], scipy_entropy(np.exp(logp_NV), axis=-1)


def gradients(function, hidden_ND, weight_VD, token_N, upstream, **options):
    outputs = function(hidden_ND, weight_VD, token_N, **options)
    return torch.autograd.grad(outputs, (hidden_ND, weight_VD), upstream)


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.tuples(st.integers(1, 9), st.integers(1, 23), st.integers(1, 5)),
    temperature=st.sampled_from([0.3, 1.0, 1.7]),
    n_values=st.integers(1, 80),
    seed=st.integers(0, 99),
)
def test_values_and_gradients_do_not_depend_on_the_blocks(sizes, temperature, n_values, seed):
    inputs = draw(*sizes, seed=seed, spread=3.0)
    block_mib = 2 * 8 * n_values * BYTE  # two buffers of so many float64 logits
    values = linear_logp_entropy(*inputs, temperature, block_mib=block_mib)
    for value, expected in zip(values, reference(*inputs, temperature), strict=True):
        np.testing.assert_allclose(value.detach(), expected, atol=1e-12)
    upstream = torch.randn(2, sizes[0], generator=torch.Generator().manual_seed(seed), dtype=torch.float64).unbind()
    ours = gradients(linear_logp_entropy, *inputs, upstream, temperature=temperature, block_mib=block_mib)
    theirs = gradients(plain, *inputs, upstream, temperature=temperature)
    torch.testing.assert_close(ours, theirs, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("n_tokens", [1, 5])
def test_gradient_is_that_of_finite_differences(n_tokens, temperature):
    hidden_ND, weight_VD, token_N = draw(n_tokens, 7, 3)

    def scores(hidden_ND, weight_VD):
        return tuple(linear_logp_entropy(hidden_ND, weight_VD, token_N, temperature, block_mib=16 * 10 * BYTE))

    assert torch.autograd.gradcheck(scores, (hidden_ND, weight_VD))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_are_those_of_float64_to_1e_5(dtype):
    inputs = draw(40, 3001, 64, dtype, spread=0.4)
    values = linear_logp_entropy(*inputs, 0.9, block_mib=0.05)
    for value, expected in zip(values, reference(*inputs, 0.9), strict=True):
        assert value.dtype == torch.float32
        np.testing.assert_allclose(value.detach(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2**-8)])
def test_gradients_have_the_inputs_type_and_the_sums_precision(dtype, tolerance):
    hidden_ND, weight_VD, token_N = draw(300, 101, 16, dtype, spread=0.4)
    upstream = torch.randn(2, 300, generator=torch.Generator().manual_seed(0)).unbind()
    ours = gradients(linear_logp_entropy, hidden_ND, weight_VD, token_N, upstream, block_mib=0.01)
    exact = (hidden_ND.detach().double().requires_grad_(), weight_VD.detach().double().requires_grad_())
    theirs = gradients(plain, *exact, token_N, [each.double() for each in upstream])
    for gradient, expected in zip(ours, theirs, strict=True):
        assert gradient.dtype == dtype
        # Rounded once, at the end: sums of 300 tokens in bfloat16 would be off by more than that.
        np.testing.assert_allclose(gradient.double(), expected, rtol=tolerance, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA has a path of its own for bfloat16")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_gradients_on_cuda(dtype):
    hidden_ND, weight_VD, token_N = (each.detach().cuda() for each in draw(300, 3001, 64, dtype, spread=0.4))
    hidden_ND, weight_VD = hidden_ND.requires_grad_(), weight_VD.requires_grad_()
    values = linear_logp_entropy(hidden_ND, weight_VD, token_N, 0.9, block_mib=0.5)
    exact = hidden_ND.detach().double().requires_grad_(), weight_VD.detach().double().requires_grad_()
    expected = plain(*exact, token_N, 0.9)
    for value, each in zip(values, expected, strict=True):
        torch.testing.assert_close(value.double(), each, atol=1e-5, rtol=0)
    upstream = torch.randn(2, 300, generator=torch.Generator().manual_seed(0)).cuda().unbind()
    ours = torch.autograd.grad(values, (hidden_ND, weight_VD), upstream)
    theirs = torch.autograd.grad(expected, exact, [each.double() for each in upstream])
    for gradient, each in zip(ours, theirs, strict=True):
        scale = each.abs().max() * (1e-5 if dtype == torch.float32 else 2**-7)
        assert (gradient.double() - each).abs().max() < scale


@pytest.mark.parametrize("output", [0, 1])
def test_a_gradient_of_one_output_alone(output):
    inputs = draw(6, 11, 4)
    ours = torch.autograd.grad(linear_logp_entropy(*inputs)[output].sum(), inputs[:2])
    theirs = torch.autograd.grad(plain(*inputs)[output].sum(), inputs[:2])
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("frozen", [0, 1])
def test_what_is_frozen_gets_no_gradient(frozen):
    inputs = draw(6, 11, 4)
    inputs[frozen].requires_grad_(False)
    linear_logp_entropy(*inputs).logp_N.sum().backward()
    expected = torch.autograd.grad(plain(*inputs)[0].sum(), inputs[1 - frozen])[0]
    assert inputs[frozen].grad is None
    torch.testing.assert_close(inputs[1 - frozen].grad, expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_tokens_without_a_gradient_get_exactly_none(share):
    inputs = draw(20, 11, 4)
    kept_N = (torch.arange(20) < 20 * share).double()
    ours = gradients(linear_logp_entropy, *inputs, (kept_N, 2 * kept_N), block_mib=16 * 30 * BYTE)
    theirs = gradients(plain, *inputs, (kept_N, 2 * kept_N))
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)
    assert ours[0][kept_N == 0].eq(0).all()


def test_a_second_backward_pass_gives_the_same():
    hidden_ND, weight_VD, token_N = draw(6, 11, 4)
    loss = linear_logp_entropy(hidden_ND, weight_VD, token_N).entropy_N.sum()
    first, second = (torch.autograd.grad(loss, hidden_ND, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_no_tokens_give_nothing_and_no_gradient():
    hidden_ND, weight_VD, token_N = draw(0, 11, 4)
    values = linear_logp_entropy(hidden_ND, weight_VD, token_N)
    sum(value.sum() for value in values).backward()
    assert [value.shape for value in values] == [(0,), (0,)]
    assert hidden_ND.grad.shape == (0, 4)
    assert torch.equal(weight_VD.grad, torch.zeros(11, 4, dtype=torch.float64))


@pytest.mark.parametrize("height", [0.0, 1e4, -1e4])
def test_uniform_distributions_have_entropy_log_v(height):
    hidden_ND, weight_VD = torch.full((3, 1), height), torch.ones(1000, 1)
    logp_N, entropy_N = linear_logp_entropy(hidden_ND, weight_VD, torch.tensor([0, 999, 500]), block_mib=0.001)
    np.testing.assert_allclose(logp_N, -np.log(1000), rtol=1e-6)
    np.testing.assert_allclose(entropy_N, np.log(1000), rtol=1e-6)


@pytest.mark.parametrize("peak", [0, 7, 19])
def test_certain_distributions_have_entropy_0_in_any_block(peak):
    weight_VD = torch.zeros(20, 1)
    weight_VD[peak] = 1
    logp_N, entropy_N = linear_logp_entropy(
        torch.full((2, 1), 300.0), weight_VD, torch.tensor([peak, (peak + 1) % 20]), block_mib=0.00003
    )
    assert logp_N.tolist() == [0, -300]
    assert entropy_N.tolist() == [0, 0]


class Peak(TorchDispatchMode):
    """Most bytes alive at once of what was made inside, and the largest single tensor."""

    def __init__(self):
        super().__init__()
        self.alive, self.most, self.largest = {}, 0, 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        output = operator(*args, **(kwargs or {}))
        for tensor in output if isinstance(output, (tuple, list)) else [output]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
                self.largest = max(self.largest, storage.nbytes())
        self.alive = {key: each for key, each in self.alive.items() if not each[0].expired()}
        self.most = max(self.most, sum(n_bytes for _, n_bytes in self.alive.values()))
        return output


@pytest.mark.parametrize("with_gradient", [False, True])
def test_peak_memory_is_a_tenth_of_the_plain_form(with_gradient):
    hidden_ND, weight_VD, token_N = draw(512, 8192, 8, torch.float32)
    n_logits = 512 * 8192 * 4

    def measure(function, **options):
        hidden_ND.grad = weight_VD.grad = None
        with Peak() as peak, torch.set_grad_enabled(with_gradient):
            logp_N, entropy_N = function(hidden_ND, weight_VD, token_N, **options)
            if with_gradient:
                (logp_N - 0.1 * entropy_N).sum().backward()
        return peak

    ours, theirs = measure(linear_logp_entropy, block_mib=1), measure(plain)
    assert theirs.largest == n_logits
    assert theirs.most > 2.9 * n_logits
    assert ours.largest <= n_logits / 16
    assert ours.most <= 0.1 * theirs.most


@pytest.fixture
def scored():
    sizes = ModelSizes(hidden=16, layers=1, heads=2, kv_heads=1, head_dim=8, feed_forward=16)
    rng = np.random.default_rng(0)
    responses = [rng.integers(1, 31, n).tolist() for n in (6, 3, 4)]
    return build_model(sizes, vocabulary_size=31, seed=0), Sequences.join([[5, 6], [7], [8, 9, 10]], responses)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_many_logits_are_scored_as_few(scored, monkeypatch, temperature):
    found = []
    for few in (2**20, 0):
        monkeypatch.setattr(logprobs, "_FEW_LOGITS", few)
        model, sequences = scored
        model.zero_grad()
        scores = token_scores(model, sequences, temperature)
        (scores.logp_BT - 0.3 * scores.entropy_BT).sum().backward()
        parameters = [parameter.grad.clone() for parameter in model.parameters()]
        found.append((*scores, *parameters, *score(model, sequences, temperature)))
    torch.testing.assert_close(found[0], found[1], atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"temperature": 0.0}, "temperature: is 0.0"),
        ({"temperature": float("nan")}, "temperature"),
        ({"block_mib": 0}, "block_mib"),
        ({"token_N": torch.tensor([0, 11])}, "tokens from 0 to 11; 0 to 10"),
        ({"token_N": torch.tensor([-1, 0])}, "tokens from -1"),
        ({"token_N": torch.tensor([0])}, r"shape \(1,\); \(2,\)"),
        ({"weight_VD": torch.zeros(11, 4)}, "float64 and torch.float32"),
        ({"weight_VD": torch.zeros(11, 5, dtype=torch.float64)}, r"\(2, 4\) and \(11, 5\)"),
    ],
)
def test_what_does_not_fit_is_refused(change, complaint):
    hidden_ND, weight_VD, token_N = draw(2, 11, 4)
    inputs = {"hidden_ND": hidden_ND, "weight_VD": weight_VD, "token_N": token_N, **change}
    with pytest.raises(ParameterError, match=complaint):
        linear_logp_entropy(**inputs)
