"""int8 weights and int8 activations: LLM.int8() without its decomposition.

Weights are those of `int8`. A row of the activation is rounded to q = round(x / s) with
s = max|x| / 127 over the whole row, also where devices share its inputs; then (q @ w_q) * s * scale
with the sum in int32. Large values of a row cost its small ones their accuracy: a few per cent of
perplexity.
"""

import math
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int8, UInt8

from server.kernels import cpu
from server.quant.two_term import MIN_ROWS, SMALLEST
from server.quant.weight import kernel_rows, unflatten


def quantize_rows(x: Float[Array, "M I"]) -> tuple[Int8[Array, "M I"], Float[Array, "M 1"]]:
    """Codes and step. A row with a value that is not finite gets a step of NaN."""
    largest = jnp.max(jnp.abs(x), axis=-1, keepdims=True)
    step = jnp.where(jnp.isfinite(largest), largest / 127.0, jnp.nan)
    codes = jnp.round(x * (127.0 / jnp.maximum(largest, SMALLEST)))
    return codes.astype(jnp.int8), step


def dynamic_product(
    x: Float[Array, "M I"], q: Int8[Array, "N I"], scale: Float[Array, " N"]
) -> Float[Array, "M N"]:
    """(rounded x @ q.T) * scale, float32."""
    count = x.shape[0]
    rows = jnp.pad(x.astype(jnp.float32), ((0, max(0, MIN_ROWS - count)), (0, 0)))
    codes, step = quantize_rows(rows)
    sums = jax.lax.dot_general(codes, q, (((1,), (1,)), ((), ())), preferred_element_type=jnp.int32)
    return (sums.astype(jnp.float32) * step * scale)[:count]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DynamicInt8:
    """Codes q and their scales."""

    q: Int8[Array, "N I"]
    scale: Float[Array, " N"]
    out: tuple[int, ...] = field(metadata={"static": True})

    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "..."]:
        """int8 x int8 -> int32."""
        y = dynamic_product(x.reshape(-1, x.shape[-1]), self.q, self.scale)
        return unflatten(y, x, self.out)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PackedDynamicInt8:
    """The same for the CPU kernel, which skips idle rows."""

    packed: UInt8[Array, "..."]
    scale: Float[Array, " N"]
    out: tuple[int, ...] = field(metadata={"static": True})

    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "..."]:
        """The kernel's product over the flattened rows of `x`."""
        y = cpu.dynamic_product(kernel_rows(x), self.packed, self.scale)
        return unflatten(y[:, : math.prod(self.out)], x, self.out)
