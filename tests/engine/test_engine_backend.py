"""What products in bfloat16 run on: the kernel, or plain XLA where the processor cannot."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from server.engine import mesh as meshes
from server.engine.backend import Backend, choose_backend
from server.engine.config import EngineConfig
from server.kernels import build
from server.quant.bf16 import Bf16Form, PackedBf16Form
from server.quant.dense import PackedDenseForm
from tests.cache import CACHE
from tests.engine.driving import Ask, assert_greedy, generate, prompt_of
from tests.models.tiny import Row, Tensors, load
from tests.quant import definitions

WITHOUT = build.INSTRUCTIONS


@pytest.fixture(scope="module", autouse=True)
def kernel() -> None:
    if reason := build.load(CACHE):
        pytest.skip(f"no CPU kernel: {reason}")


def choose(source: Tensors, weights: str, *instructions: str) -> tuple[Backend, list[str]]:
    mesh = meshes.make_mesh(jax.devices()[:1], "model")
    said: list[str] = []
    config = EngineConfig(slots=1, weights=weights)
    known = instructions or None
    return choose_backend(source.spec, mesh, config, CACHE, said.append, known), said


def rounded(source: Tensors) -> Tensors:
    """Every matrix but the embedding in bfloat16."""
    values = {
        name: value
        if value.ndim == 1 or "embed" in name
        else definitions.nearest_bf16(value).astype(np.float32)
        for name, value in source.values.items()
    }
    return Tensors(source.spec, values)


def test_a_processor_without_bfloat16_takes_plain_products_and_says_so(
    tensors: dict[str, Tensors],
) -> None:
    """All else stays in the kernel, and so do other schemes."""
    backend, said = choose(tensors["llama"], "bf16", *WITHOUT)
    assert (type(backend.forms.layers), type(backend.forms.head)) == (Bf16Form, Bf16Form)
    assert said[0] == (
        "CPU kernel not used for products in bfloat16 (the processor lacks avx512_bf16); plain XLA "
        "instead"
    )
    assert backend.reads_live and backend.compute == jnp.float32
    backend, said = choose(tensors["llama"], "none", *WITHOUT)
    assert type(backend.forms.layers) is PackedDenseForm
    assert not any("bfloat16" in line for line in said)


def test_with_the_instruction_the_kernel_multiplies(tensors: dict[str, Tensors]) -> None:
    backend, said = choose(tensors["llama"], "bf16", *WITHOUT, build.BF16_INSTRUCTION)
    kinds = type(backend.forms.layers), type(backend.forms.head)
    assert kinds == (PackedBf16Form, PackedBf16Form)
    assert not any("not used" in line for line in said)


@pytest.mark.parametrize("name", ["llama", "uneven", "bloom"])
def test_both_give_the_same_logits(tensors: dict[str, Tensors], name: str) -> None:
    """But for activations that are rounded to the other neighbour: half of 2^-8 of one input."""
    if reason := build.lacks_bf16():
        pytest.skip(f"no CPU kernel for bfloat16: {reason}")
    source, scores = tensors[name], []
    tokens = prompt_of(30, 5)
    for instructions in (WITHOUT, ()):
        model = load(source, backend=choose(source, "bf16", *instructions)[0])
        (got,), _ = model.read(model.empty(1, 64), [Row(0, 0, tokens)], 32, 0)
        scores.append(got)
    assert np.abs(scores[0] - scores[1]).max() <= 0.02 * np.abs(scores[1]).max()


def test_an_engine_is_the_plain_model_over_rounded_values(
    engines: Callable, tensors: dict[str, Tensors]
) -> None:
    asks = [Ask(0, prompt_of(5, 1), 20), Ask(3, prompt_of(150, 3), 20)]
    engine = engines(weights="bf16")
    source = rounded(tensors["llama"])
    said = generate(engine, asks, ahead=1)
    for ask in asks:
        assert_greedy(source, ask, said[ask.slot], 64, bound=0.1)
