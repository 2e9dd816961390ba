"""Logits of whole prompts against transformers (fixtures/make_model_references.py)."""

from pathlib import Path

import numpy as np
import pytest

from server.engine.backend import cpu_backend
from server.engine.config import EngineConfig
from server.kernels import build
from server.weights.safetensors import SafetensorsSource
from tests.models.plain import frequency, plain_logits
from tests.models.tiny import Row, Tensors, load

FIXTURES = Path(__file__).parents[1] / "fixtures"
TINY = ["llama2", "llama31", "qwen25", "qwen25_tied"]
CLOSE = 1e-3  # the acceptance bound on logits in float32


def reference(name: str) -> dict[str, np.ndarray]:
    """`prompt` [T], `logits` [T,V], `greedy` [64]."""
    return dict(np.load(FIXTURES / "models" / name / "reference.npz"))


def open_tiny(name: str) -> Tensors:
    """The checkpoint read into memory."""
    source = SafetensorsSource(FIXTURES / "models" / name)
    return Tensors(source.spec, {key: source.tensor(key) for key in source.names()})


@pytest.mark.parametrize("name", TINY)
def test_prefill_logits_equal_transformers(name: str) -> None:
    model = load(SafetensorsSource(FIXTURES / "models" / name))
    expected = reference(name)
    prompt = expected["prompt"]
    (scores,), _ = model.read(model.empty(1, 96), [Row(0, 0, prompt)], 96, 0)
    assert np.abs(scores - expected["logits"]).max() <= CLOSE
    assert expected["logits"].std() > 1  # the bound means something


@pytest.mark.parametrize("name", TINY)
def test_decode_logits_equal_transformers(name: str) -> None:
    """Every token of the prompt read by decode, in slot 1 of two."""
    model = load(SafetensorsSource(FIXTURES / "models" / name))
    expected = reference(name)
    cache = model.empty(2, 96)
    for position, token in enumerate(expected["prompt"]):
        scores, cache = model.step(cache, [0, token], [0, position], [0, 1], 96)
        assert np.abs(scores[1] - expected["logits"][position]).max() <= CLOSE


@pytest.mark.parametrize("name", TINY)
def test_the_plain_model_equals_transformers(name: str) -> None:
    """What the other tests compare with is right itself."""
    expected = reference(name)
    scores = plain_logits(open_tiny(name), list(expected["prompt"]))
    assert np.abs(scores - expected["logits"]).max() <= CLOSE


def test_the_scaled_model_uses_all_three_ways_of_scaling() -> None:
    spec = SafetensorsSource(FIXTURES / "models" / "llama31").spec
    ratios = [
        frequency(spec, pair) / spec.rope_theta ** (-2 * pair / spec.head_dim) for pair in range(8)
    ]
    assert ratios[0] == 1 and 1 / 8 < ratios[1] < 1 and ratios[2] == pytest.approx(1 / 8)


@pytest.mark.parametrize("kernel", [False, True], ids=["plain", "kernel"])
def test_smollm2_logits_equal_transformers(smollm2_tensors: Tensors, kernel: bool) -> None:
    if kernel and (reason := build.load(None)):
        pytest.skip(f"no CPU kernel: {reason}")
    expected = np.load(FIXTURES / "smollm2_reference.npz")
    model = load(smollm2_tensors, backend=cpu_backend(EngineConfig(slots=1), kernel=kernel))
    (scores,), _ = model.read(model.empty(1, 128), [Row(0, 0, expected["prompt"])], 100, 0)
    assert np.abs(scores[:, expected["ids"]] - expected["logits"]).max() <= CLOSE
    assert np.array_equal(scores.argmax(-1), expected["best"])
    assert np.abs(scores.max(-1) - expected["best_logits"]).max() <= CLOSE
