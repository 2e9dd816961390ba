"""Logits of whole prompts against transformers (fixtures/make_model_references.py)."""

from pathlib import Path

import numpy as np
import pytest

from server.engine.backend import cpu_backend
from server.engine.config import EngineConfig
from server.kernels import build
from server.weights.safetensors import SafetensorsSource
from tests.models.plain import frequency, plain_logits
from tests.models.tiny import Model, Row, Tensors, load

FIXTURES = Path(__file__).parents[1] / "fixtures"
TINY = sorted(path.name for path in (FIXTURES / "models").iterdir())
CLOSE = 1e-3  # the acceptance bound on logits in float32


def reference(name: str) -> dict[str, np.ndarray]:
    """`prompt` [T], `logits` [T,V], `greedy` [64]."""
    return dict(np.load(FIXTURES / "models" / name / "reference.npz"))


def open_tiny(name: str) -> Tensors:
    """The checkpoint read into memory."""
    source = SafetensorsSource(FIXTURES / "models" / name)
    return Tensors(source.spec, {key: source.tensor(key) for key in source.names()})


def close(scores: np.ndarray, name: str) -> bool:
    """To the reference, at every position of the prompt."""
    return bool(np.abs(scores - reference(name)["logits"]).max() <= CLOSE)


def read_prompt(model: Model, name: str, chunk: int, slot: int, of: int) -> np.ndarray:
    """Logits of the prompt, read in chunks into a slot; no more is kept than the model attends to.

    Rows of other slots read something else at the same time.
    """
    length = min(96, model.spec.sliding_window or 96)
    prompt, cache, got = reference(name)["prompt"], model.empty(of, length), []
    for start in range(0, len(prompt), min(chunk, length)):
        tokens = prompt[start : start + min(chunk, length)]
        rows = [Row(slot, start, tokens), Row((slot + 1) % of, start, tokens[::-1])]
        scores, cache = model.read(cache, rows[:of], min(chunk, length), length if start else 0)
        got.append(scores[0])
    return np.concatenate(got)


@pytest.mark.parametrize("name", TINY)
def test_prefill_logits_equal_transformers(name: str) -> None:
    """The whole prompt at once where no window forbids it, in the plain form and in the kernel."""
    assert reference(name)["logits"].std() > 1  # the bound means something
    source = SafetensorsSource(FIXTURES / "models" / name)
    assert close(read_prompt(load(source), name, 96, 0, 1), name)
    if reason := build.load(None):
        pytest.skip(f"no CPU kernel: {reason}")
    kernel = cpu_backend(EngineConfig(slots=1), kernel=True)
    assert close(read_prompt(load(source, backend=kernel), name, 96, 0, 1), name)


@pytest.mark.parametrize("sharding", ["model", "batch"])
@pytest.mark.parametrize("name", TINY)
def test_chunked_logits_equal_transformers_on_two_devices(name: str, sharding: str) -> None:
    """Prefill in chunks for both slots, split either way."""
    source = SafetensorsSource(FIXTURES / "models" / name)
    model = load(source, devices=2, sharding=sharding)
    assert close(read_prompt(model, name, 32, 1, 2), name)


@pytest.mark.parametrize("name", TINY)
def test_decode_logits_equal_transformers(name: str) -> None:
    """Every token of the prompt read by decode, in slot 1 of two."""
    model = load(SafetensorsSource(FIXTURES / "models" / name))
    length = min(96, model.spec.sliding_window or 96)
    cache, got = model.empty(2, length), []
    for position, token in enumerate(reference(name)["prompt"]):
        scores, cache = model.step(cache, [0, token], [0, position], [0, 1], length)
        got.append(scores[1])
    assert close(np.stack(got), name)


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
