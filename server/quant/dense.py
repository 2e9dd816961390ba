"""Weights kept in floating point."""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from server.kernels import cpu
from server.quant.parts import by_rows
from server.quant.weight import flatten, kernel_rows, spec, unflatten, whole_blocks


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Dense:
    """w [outputs, in] in the compute type; `out` are the output axes."""

    w: Float[Array, "N I"]
    out: tuple[int, ...] = field(metadata={"static": True})

    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "..."]:
        """Accumulates in float32, returns the type of `x`."""
        contract = (((x.ndim - 1,), (1,)), ((), ()))
        y = lax.dot_general(x, self.w, contract, preferred_element_type=jnp.float32)
        return unflatten(y, x, self.out)


@dataclass(frozen=True)
class DenseForm:
    """Plain storage in `dtype`."""

    dtype: Any
    block: ClassVar[int] = 1
    scratch: ClassVar[int] = 0

    def pack(self, w: np.ndarray) -> Dense:
        """A cast."""
        return Dense(flatten(w).astype(self.dtype), w.shape[:-1])  # type: ignore[arg-type]

    def random(self, key: jax.Array, out: tuple[int, ...], inputs: int) -> Dense:
        """Normal values of standard deviation in**-0.5."""
        values = jax.random.normal(key, (math.prod(out), inputs), self.dtype)
        return Dense(values * jnp.asarray(inputs**-0.5, self.dtype), out)

    def partition(self, out: tuple[int, ...], rows: str | None, inputs: str | None) -> Dense:
        """Both axes."""
        return Dense(spec(rows, inputs), out)  # type: ignore[arg-type]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PackedDense:
    """float32 weights in the CPU kernel's layout; `out` are the output axes."""

    packed: Float[Array, "..."]
    out: tuple[int, ...] = field(metadata={"static": True})

    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "..."]:
        """The kernel's product over the flattened rows of `x`."""
        y = cpu.f32_product(kernel_rows(x), self.packed, math.prod(self.out))
        return unflatten(y, x, self.out)


@dataclass(frozen=True)
class PackedDenseForm:
    """float32 for the CPU kernel; on one device only, so nothing is partitioned."""

    block: ClassVar[int] = 1
    scratch: ClassVar[int] = 0

    def pack(self, w: np.ndarray) -> PackedDense:
        """[*out, in] -> the kernel's layout."""
        packed = by_rows(flatten(w), lambda part: cpu.pack_f32(whole_blocks(part)))
        return PackedDense(packed, w.shape[:-1])

    def random(self, key: jax.Array, out: tuple[int, ...], inputs: int) -> PackedDense:
        """Normal values of standard deviation in**-0.5."""
        rows = jax.ShapeDtypeStruct((math.prod(out), inputs), jnp.float32)
        shape = jax.eval_shape(lambda w: cpu.pack_f32(whole_blocks(w)), rows).shape
        return PackedDense(jax.random.normal(key, shape, jnp.float32) * inputs**-0.5, out)

    def partition(self, out: tuple[int, ...], rows: str | None, inputs: str | None) -> PackedDense:
        """Whole on its device."""
        return PackedDense(spec(), out)  # type: ignore[arg-type]
