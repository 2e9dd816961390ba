"""LLM.int8(): int8 weights and activations, outliers apart (Dettmers et al. 2022, 2208.07339).

Inputs in which any row of the batch reaches 6.0 in magnitude are multiplied as they are with the
dequantized weights; the rest as in `int8-dynamic`, with row scales from what stays below 6.0. So a
row's result can depend on the rows beside it, as in the original. Shapes do not depend on how many
outliers there are: the plain form runs a second product over all inputs, zero but for the outliers.
"""

import math
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int8, UInt8

from server.kernels import cpu
from server.quant.two_term import MIN_ROWS, SMALLEST
from server.quant.weight import kernel_rows, unflatten

THRESHOLD = 6.0


def decompose(
    x: Float[Array, "M I"],
) -> tuple[Int8[Array, "M I"], Float[Array, "M 1"], Bool[Array, " I"]]:
    """Codes, zero in inputs with outliers; the step of each row; which inputs have outliers."""
    over = jnp.abs(x) >= THRESHOLD
    inputs = jnp.any(over, axis=0)
    below = jnp.where(over, jnp.zeros_like(x), x)
    largest = jnp.max(jnp.abs(below), axis=-1, keepdims=True)
    codes = jnp.round(below * (127.0 / jnp.maximum(largest, SMALLEST)))
    return jnp.where(inputs, 0.0, codes).astype(jnp.int8), largest / 127.0, inputs


def decomp_product(
    x: Float[Array, "M I"], q: Int8[Array, "N I"], scale: Float[Array, " N"]
) -> Float[Array, "M N"]:
    """float32. The outliers' product runs in the type of `x`, and not at all without outliers."""
    count = x.shape[0]
    x = jnp.pad(x, ((0, max(0, MIN_ROWS - count)), (0, 0)))
    codes, step, inputs = decompose(x.astype(jnp.float32))
    contract = (((1,), (1,)), ((), ()))
    sums = jax.lax.dot_general(codes, q, contract, preferred_element_type=jnp.int32)

    def outliers(x: jax.Array) -> jax.Array:
        kept = jnp.where(inputs, x, jnp.zeros_like(x))
        return jax.lax.dot_general(
            kept, q.astype(x.dtype), contract, preferred_element_type=jnp.float32
        )

    shape = jax.ShapeDtypeStruct(sums.shape, jnp.float32)
    none = lambda x: jnp.zeros(shape.shape, shape.dtype)  # noqa: E731
    exact = jax.lax.cond(jnp.any(inputs), outliers, none, x)
    return ((sums.astype(jnp.float32) * step + exact) * scale)[:count]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DecompInt8:
    """Codes q and their scales."""

    q: Int8[Array, "N I"]
    scale: Float[Array, " N"]
    out: tuple[int, ...] = field(metadata={"static": True})

    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "..."]:
        """Both products over all rows of `x` together."""
        y = decomp_product(x.reshape(-1, x.shape[-1]), self.q, self.scale)
        return unflatten(y, x, self.out)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PackedDecompInt8:
    """The same for the CPU kernel, which reads weights again for outliers alone."""

    packed: UInt8[Array, "..."]
    scale: Float[Array, " N"]
    out: tuple[int, ...] = field(metadata={"static": True})

    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "..."]:
        """The kernel's product over the flattened rows of `x`."""
        y = cpu.decomp_product(kernel_rows(x), self.packed, self.scale, THRESHOLD)
        return unflatten(y[:, : math.prod(self.out)], x, self.out)
