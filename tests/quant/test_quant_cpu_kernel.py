"""The C products against their plain twins, and what `load` says where they cannot be had."""

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

from server.quant import cpu_kernel
from server.quant.two_term import two_term_product

# Few widths, many row counts: each new shape is compiled by XLA.
WEIGHTS = {
    (outputs, inputs): np.random.default_rng(outputs * inputs)
    .integers(-127, 128, (outputs, inputs))
    .astype(np.int8)
    for outputs, inputs in [(16, 4), (48, 20), (64, 36), (112, 64), (80, 4100), (640, 8)]
}


@pytest.fixture(scope="module", autouse=True)
def kernel(tmp_path_factory: pytest.TempPathFactory) -> None:
    reason = cpu_kernel.load(tmp_path_factory.mktemp("kernel"))
    if reason:
        pytest.skip(reason)


def int8_pair(x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The kernel's product and its twin's."""
    scale = np.linspace(0.01, 0.02, w.shape[0]).astype(np.float32)
    got = jax.jit(cpu_kernel.int8_product)(x, cpu_kernel.pack_int8(w), scale)
    return np.asarray(got), np.asarray(jax.jit(two_term_product)(x, w, scale))


def f32_pair(x: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The kernel's product and float64's."""
    got = jax.jit(cpu_kernel.f32_product)(x, cpu_kernel.pack_f32(w.astype(np.float32)))
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
    y = np.asarray(jax.jit(cpu_kernel.int8_product)(x, cpu_kernel.pack_int8(w), ones))
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
    packed, plain = cpu_kernel.pack_int8(w), cpu_kernel.pack_f32(w.astype(np.float32))
    scale = np.ones(640, np.float32)

    @jax.jit
    def products(x: jax.Array) -> jax.Array:
        parts = [cpu_kernel.int8_product(x * i, packed, scale) for i in range(1, 9)]
        return jnp.stack([*parts, cpu_kernel.f32_product(x, plain)])

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


CACHES = [(2, 3, 100, 64), (1, 1, 17, 16), (1, 5, 130, 80), (3, 8, 200, 128), (2, 2, 64, 256)]


@pytest.mark.parametrize("coded", [False, True])
@pytest.mark.parametrize("heads, group, length, head", CACHES)
def test_attention_matches_numpy(
    heads: int, group: int, length: int, head: int, coded: bool
) -> None:
    counts = np.asarray([0, 1, 16, length - 1, length, length + 7], np.int32)
    random = np.random.default_rng(length)
    q = random.standard_normal((len(counts), heads * group, head)).astype(np.float32)
    shape = (len(counts), heads, length, head)
    cache = [random.standard_normal(shape).astype(np.float32) for _ in "kv"]
    scales: list[np.ndarray] = []
    floats = cache
    if coded:
        cache = [random.integers(-127, 128, shape).astype(np.int8) for _ in "kv"]
        scales = [random.uniform(0.001, 0.02, shape[:3]).astype(np.float32) for _ in "kv"]
        floats = [c * s[..., None] for c, s in zip(cache, scales, strict=True)]
    # Beyond what lives there may be anything.
    for b, count in enumerate(counts):
        for array in scales or cache:
            array[b, :, count:] = np.nan
    got = np.asarray(jax.jit(attention)(q, *cache, counts, *scales))
    expected = plain_attention(q, *floats, counts)
    assert np.all(got[counts == 0] == 0)
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6 * np.max(np.abs(expected)))


def attention(
    q: jax.Array, k: jax.Array, v: jax.Array, counts: jax.Array, *scales: jax.Array
) -> jax.Array:
    """The kernel, with a fixed scale."""
    return cpu_kernel.decode_attention(q, k, v, counts, 0.3, *scales)


def plain_attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """float64, one query at a time."""
    out = np.zeros(q.shape)
    group = q.shape[1] // k.shape[1]
    for b, n in np.ndindex(q.shape[:2]):
        if counts[b] == 0:
            continue
        keys, values = (x[b, n // group, : counts[b]].astype(np.float64) for x in (k, v))
        scores = keys @ q[b, n] * 0.3
        weights = np.exp(scores - scores.max())
        out[b, n] = weights @ values / weights.sum()
    return out


@pytest.mark.parametrize("lowest, highest", [(-2000, 2000), (-9000, -5000)])
def test_attention_survives_scores_far_apart(lowest: int, highest: int) -> None:
    """Weights from 1 down to 0, with the peak in the last block, which is not full."""
    keys = np.linspace(lowest, highest, 200)[None, None, :, None] * np.ones(16)
    values = np.arange(200, dtype=np.float32)[None, None, :, None] * np.ones(16)
    q, count = np.ones((1, 1, 16), np.float32), np.asarray([200], np.int32)
    got = jax.jit(attention)(q, keys.astype(np.float32), values.astype(np.float32), count)
    np.testing.assert_allclose(got, 199.0, rtol=1e-6)


def test_attention_spoils_only_the_slot_with_a_bad_value() -> None:
    k = np.random.default_rng(5).standard_normal((3, 2, 70, 32)).astype(np.float32)
    k[1, 0, 66, 3] = np.nan
    q = np.ones((3, 2, 32), np.float32)
    got = np.asarray(jax.jit(attention)(q, k, np.ones_like(k), np.full(3, 70, np.int32)))
    assert np.all(np.isnan(got[1, 0]))
    np.testing.assert_allclose(got[[0, 2]], 1.0, rtol=1e-6)
    np.testing.assert_allclose(got[1, 1], 1.0, rtol=1e-6)


def test_attention_refuses_what_it_cannot_take() -> None:
    q, cache = np.ones((1, 3, 24), np.float32), np.ones((1, 2, 8, 24), np.float32)
    with pytest.raises(ValueError, match="3 heads over 2 kv heads of size 24"):
        attention(q, cache, cache, np.ones(1, np.int32))


def test_packing_is_the_same_for_numpy_and_jax() -> None:
    w = WEIGHTS[64, 36]
    np.testing.assert_array_equal(cpu_kernel.pack_int8(w), jax.jit(cpu_kernel.pack_int8)(w))
    assert cpu_kernel.pack_int8(w).shape == (4, 9, 16, 4)
    real = w.astype(np.float32)
    np.testing.assert_array_equal(cpu_kernel.pack_f32(real), jax.jit(cpu_kernel.pack_f32)(real))
    assert cpu_kernel.pack_f32(real).shape == (4, 36, 16)


@pytest.mark.parametrize("outputs, inputs", [(24, 8), (16, 6), (16, 70000), (0, 8), (16, 0)])
def test_shapes_that_do_not_fit_are_refused(outputs: int, inputs: int) -> None:
    assert not cpu_kernel.fits(outputs, inputs)
    for pack in (cpu_kernel.pack_int8, cpu_kernel.pack_f32):
        with pytest.raises(ValueError, match=f"{outputs} outputs and {inputs} inputs"):
            pack(np.zeros((outputs, inputs), np.int8))


def test_load_says_why_it_cannot(tmp_path: Path) -> None:
    assert "no C compiler" in cpu_kernel.load(tmp_path, "no-such-compiler")
    assert "failed" in cpu_kernel.load(tmp_path / "new", "false")
    occupied = tmp_path / "file"
    occupied.write_text("")
    assert "cannot build in" in cpu_kernel.load(occupied)


def test_processes_share_a_cache(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from server.quant import cpu_kernel;"
        "sys.exit(cpu_kernel.load(pathlib.Path(sys.argv[1])) or 0)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "cache")]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in running:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    names = [path.name for path in (tmp_path / "cache").iterdir()]
    assert len(names) == 1 and names[0].endswith(".so")


def test_load_without_a_cache() -> None:
    assert cpu_kernel.load(None) == ""
