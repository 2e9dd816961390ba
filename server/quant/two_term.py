"""Activations as two int8 terms, in plain XLA: what the CPU kernel computes, and its twin.

x = step * (high + low / 254) with step = max|x| / 127 per row, both terms rounded half to even:
about 15 bits of the activation, at the speed of int8 arithmetic.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int8

LOW_STEP = 254.0  # half a step of the high term is 127 of the low one
SMALLEST = 1e-30  # rows below it share one step, so that 127 / max|x| stays finite
MIN_ROWS = 8  # XLA's int8 product of fewer rows is 20 times slower on CPU than of 8


def split(
    x: Float[Array, "M I"],
) -> tuple[Int8[Array, "M I"], Int8[Array, "M I"], Float[Array, "M 1"]]:
    """High, low, step. A row with a value that is not finite gets a step of NaN."""
    largest = jnp.max(jnp.abs(x), axis=-1, keepdims=True)
    step = jnp.where(jnp.isfinite(largest), largest / 127.0, jnp.nan)
    scaled = x * (127.0 / jnp.maximum(largest, SMALLEST))
    high = jnp.round(scaled)
    low = jnp.round((scaled - high) * LOW_STEP)
    return high.astype(jnp.int8), low.astype(jnp.int8), step


def two_term_product(
    x: Float[Array, "M I"], q: Int8[Array, "N I"], scale: Float[Array, " N"]
) -> Float[Array, "M N"]:
    """(x @ q.T) * scale, float32. Both terms are rows of one product: the weights are read once."""
    rows = x.astype(jnp.float32)
    count = rows.shape[0]
    high, low, step = split(jnp.pad(rows, ((0, max(0, MIN_ROWS // 2 - count)), (0, 0))))
    y = jax.lax.dot_general(
        jnp.concatenate([high, low]),
        q,
        (((1,), (1,)), ((), ())),
        preferred_element_type=jnp.int32,
    ).astype(jnp.float32)
    y_high, y_low = jnp.split(y, 2)
    return ((y_high * step + y_low * (step / LOW_STEP)) * scale)[:count]
