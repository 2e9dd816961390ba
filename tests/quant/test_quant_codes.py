"""The codes of each scheme, one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from server.engine.backend import KERNEL, PLAIN_CPU
from server.kernels import build
from server.quant import fp8, int4, int8, int8_decomp, int8_dynamic, nf4, nf4_dq
from server.quant.blocks import pack_halves, unpack_halves
from server.quant.two_term import SMALLEST, split
from tests.cache import CACHE
from tests.quant import definitions

HALF_LOW_STEP = 0.5 / (127 * 254)
# XLA takes numbers below 1e-38 for zero, and with them the scale of a vector below 127 of these.
FINITE = st.floats(-1e4, 1e4, width=32).map(lambda x: x if abs(x) > 1e-30 else 0.0)
MATRICES = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 5), st.integers(1, 150)), elements=FINITE
)


@settings(max_examples=50, deadline=None)
@given(MATRICES)
def test_int8_rounds_to_the_nearest_step(w: np.ndarray) -> None:
    codes, scale = int8.quantize(w)
    for row, code, step in zip(w.astype(np.float64), codes, scale, strict=True):
        assert code.dtype == np.int8 and np.abs(code.astype(int)).max(initial=0) <= 127
        assert step == pytest.approx(np.abs(row).max() / 127, rel=1e-6)
        if step == 0:
            assert not code.any()
        else:
            assert np.abs(code * float(step) - row).max() <= float(step) * 0.50001


@settings(max_examples=50, deadline=None)
@given(MATRICES)
def test_int4_rounds_to_the_nearest_step(w: np.ndarray) -> None:
    codes, scales = int4.quantize(w)
    for row, code, scale in zip(w.astype(np.float64), codes, scales, strict=True):
        for start in range(0, len(row), 128):
            block, step = row[start : start + 128], float(scale[start // 128])
            mine = code[start // 128, : len(block)].astype(int) - 8
            assert step == pytest.approx(np.abs(block).max() / 7, rel=1e-6)
            assert np.abs(mine).max() <= 7
            assert np.abs(mine * step - block).max() <= step * 0.50001


@settings(max_examples=50, deadline=None)
@given(MATRICES)
def test_nf4_takes_the_nearest_of_its_table(w: np.ndarray) -> None:
    codes, scales = nf4.quantize(w)
    for row, code, scale in zip(w.astype(np.float64), codes, scales, strict=True):
        for start in range(0, len(row), 64):
            block, size = row[start : start + 64], float(scale[start // 64])
            assert size == np.abs(block).max()
            mine = nf4.TABLE[code[start // 64, : len(block)]].astype(np.float64) * size
            nearest = np.abs(np.subtract.outer(block, nf4.TABLE * size)).min(-1)
            assert (np.abs(mine - block) <= nearest + 1e-6 * size).all()


def test_codes_are_those_of_the_definitions() -> None:
    """To the last bit, on values that do not lie on a bound between two codes."""
    w = np.random.RandomState(0).standard_normal((40, 150)).astype(np.float32)
    codes, scales = nf4.quantize(w)
    for row, code, scale in zip(w, codes, scales, strict=True):
        for start in range(0, 150, 64):
            block = row[start : start + 64]
            expected, size = definitions.nf4_codes(block)
            assert code[start // 64, : len(block)].tolist() == expected
            assert scale[start // 64] == size
    codes8, scale8 = fp8.quantize(w)
    kept = codes8.astype(np.float64) * scale8[:, None].astype(np.float64)
    assert np.array_equal(kept, definitions.stored("fp8", w))


def test_the_table_of_nf4_is_what_it_is_said_to_be() -> None:
    assert nf4.TABLE.tolist() == pytest.approx(definitions.nf4_table(), abs=2e-7)
    assert nf4.read(jnp.arange(16, dtype=jnp.uint8)).tolist() == nf4.TABLE.tolist()


def test_scales_of_scales_are_those_of_the_definition() -> None:
    assert nf4_dq.LEVELS.tolist() == pytest.approx(definitions.dq_levels(), abs=1e-7)
    scales = np.random.RandomState(0).gamma(9.0, 0.1, (90, 7)).astype(np.float32)
    ranks, spreads, mean = nf4_dq.quantize_scales(scales)
    assert ranks.dtype == np.uint8 and len(spreads) == -(-630 // 256)
    number = np.arange(630).reshape(90, 7) // 256
    kept = nf4_dq.LEVELS[ranks] * spreads[number] + mean
    assert np.array_equal(kept.astype(np.float64), definitions.dq_scales(scales))
    # Both forms read them back alike.
    weight = PLAIN_CPU["nf4-dq"].pack(np.random.RandomState(1).standard_normal((70, 200)))
    flat = np.arange(70 * 4).reshape(70, 4).T // 256
    ranks, spreads = np.asarray(weight.ranks), np.asarray(weight.spreads)
    expected = nf4_dq.LEVELS[ranks] * spreads[flat] + weight.mean
    read = np.asarray(jax.jit(lambda w: w.scales())(weight))
    np.testing.assert_allclose(read, expected, rtol=3e-7)
    levels = nf4_dq.read_levels(jnp.arange(256, dtype=jnp.uint8))
    np.testing.assert_allclose(levels, nf4_dq.LEVELS, rtol=3e-7)


def test_fp8_is_e4m3() -> None:
    """Every value it has is kept, ties go to the even fraction, and none becomes NaN."""
    values = definitions.fp8_values()
    finite = np.float32(values[np.isfinite(values)])
    codes, scale = fp8.quantize(finite[None])
    assert scale[0] == 1 and np.array_equal(codes[0].astype(np.float64), finite)
    ties = np.float32([[448.0, 17.0, 19.0, 2.0**-10, 3 * 2.0**-10, 447.99]])
    codes, _ = fp8.quantize(ties)
    assert codes[0].astype(float).tolist() == [448, 16, 20, 0, 2.0**-8, 448]


def test_two_codes_share_a_byte() -> None:
    codes = np.random.RandomState(0).randint(0, 16, (5, 3, 64)).astype(np.uint8)
    packed = pack_halves(codes)
    assert packed.nbytes == codes.size // 2
    assert np.array_equal(np.asarray(unpack_halves(jnp.asarray(packed), 64)), codes)


@settings(max_examples=200, deadline=None)
@given(arrays.arrays(np.float32, (3, 8), elements=FINITE))
def test_two_terms_are_right_to_half_a_low_step(x: np.ndarray) -> None:
    high, low, step = (np.asarray(part, np.float64) for part in split(jnp.asarray(x)))
    back = step * (high + low / 254)
    # Rows below SMALLEST share one step, by definition.
    largest = np.maximum(np.abs(x).max(-1, keepdims=True), SMALLEST)
    # Beyond the half step float32 itself rounds x / step, up to 127, at 2^-24.
    assert (np.abs(back - x) <= largest * (HALF_LOW_STEP + 4e-7)).all()
    assert np.abs(high).max() <= 127 and np.abs(low).max() <= 127


@settings(max_examples=100, deadline=None)
@given(arrays.arrays(np.float32, (3, 8), elements=FINITE))
def test_rows_are_rounded_as_defined(x: np.ndarray) -> None:
    codes, step = (np.asarray(part) for part in int8_dynamic.quantize_rows(jnp.asarray(x)))
    back = codes.astype(np.float64) * step
    np.testing.assert_allclose(back, definitions.rounded_rows(x), rtol=1e-6, atol=1e-30)


@settings(max_examples=100, deadline=None)
@given(arrays.arrays(np.float32, (3, 8), elements=st.floats(-9, 9, width=32)))
def test_outliers_are_found_by_inputs(x: np.ndarray) -> None:
    codes, step, inputs = (np.asarray(part) for part in int8_decomp.decompose(jnp.asarray(x)))
    assert np.array_equal(inputs, (np.abs(x) >= 6).any(0))
    assert not codes[:, inputs].any()
    below = np.where(np.abs(x) >= 6, 0, np.abs(x)).max(-1)
    tiny = np.finfo(np.float32).tiny  # XLA takes what is below it for 0
    np.testing.assert_allclose(step[:, 0], below / np.float32(127), rtol=1e-6, atol=tiny)


@pytest.mark.parametrize("outliers", [0, 1, 9, 96])
@pytest.mark.parametrize("rows", [1, 7, 64])
def test_decomposition_is_exact_where_outliers_are(outliers: int, rows: int) -> None:
    """Both forms, any number of outliers up to all inputs, in one row or in many."""
    random = np.random.RandomState(outliers + rows)
    w = random.standard_normal((48, 96)).astype(np.float32)
    x = random.uniform(-5.9, 5.9, (rows, 96)).astype(np.float32)
    at = random.permutation(96)[:outliers]
    x[random.randint(0, rows, outliers), at] = random.choice([-60.5, 6.0], outliers)
    expected = definitions.product("int8-decomp", x, w)
    forms = [PLAIN_CPU] if build.load(CACHE) else [PLAIN_CPU, KERNEL]
    for table in forms:
        y = np.asarray(jax.jit(lambda weight, x: weight(x))(table["int8-decomp"].pack(w), x))
        np.testing.assert_allclose(y, expected, rtol=0, atol=4e-6 * np.abs(expected).max())
    exact = definitions.product("int8", x, w)
    rough = definitions.product("int8-dynamic", x, w)
    if outliers == 9 and rows == 1:
        assert np.abs(expected - exact).max() < np.abs(rough - exact).max() / 3
