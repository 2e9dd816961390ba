"""Products of int8 activations and of 4-bit and 8-bit codes in C: against float64, at the edges."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.kernels import build, cpu, cpu_codes
from server.quant.int8_decomp import decomp_product
from server.quant.int8_dynamic import dynamic_product
from tests.cache import CACHE

SHAPES = [(16, 8), (48, 24), (64, 64), (112, 200), (80, 4104), (640, 576)]
TABLE = np.sort(np.random.default_rng(5).uniform(-1, 1, 16)).astype(np.float32)
LEVELS = np.linspace(-1, 1, 256, dtype=np.float32)
# Two terms of x, of the table, and what is left out of their product; each of the largest.
TERM = 0.51 / (127 * 254)


@pytest.fixture(scope="module", autouse=True)
def kernel() -> None:
    reason = build.load(CACHE)
    if reason:
        pytest.skip(f"no CPU kernel: {reason}")


class Weight:
    """A product as a function of x, and the matrix that it multiplies with, float64."""

    def __init__(self, kind: str, shape: tuple[int, int], block: int = 64) -> None:
        random = np.random.default_rng(shape[0] * shape[1] + block)
        outputs, inputs = shape
        blocks = -(-inputs // block)
        codes = random.integers(0, 16, shape).astype(np.uint8)
        scales = random.uniform(0.5, 2, (outputs, blocks)).astype(np.float32)
        packed, self.terms = cpu_codes.pack_nibbles(codes), 2
        if kind == "fp8":
            codes = random.integers(0, 256, shape).astype(np.uint8)
            codes[codes & 127 == 127] = 0
            values, self.terms = codes.view(ml_dtypes.float8_e4m3fn).astype(np.float64), 0
            lanes, scale = cpu_codes.pack_lanes(codes), scales[:, 0]
            call: Callable = partial(cpu_codes.fp8_product, codes=lanes, scale=scale)
            self.w = values * scale[:, None]
        elif kind == "int4":
            own = cpu_codes.pack_lanes(scales)
            call = partial(cpu_codes.int4_product, codes=packed, scales=own, block=block)
            self.w, self.terms = (codes.astype(np.float64) - 8) * widen(scales, block, inputs), 1
        elif kind == "nf4":
            own = cpu_codes.pack_lanes(scales)
            call = partial(
                cpu_codes.nf4_product, codes=packed, scales=own, table=TABLE, block=block
            )
            self.w = TABLE.astype(np.float64)[codes] * widen(scales, block, inputs)
        else:
            ranks = random.integers(0, 256, scales.shape).astype(np.uint8)
            spreads = random.uniform(0.1, 1, -(-scales.size // 256)).astype(np.float32)
            mean = np.float32([1.5])
            scales = LEVELS[ranks] * np.repeat(spreads, 256)[: scales.size].reshape(scales.shape)
            own = cpu_codes.pack_lanes(ranks)
            call = partial(
                cpu_codes.nf4_dq_product,
                codes=packed,
                ranks=own,
                spreads=spreads,
                mean=mean,
                levels=LEVELS,
                table=TABLE,
                block=block,
            )
            self.w = TABLE.astype(np.float64)[codes] * widen(scales + mean, block, inputs)
        self.call = jax.jit(lambda x: call(x))

    def check(self, x: np.ndarray) -> None:
        """y to what two terms keep of x, and for nf4 of the table, and to float32."""
        size, largest = np.abs(x), np.abs(x).max(-1, keepdims=True)
        weights = np.abs(self.w).sum(-1)
        allowed = 4e-6 * (size @ np.abs(self.w).T) + 1e-30
        if self.terms:
            allowed += TERM * largest * weights
        if self.terms == 2:
            most = np.abs(self.w).max()
            allowed += TERM * (size.sum(-1, keepdims=True) + largest * x.shape[1]) * most
        exact = x.astype(np.float64) @ self.w.T
        assert (np.abs(np.asarray(self.call(x)) - exact) <= allowed).all()


def widen(scales: np.ndarray, block: int, inputs: int) -> np.ndarray:
    """[N, G] -> [N, inputs], float64."""
    return np.repeat(scales.astype(np.float64), block, axis=1)[:, :inputs]


WEIGHTS = {
    (kind, shape, block): Weight(kind, shape, block)
    for kind in ("nf4", "dq", "int4", "fp8")
    for shape in SHAPES
    for block in ((64,) if kind == "fp8" else (32, 64, 128))
    if block == 64 or shape == (112, 200)
}

CODES = np.random.default_rng(7).integers(-127, 128, (112, 200)).astype(np.int8)
SCALE = np.linspace(0.01, 0.02, 112, dtype=np.float32)
PLAIN: dict[str, Callable] = {
    "int8": jax.jit(lambda x: cpu.int8_product(x, cpu.pack_int8(CODES), SCALE)),
    "dynamic": jax.jit(lambda x: cpu.dynamic_product(x, cpu.pack_int8(CODES), SCALE)),
    "decomp": jax.jit(lambda x: cpu.decomp_product(x, cpu.pack_int8(CODES), SCALE, 6.0)),
    "f32": jax.jit(lambda x: cpu.f32_product(x, cpu.pack_f32(CODES.astype(np.float32)))),
}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(WEIGHTS)), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_codes_are_multiplied_as_what_they_mean(
    key: tuple[str, tuple[int, int], int], tokens: int, seed: int
) -> None:
    x = np.random.default_rng(seed).standard_normal((tokens, key[1][1])).astype(np.float32)
    WEIGHTS[key].check(x)


@pytest.mark.parametrize("kind", ["nf4", "dq", "int4", "fp8"])
def test_more_tokens_than_one_part(kind: str) -> None:
    x = np.random.default_rng(1).standard_normal((301, 4104)).astype(np.float32)
    WEIGHTS[kind, (80, 4104), 64].check(x)


@pytest.mark.parametrize("kind", ["nf4", "dq", "int4", "fp8"])
def test_idle_rows_are_zero_beside_others(kind: str) -> None:
    """Whole tiles of idle rows are skipped, also before the first that is not."""
    weight = WEIGHTS[kind, (112, 200), 64]
    x = np.zeros((40, 200), np.float32)
    x[17:19] = np.random.default_rng(2).standard_normal((2, 200))
    weight.check(x)
    y = np.asarray(weight.call(x))
    assert not y[:17].any() and not y[19:].any() and y[17:19].any()


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["nf4", "dq", "int4", "fp8", "int8", "dynamic", "decomp", "f32"]),
    st.lists(st.booleans(), min_size=21, max_size=21),
)
def test_idle_rows_change_nothing_for_the_others(kind: str, idle: list[bool]) -> None:
    """Wherever they stand: a row's arithmetic is its own, to the bit."""
    x = np.random.default_rng(6).standard_normal((21, 200)).astype(np.float32)
    x[:, [3, 150]] = 9.0, -7.0  # outliers of every row, so the same whoever is idle
    call = WEIGHTS[kind, (112, 200), 64].call if (kind, (112, 200), 64) in WEIGHTS else PLAIN[kind]
    full, y = np.asarray(call(x)), np.asarray(call(np.where(np.array(idle)[:, None], -0.0, x)))
    assert np.array_equal(y, np.where(np.array(idle)[:, None], 0.0, full).astype(np.float32))


@pytest.mark.parametrize("kind", ["nf4", "dq", "int4", "fp8", "dynamic", "decomp"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_value_spoils_its_row_and_no_other(kind: str, bad: float) -> None:
    x = np.random.default_rng(4).standard_normal((12, 64)).astype(np.float32)
    x[3, 40] = bad
    w = np.random.default_rng(5).integers(1, 128, (64, 64)).astype(np.int8)
    packed, ones = cpu.pack_int8(w), np.ones(64, np.float32)
    calls: dict[str, Callable] = {
        "dynamic": lambda x: cpu.dynamic_product(x, packed, ones),
        "decomp": lambda x: cpu.decomp_product(x, packed, ones, 6.0),
    }
    call = calls.get(kind) or WEIGHTS[kind, (64, 64), 64].call
    y, clean = np.asarray(call(x)), np.asarray(call(np.where(np.isfinite(x), x, 0)))
    others = np.arange(12) != 3
    assert np.isfinite(y[others]).all() and not np.isfinite(y[3]).any()
    if kind != "decomp":  # where an infinity makes an outlier of its column, for all rows
        assert np.array_equal(y[others], clean[others])


INT8 = {
    shape: np.random.default_rng(shape[0]).integers(-127, 128, shape).astype(np.int8)
    for shape in [(16, 4), (48, 20), (112, 64), (80, 4100)]
}


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(INT8)), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_int8_activations_match_their_twin(shape: tuple[int, int], tokens: int, seed: int) -> None:
    w = INT8[shape]
    x = np.random.default_rng(seed).standard_normal((tokens, shape[1])).astype(np.float32) * 2
    scale = np.linspace(0.01, 0.02, shape[0]).astype(np.float32)
    got = np.asarray(jax.jit(cpu.dynamic_product)(x, cpu.pack_int8(w), scale))
    # Sums are whole numbers: all that differs is the order of the two factors after them.
    np.testing.assert_allclose(got, jax.jit(dynamic_product)(x, w, scale), rtol=1e-6)
    call = jax.jit(cpu.decomp_product, static_argnums=3)
    got = np.asarray(call(x, cpu.pack_int8(w), scale, 6.0))
    expected = np.asarray(jax.jit(decomp_product)(x, w, scale))
    np.testing.assert_allclose(got, expected, rtol=0, atol=4e-6 * np.abs(expected).max())


def test_outliers_of_a_long_prompt_are_found_by_all_threads() -> None:
    """More values than one thread looks through, outliers in the first and last inputs and rows."""
    w = INT8[80, 4100]
    x = np.random.default_rng(7).uniform(-1, 1, (301, 4100)).astype(np.float32)
    x[0, 0] = x[300, 4099] = x[150, 2000] = 40
    scale = np.ones(80, np.float32)
    got = np.asarray(jax.jit(lambda x: cpu.decomp_product(x, cpu.pack_int8(w), scale, 6.0))(x))
    expected = np.asarray(jax.jit(decomp_product)(x, w, scale))
    np.testing.assert_allclose(got, expected, rtol=0, atol=4e-6 * np.abs(expected).max())
    rough = np.asarray(jax.jit(dynamic_product)(x, w, scale))
    assert np.abs(rough - expected).max() > 1000 * np.abs(got - expected).max()


def test_products_refuse_what_does_not_fit() -> None:
    """A wrong shape is an error of the call, not a read past the end."""
    x = np.ones((2, 64), np.float32)
    codes = cpu_codes.pack_nibbles(np.ones((32, 64), np.uint8))
    scales = np.ones((2, 1, 16), np.float32)
    for call in (
        lambda: cpu_codes.nf4_product(x, codes, scales, TABLE, 48),
        lambda: cpu_codes.nf4_product(x, codes, np.ones((2, 2, 16), np.float32), TABLE, 64),
        lambda: cpu_codes.nf4_product(x, codes, scales, TABLE[:8], 64),
        lambda: cpu_codes.int4_product(x[:, :56], codes, scales, 64),
        lambda: cpu_codes.fp8_product(x, np.ones((2, 60, 16), np.uint8), np.ones(32, np.float32)),
        lambda: cpu.dynamic_product(x, np.ones((2, 16, 16, 4), np.uint8), np.ones(16, np.float32)),
    ):
        with pytest.raises(jax.errors.JaxRuntimeError, match="do not fit together"):
            jax.block_until_ready(call())
    with pytest.raises(ValueError, match="24 outputs and 64 inputs"):
        cpu_codes.pack_nibbles(np.ones((24, 64), np.uint8))


def test_packing_is_the_same_for_numpy_and_jax(tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(0, 16, (48, 40)).astype(np.uint8)
    packed = cpu_codes.pack_nibbles(codes)
    assert packed.shape == (3, 5, 16, 4) and packed.nbytes == codes.size // 2
    np.testing.assert_array_equal(packed, jax.jit(cpu_codes.pack_nibbles)(jnp.asarray(codes)))
    assert packed[1, 2, 3, 1] == codes[19, 17] | codes[19, 21] << 4
    lanes = cpu_codes.pack_lanes(codes)
    assert lanes.shape == (3, 40, 16) and lanes[2, 7, 5] == codes[37, 7]
