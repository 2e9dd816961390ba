"""bf16: bfloat16 weights and, in products, activations rounded to bfloat16; sums in float32.

Both are rounded to nearest, ties to even. Accelerators compute in bfloat16 anyway, so this is for
CPUs, which compute in float32: half the bytes, and with AVX512-BF16 twice the multiply-adds.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax import lax
from jaxtyping import Array, BFloat16, Float

from server.kernels import cpu
from server.quant.parts import by_rows
from server.quant.weight import flatten, kernel_rows, spec, unflatten, whole_blocks

INPUTS_AT_ONCE = 2  # that the CPU kernel takes
FEWEST_ROWS = 2  # XLA multiplies one row in float32 and writes all weights out for it


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Bf16:
    """w [outputs, in] in bfloat16; `out` are the output axes."""

    w: BFloat16[Array, "N I"]
    out: tuple[int, ...] = field(metadata={"static": True})

    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "..."]:
        """Rounds x, accumulates in float32, returns the type of `x`."""
        rows = x.reshape(-1, x.shape[-1]).astype(jnp.bfloat16)
        count = rows.shape[0]
        rows = jnp.pad(rows, ((0, max(0, FEWEST_ROWS - count)), (0, 0)))
        contract = (((1,), (1,)), ((), ()))
        y = lax.dot_general(rows, self.w, contract, preferred_element_type=jnp.float32)
        return unflatten(y[:count], x, self.out)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PackedBf16:
    """bfloat16 weights in the CPU kernel's layout; `out` are the output axes."""

    packed: BFloat16[Array, "L pairs 16 2"]
    out: tuple[int, ...] = field(metadata={"static": True})

    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "..."]:
        """The kernel's product over the flattened rows of `x`."""
        rows = kernel_rows(x, INPUTS_AT_ONCE)
        y = cpu.bf16_product(rows, self.packed, math.prod(self.out))
        return unflatten(y, x, self.out)


@dataclass(frozen=True)
class Bf16Form:
    """For CPUs without AVX512-BF16, or several devices of one. Where XLA has no product of bfloat16
    it writes the weights anew in float32."""

    block: ClassVar[int] = 1
    scratch: ClassVar[int] = 4

    def pack(self, w: np.ndarray) -> Bf16:
        """A cast."""
        return Bf16(flatten(w).astype(ml_dtypes.bfloat16), w.shape[:-1])  # type: ignore[arg-type]

    def random(self, key: jax.Array, out: tuple[int, ...], inputs: int) -> Bf16:
        """Normal values of standard deviation in**-0.5."""
        return Bf16(_random(key, (math.prod(out), inputs), inputs), out)

    def partition(self, out: tuple[int, ...], rows: str | None, inputs: str | None) -> Bf16:
        """Both axes."""
        return Bf16(spec(rows, inputs), out)  # type: ignore[arg-type]


@dataclass(frozen=True)
class PackedBf16Form:
    """For the CPU kernel; on one device only, so nothing is partitioned."""

    block: ClassVar[int] = 1
    scratch: ClassVar[int] = 0

    def pack(self, w: np.ndarray) -> PackedBf16:
        """[*out, in] -> the kernel's layout."""
        return PackedBf16(by_rows(flatten(w), _packed), w.shape[:-1])

    def random(self, key: jax.Array, out: tuple[int, ...], inputs: int) -> PackedBf16:
        """Normal values of standard deviation in**-0.5."""
        rows = jax.ShapeDtypeStruct((math.prod(out), inputs), jnp.bfloat16)
        layout = jax.eval_shape(lambda w: cpu.pack_bf16(whole_blocks(w, INPUTS_AT_ONCE)), rows)
        return PackedBf16(_random(key, layout.shape, inputs), out)

    def partition(self, out: tuple[int, ...], rows: str | None, inputs: str | None) -> PackedBf16:
        """Whole on its device."""
        return PackedBf16(spec(), out)  # type: ignore[arg-type]


def _packed(w: np.ndarray) -> np.ndarray:
    return cpu.pack_bf16(whole_blocks(w, INPUTS_AT_ONCE).astype(ml_dtypes.bfloat16))


def _random(key: jax.Array, shape: tuple[int, ...], inputs: int) -> jax.Array:
    return jax.random.normal(key, shape, jnp.bfloat16) * jnp.asarray(inputs**-0.5, jnp.bfloat16)
