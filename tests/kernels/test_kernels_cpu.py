"""The C operations against their plain twins, and what `load` says where they cannot be had."""

import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.kernels import build, cpu
from server.models import operations
from server.models.spec import ACTIVATIONS as MODEL_ACTIVATIONS
from server.quant.two_term import two_term_product
from tests.cache import CACHE

# Few widths, many row counts: each new shape is compiled by XLA.
WEIGHTS = {
    (outputs, inputs): np.random.default_rng(outputs * inputs)
    .integers(-127, 128, (outputs, inputs))
    .astype(np.int8)
    for outputs, inputs in [(16, 4), (48, 20), (64, 36), (112, 64), (80, 4100), (640, 8)]
}


@pytest.fixture(scope="module", autouse=True)
def kernel() -> None:
    reason = build.load(CACHE)
    if reason:
        pytest.skip(f"no CPU kernel: {reason}")


def int8_pair(x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The kernel's product and its twin's."""
    scale = np.linspace(0.01, 0.02, w.shape[0]).astype(np.float32)
    got = jax.jit(cpu.int8_product)(x, cpu.pack_int8(w), scale)
    return np.asarray(got), np.asarray(jax.jit(two_term_product)(x, w, scale))


def f32_pair(x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The kernel's product and float64's."""
    got = jax.jit(cpu.f32_product)(x, cpu.pack_f32(w.astype(np.float32)))
    return np.asarray(got), x.astype(np.float64) @ w.T.astype(np.float64)


def assert_close(got: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(got, expected, rtol=0, atol=4e-6 * np.max(np.abs(expected)))


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(WEIGHTS)), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_products_match_their_twins(shape: tuple[int, int], tokens: int, seed: int) -> None:
    w = WEIGHTS[shape]
    x = np.random.default_rng(seed).standard_normal((tokens, shape[1])).astype(np.float32)
    assert_close(*int8_pair(x, w))
    assert_close(*f32_pair(x, w))


def test_more_tokens_than_one_part_and_more_inputs_than_one_chunk() -> None:
    x = np.random.default_rng(1).standard_normal((301, 4100)).astype(np.float32)
    assert_close(*int8_pair(x, WEIGHTS[80, 4100]))
    assert_close(*f32_pair(x, WEIGHTS[80, 4100]))


def test_int8_keeps_fifteen_bits_of_the_activation() -> None:
    w = np.eye(64, dtype=np.int8)
    x = np.random.default_rng(2).standard_normal((9, 64)).astype(np.float32)
    ones = np.ones(64, np.float32)
    y = np.asarray(jax.jit(cpu.int8_product)(x, cpu.pack_int8(w), ones))
    half_a_unit = np.abs(x).max(axis=1, keepdims=True) / 127 / 254 / 2
    assert np.all(np.abs(y - x) <= half_a_unit * 1.01)
    assert np.any(np.abs(y - x) > half_a_unit / 2)


@pytest.mark.parametrize("magnitude", [1e-38, 1e-31, 1e-20, 1e20, 1e34])
def test_magnitudes_far_from_one(magnitude: float) -> None:
    x = np.random.default_rng(3).uniform(-1, 1, (5, 64)).astype(np.float32)
    x = x * np.float32(magnitude)
    got, expected = int8_pair(x, WEIGHTS[112, 64])
    assert np.all(np.isfinite(expected))
    assert_close(got, expected)


def test_zero_rows_give_zeros() -> None:
    x = np.zeros((6, 64), np.float32)
    x[2] = 1.0
    for got, _ in (int8_pair(x, WEIGHTS[112, 64]), f32_pair(x, WEIGHTS[112, 64])):
        assert np.all(got[[0, 1, 3, 4, 5]] == 0)
        assert np.any(got[2] != 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -np.nan])
@pytest.mark.parametrize("at", [0, 17, 63])
def test_a_bad_value_spoils_its_row_and_no_other(bad: float, at: int) -> None:
    x = np.random.default_rng(4).standard_normal((7, 64)).astype(np.float32)
    x[3, at] = bad
    others = [0, 1, 2, 4, 5, 6]
    got, expected = int8_pair(x, WEIGHTS[112, 64])
    assert np.all(np.isnan(got[3])) and np.all(np.isnan(expected[3]))
    assert_close(got[others], expected[others])
    got, _ = f32_pair(x, np.ones((16, 64)))
    assert not np.any(np.isfinite(got[3])) and np.all(np.isfinite(got[others]))


def test_many_products_in_one_program_and_many_programs_at_once() -> None:
    w = WEIGHTS[640, 8]
    packed, plain = cpu.pack_int8(w), cpu.pack_f32(w.astype(np.float32))
    scale = np.ones(640, np.float32)

    @jax.jit
    def products(x: jax.Array) -> jax.Array:
        parts = [cpu.int8_product(x * i, packed, scale) for i in range(1, 9)]
        return jnp.stack([*parts, cpu.f32_product(x, plain)])

    inputs = [np.full((tokens, 8), tokens, np.float32) for tokens in (1, 7, 24, 65)]
    expected = [np.asarray(products(x)) for x in inputs]
    failures: list[int] = []

    def repeat(index: int) -> None:
        for _ in range(100):
            if not np.array_equal(products(inputs[index]), expected[index]):
                failures.append(index)

    threads = [threading.Thread(target=repeat, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert not failures
    for x, y in zip(inputs, expected, strict=True):
        assert_close(y[-1], x @ w.T.astype(np.float32))


@pytest.mark.parametrize("tokens, head, says", [(3, 24, "heads of size 24"), (9, 16, "9 tokens")])
def test_attention_refuses_what_it_cannot_take(tokens: int, head: int, says: str) -> None:
    qkv, turned = np.ones((1, tokens, 2, 5, head)), np.ones((1, tokens, head // 2))
    one, cache = np.ones(1, np.int32), np.ones((1, 2, 8, head), np.float32)
    with pytest.raises(ValueError, match=says):
        cpu.attention(qkv, turned, turned, one, one, one, (cache, cache), 1.0)


ROWS = [(1, 1), (3, 16), (5, 576), (40, 1000), (700, 33)]


@pytest.mark.parametrize("rows, width", ROWS)
def test_norm_matches_the_plain_form(rows: int, width: int) -> None:
    random = np.random.default_rng(width)
    x = random.standard_normal((rows, width)).astype(np.float32) * 30
    weight = random.standard_normal(width).astype(np.float32)
    x[0] = 0
    got = np.asarray(jax.jit(cpu.norm, static_argnums=2)(x[None], weight, 1e-5))[0]
    wide = x.astype(np.float64)
    expected = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-5) * weight
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)
    assert np.all(got[0] == 0)


@pytest.mark.parametrize("rows, width", ROWS)
def test_layer_norm_matches_the_plain_form(rows: int, width: int) -> None:
    """Far from zero too, where a mean of squares less the mean's square would cancel."""
    random = np.random.default_rng(width)
    x = random.standard_normal((rows, width)).astype(np.float32) * 30 + 300
    weight, bias = random.standard_normal((2, width)).astype(np.float32)
    x[0] = 0
    if rows > 1:
        x[1] = 7
    program = jax.jit(cpu.layer_norm, static_argnums=3)
    got = np.asarray(program(x[None], weight, bias, 1e-5))[0]
    wide = x.astype(np.float64)
    variance = wide.var(-1, keepdims=True)
    expected = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(variance + 1e-5) * weight + bias
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)
    twin = operations.layer_norm(jnp.asarray(x), weight, bias, 1e-5)
    # The mean of a constant row is off by rounding in the twin, and 1 / sqrt(eps) is 300.
    np.testing.assert_allclose(got[2:], twin[2:], rtol=2e-5, atol=2e-5)
    assert np.all(got[:2] == bias) or rows == 1


ACTIVATIONS = {
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu-tanh": lambda x: x / (1 + np.exp(-2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
}


@pytest.mark.parametrize("parts", [1, 2], ids=["plain", "gated"])
@pytest.mark.parametrize("rows, width", ROWS)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_match_the_plain_form(name: str, rows: int, width: int, parts: int) -> None:
    x = np.random.default_rng(width).standard_normal((rows, parts, width)).astype(np.float32) * 20
    x[:, 0, 0] = np.resize([0.0, -200.0, 200.0, -88.0, -3.0], rows)
    program = jax.jit(cpu.activate, static_argnums=1)
    got = np.asarray(program(x, name))
    wide = x.astype(np.float64)
    with np.errstate(over="ignore"):
        expected = ACTIVATIONS[name](wide[:, 0]) * (wide[:, 1] if parts == 2 else 1)
    # The relative error of exp(z) is that of z, float32: 88 is the largest that counts.
    np.testing.assert_allclose(got, expected, rtol=1e-6 if name == "silu" else 2e-5, atol=1e-30)
    twin = operations.activate(jnp.asarray(x), name)
    np.testing.assert_allclose(got, twin, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_value_does_not_vanish(name: str, bad: float) -> None:
    x = np.ones((1, 1, 33), np.float32)
    x[0, 0, 20] = bad
    got = np.asarray(cpu.activate(jnp.asarray(x), name))[0]
    assert np.array_equal(got[20], bad, equal_nan=True) and np.isfinite(np.delete(got, 20)).all()


def test_every_activation_of_the_models_is_here() -> None:
    assert set(cpu.ACTIVATIONS) == set(ACTIVATIONS) == set(MODEL_ACTIVATIONS)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(ROWS), st.integers(0, 2**32 - 1), st.sampled_from([2, 1000]))
def test_argmax_matches_numpy(shape: tuple[int, int], seed: int, values: int) -> None:
    """Few values give ties, whose first index counts."""
    random = np.random.default_rng(seed)
    x = random.integers(-values, values, shape).astype(np.float32)
    x[random.random(shape) < 0.1] = -0.0
    x[random.random(shape) < 0.2] = -np.inf
    x[0] = -np.inf
    np.testing.assert_array_equal(jax.jit(cpu.argmax)(x), x.argmax(-1))
    x[-1, random.integers(0, shape[1])] = np.nan
    assert np.asarray(jax.jit(cpu.argmax)(x))[-1] == shape[1] - 1


def test_packing_is_the_same_for_numpy_and_jax() -> None:
    w = WEIGHTS[64, 36]
    np.testing.assert_array_equal(cpu.pack_int8(w), jax.jit(cpu.pack_int8)(w))
    assert cpu.pack_int8(w).shape == (4, 9, 16, 4)
    real = w.astype(np.float32)
    np.testing.assert_array_equal(cpu.pack_f32(real), jax.jit(cpu.pack_f32)(real))
    assert cpu.pack_f32(real).shape == (4, 36, 16)


@pytest.mark.parametrize("outputs, inputs", [(24, 8), (16, 6), (16, 70000), (0, 8), (16, 0)])
def test_shapes_that_do_not_fit_are_refused(outputs: int, inputs: int) -> None:
    assert not cpu.fits(outputs, inputs)
    for pack in (cpu.pack_int8, cpu.pack_f32):
        with pytest.raises(ValueError, match=f"{outputs} outputs and {inputs} inputs"):
            pack(np.zeros((outputs, inputs), np.int8))


def test_load_says_why_it_cannot(tmp_path: Path) -> None:
    assert "no C compiler" in build.load(tmp_path, "no-such-compiler")
    assert "failed" in build.load(tmp_path / "new", "false")
    occupied = tmp_path / "file"
    occupied.write_text("")
    assert "cannot build in" in build.load(occupied)


def test_processes_share_a_cache(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from server.kernels import build, cpu;"
        "sys.exit(build.load(pathlib.Path(sys.argv[1])) or 0)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "cache")]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in running:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    names = [path.name for path in (tmp_path / "cache").iterdir()]
    assert len(names) == 1 and names[0].endswith(".so")


def test_load_without_a_cache() -> None:
    assert build.load(None) == ""
