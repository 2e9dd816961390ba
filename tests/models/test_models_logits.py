"""Logits of whole prompts against transformers (fixtures/make_model_references.py)."""

from pathlib import Path

import jax
import numpy as np
import pytest

from server.engine import mesh as meshes
from server.engine.backend import choose_backend, cpu_backend
from server.engine.config import EngineConfig
from server.kernels import build
from server.weights.safetensors import SafetensorsSource
from tests.cache import CACHE
from tests.models.plain import frequency, plain_logits
from tests.models.tiny import Model, Row, Tensors, load

FIXTURES = Path(__file__).parents[1] / "fixtures"
TINY = sorted(path.name for path in (FIXTURES / "models").iterdir())
FAMILY = ["llama31", "mistral", "qwen25", "gemma", "starcoder2", "opt", "bloom"]
PROMPT = 90
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


def read(model: Model, name: str, chunk: int, until: int, slots: int) -> np.ndarray:
    """Logits of the prompt in the last of some slots: in chunks up to `until`, then by decode.

    No more is kept than the model attends to. Another slot reads something else at the same time.
    """
    length = min(96, model.spec.sliding_window or 96)
    chunk, last = min(chunk, length), slots - 1
    prompt, cache, got = reference(name)["prompt"], model.empty(slots, length), []
    for start in range(0, until, chunk):
        tokens = prompt[start : min(start + chunk, until)]
        rows = [Row(last, start, tokens), Row(0, start, tokens[::-1])]
        span = length if until > chunk else 0
        scores, cache = model.read(cache, rows[:slots], chunk, span)
        got.append(scores[0])
    for position in range(until, len(prompt)):
        tokens, starts = np.full(slots, prompt[position]), np.full(slots, position)
        scores, cache = model.step(cache, tokens, starts, [1] * slots, length)
        got.append(scores[last][None])
    return np.concatenate(got)


@pytest.mark.parametrize("name", TINY)
def test_logits_of_a_whole_prompt_equal_transformers(name: str) -> None:
    """At once where no window forbids it."""
    assert reference(name)["logits"].std() > 1  # the bound means something
    model = load(SafetensorsSource(FIXTURES / "models" / name))
    assert close(read(model, name, 96, PROMPT, 1), name)


@pytest.mark.parametrize("name", TINY)
def test_logits_of_the_kernel_equal_transformers(name: str) -> None:
    """As the engine computes on one CPU: in chunks, then by decode."""
    if reason := build.load(CACHE):
        pytest.skip(f"no CPU kernel: {reason}")
    source = SafetensorsSource(FIXTURES / "models" / name)
    mesh = meshes.make_mesh(jax.devices()[:1], "model")
    backend = choose_backend(source.spec, mesh, EngineConfig(slots=1), CACHE)
    assert close(read(load(source, backend=backend), name, 32, 50, 2), name)


@pytest.mark.parametrize(
    ("name", "sharding"),
    [
        *((name, "model") for name in FAMILY),
        ("llama31", "batch"),
        *(
            pytest.param(name, "batch", marks=pytest.mark.slow)
            for name in FAMILY
            if name != "llama31"
        ),
    ],
)
def test_logits_on_two_devices_equal_transformers(name: str, sharding: str) -> None:
    """In chunks, then by decode, split either way."""
    source = SafetensorsSource(FIXTURES / "models" / name)
    model = load(source, devices=2, sharding=sharding)
    assert close(read(model, name, 32, 50, 2), name)


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
    if kernel and (reason := build.load(CACHE)):
        pytest.skip(f"no CPU kernel: {reason}")
    expected = np.load(FIXTURES / "smollm2_reference.npz")
    model = load(smollm2_tensors, backend=cpu_backend(EngineConfig(slots=1), kernel=kernel))
    (scores,), _ = model.read(model.empty(1, 128), [Row(0, 0, expected["prompt"])], 100, 0)
    assert np.abs(scores[:, expected["ids"]] - expected["logits"]).max() <= CLOSE
    assert np.array_equal(scores.argmax(-1), expected["best"])
    assert np.abs(scores.max(-1) - expected["best_logits"]).max() <= CLOSE
