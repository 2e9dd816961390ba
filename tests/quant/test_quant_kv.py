"""How keys and values are stored."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from server.quant import kv

# XLA takes numbers below 1e-38 for zero, and with them the scale of a vector below 127 of these.
FINITE = st.floats(-1e4, 1e4, width=32).map(lambda x: x if abs(x) > 1e-30 else 0.0)


@settings(max_examples=200, deadline=None)
@given(arrays.arrays(np.float32, (2, 3, 8), elements=FINITE))
def test_codes_round_to_the_nearest_step(x: np.ndarray) -> None:
    codes, scale = (np.asarray(part) for part in kv.quantize(jnp.asarray(x)))
    assert codes.dtype == np.int8 and scale.shape == (2, 3) and np.isfinite(scale).all()
    back = codes.astype(np.float64) * scale[..., None]
    assert (np.abs(back - x) <= 0.50001 * scale[..., None]).all()


def test_rounding_is_not_truncation() -> None:
    """Truncated codes lie towards zero and lose half a step on average."""
    x = np.random.RandomState(0).uniform(0.1, 1.0, (1000, 64)).astype(np.float32)
    codes, scale = (np.asarray(part) for part in kv.quantize(jnp.asarray(x)))
    assert abs((x / scale[:, None] - codes).mean()) < 0.01


def test_a_zero_vector_stays_zero_and_finite() -> None:
    codes, scale = kv.quantize(jnp.zeros((4, 8)))
    assert not np.asarray(codes).any() and not np.asarray(scale).any()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, None], ids=str)
def test_writes_go_where_they_are_told_and_nowhere_else(dtype: jnp.dtype | None) -> None:
    """Rows to slots, tokens to positions; an index or slot out of range writes nothing."""
    slots, heads, length, size = 3, 2, 5, 4
    cache = kv.empty(slots, heads, length, size, dtype)
    random = np.random.RandomState(0)
    k, v = (jnp.asarray(random.standard_normal((3, 2, heads, size)), jnp.float32) for _ in "kv")
    new = kv.encode(cache, k, v)
    index = jnp.asarray([[4, 0], [2, length], [1, 3]], jnp.int32)
    written = kv.write(cache, new, jnp.asarray([2, 0, slots], jnp.int32), index)
    places = {(2, 4): (0, 0), (2, 0): (0, 1), (0, 2): (1, 0)}
    for name in vars(cache):
        before, after = (np.asarray(getattr(c, name)) for c in (cache, written))
        fresh = np.asarray(getattr(new, name))
        for slot in range(slots):
            for position in range(length):
                row = places.get((slot, position))
                expected = before[slot, :, position] if row is None else fresh[row[0], :, row[1]]
                assert np.array_equal(after[slot, :, position], expected)


@pytest.mark.parametrize("dtype", [jnp.float32, None], ids=str)
def test_reads_are_the_slots_asked_for(dtype: jnp.dtype | None) -> None:
    cache = kv.empty(4, 2, 6, 4, dtype)
    k = jnp.arange(4 * 6 * 2 * 4, dtype=jnp.float32).reshape(4, 6, 2, 4)
    everywhere = jnp.tile(jnp.arange(6, dtype=jnp.int32), (4, 1))
    cache = kv.write(cache, kv.encode(cache, k, k), jnp.arange(4, dtype=jnp.int32), everywhere)
    some = kv.read(cache, jnp.asarray([3, 1], jnp.int32), 3)
    for name in vars(cache):
        whole, part = (np.asarray(getattr(c, name)) for c in (cache, some))
        assert np.array_equal(part, whole[[3, 1], :, :3])
    assert kv.read(cache, None, 6).k.shape == cache.k.shape


@pytest.mark.parametrize("dtype", [jnp.float32, None], ids=str)
def test_an_empty_cache_can_be_donated(dtype: jnp.dtype | None) -> None:
    cache = kv.empty(2, 2, 4, 8, dtype)
    jax.jit(lambda cache: cache, donate_argnums=0)(cache)
