"""The vLLM engine where vLLM is missing or broken, and its options; `make test-vllm` runs the engine itself."""

import sys

import pytest

from entropy_lab.errors import MissingExtraError, ParameterError
from entropy_lab.rl.model import ModelSizes, build_model
from entropy_lab.rl.vllm_engine import VllmEngine
from entropy_lab.rl.vllm_options import VllmOptions, require_vllm

SIZES = ModelSizes(hidden=8, layers=1, heads=2, kv_heads=1, head_dim=4, feed_forward=8)


@pytest.fixture
def model():
    return build_model(SIZES, vocabulary_size=11, seed=0)


def test_a_missing_vllm_is_one_line(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingExtraError, match=r"^vllm: is not installed.* Hint: pip install .*entropy-lab\[vllm\]"):
        VllmEngine(model)
    with pytest.raises(MissingExtraError, match="is not installed"):
        require_vllm()


def test_a_broken_vllm_is_one_line(model, monkeypatch, tmp_path):
    for name in [name for name in sys.modules if name.partition(".")[0] == "vllm"]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text(
        'raise OSError("libcudart.so: cannot open shared object\\n and more")'
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        MissingExtraError, match=r"^vllm: cannot be imported \(libcudart.so: cannot open shared object and more\)"
    ):
        VllmEngine(model)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_model_len": 1},
        {"gpu_memory_utilization": 0.0},
        {"gpu_memory_utilization": 1.1},
        {"kv_cache_memory_bytes": 0},
        {"max_num_seqs": 0},
        {"tolerance": 0.0},
    ],
)
def test_impossible_options_are_refused(wrong):
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        VllmOptions(**wrong)
