"""int8 weights, one scale per output channel, at weight-only accuracy on every backend.

w ~ q * scale with q = round(w / scale), scale = max|w| / 127 over the inputs of an output channel.
Scales go on outputs: (x @ q) * scale. Scaling the weight first would materialise it in bf16 on GPU.

Three forms of the same storage idea:
- `Int8`: x in the compute type against q cast inside the product. For accelerators.
- `TwoTermInt8`: for CPUs, where a cast in the loop is 20 times slower than int8 x int8. The
  activation is split into two int8 terms, x = s * (hi + lo / 254), s = max|x| / 127 per row, which
  keeps about 15 bits of it. One term alone is `int8-dynamic`.
- `PackedInt8`: the same arithmetic in the CPU kernel.
"""

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, UInt8
from jaxtyping import Int8 as Int8Array

from server.kernels import cpu
from server.quant.parts import by_rows
from server.quant.two_term import two_term_product
from server.quant.weight import (
    channel_product,
    flatten,
    kernel_rows,
    random_bytes,
    spec,
    unflatten,
    whole_blocks,
)


def quantize(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[N, in] float -> codes int8 [N, in], scale float32 [N]. A zero channel stays zero."""
    w = np.asarray(w, np.float32)
    scale = np.max(np.abs(w), axis=-1) / np.float32(127.0)
    divisor = np.where(scale > 0, scale, np.float32(1.0))[:, None]
    return np.rint(w / divisor).astype(np.int8), scale


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Int8:
    """Codes q and their scales; the activation stays in its own type."""

    q: Int8Array[Array, "N I"]
    scale: Float[Array, " N"]
    out: tuple[int, ...] = field(metadata={"static": True})

    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "..."]:
        """(x @ q) * scale, accumulated in float32."""
        return channel_product(x, self.q, self.scale, self.out)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TwoTermInt8:
    """Codes q and their scales; the activation in two int8 terms."""

    q: Int8Array[Array, "N I"]
    scale: Float[Array, " N"]
    out: tuple[int, ...] = field(metadata={"static": True})

    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "..."]:
        """Two int8 terms for each row of `x`."""
        y = two_term_product(x.reshape(-1, x.shape[-1]), self.q, self.scale)
        return unflatten(y, x, self.out)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PackedInt8:
    """Codes in the CPU kernel's layout, scale float32 of all outputs; `out` are the output axes."""

    packed: UInt8[Array, "..."]
    scale: Float[Array, " N"]
    out: tuple[int, ...] = field(metadata={"static": True})

    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "..."]:
        """The kernel's product over the flattened rows of `x`."""
        y = cpu.int8_product(kernel_rows(x), self.packed, self.scale, math.prod(self.out))
        return unflatten(y, x, self.out)


@dataclass(frozen=True)
class Int8Form:
    """Codes as they are, in a weight of fields q, scale and out as `Int8`."""

    weight: type[Any]
    block: ClassVar[int] = 1
    scratch: ClassVar[int] = 0

    def pack(self, w: np.ndarray) -> Any:
        """Quantizes."""
        return self.weight(*by_rows(flatten(w), quantize), w.shape[:-1])

    def random(self, key: jax.Array, out: tuple[int, ...], inputs: int) -> Any:
        """Uniform codes; scales that give a standard deviation of in**-0.5."""
        count = math.prod(out)
        return self.weight(_random_codes(key, (count, inputs)), _random_scale(count, inputs), out)

    def partition(self, out: tuple[int, ...], rows: str | None, inputs: str | None) -> Any:
        """Scales follow the outputs."""
        return self.weight(spec(rows, inputs), spec(rows), out)


@dataclass(frozen=True)
class PackedInt8Form:
    """For the CPU kernel, in a weight of fields packed, scale and out as `PackedInt8`; on one
    device only, so nothing is partitioned."""

    weight: type[Any] = PackedInt8
    block: ClassVar[int] = 1
    scratch: ClassVar[int] = 0

    def pack(self, w: np.ndarray) -> Any:
        """Quantizes and packs."""
        return self.weight(*by_rows(flatten(w), _packed), w.shape[:-1])

    def random(self, key: jax.Array, out: tuple[int, ...], inputs: int) -> Any:
        """Uniform codes, straight in the kernel's layout."""
        rows = jax.ShapeDtypeStruct((math.prod(out), inputs), jnp.int8)
        packed = jax.eval_shape(lambda w: cpu.pack_int8(whole_blocks(w)), rows)
        codes = random_bytes(key, packed.shape)
        count = packed.shape[0] * cpu.LANES
        return self.weight(codes, _random_scale(count, inputs), out)

    def partition(self, out: tuple[int, ...], rows: str | None, inputs: str | None) -> Any:
        """Whole on its device."""
        return self.weight(spec(), spec(), out)


def _packed(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    codes, scale = quantize(whole_blocks(w))
    return cpu.pack_int8(codes), scale


def _random_codes(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return lax.bitcast_convert_type(random_bytes(key, shape), jnp.int8)


def _random_scale(count: int, inputs: int) -> jax.Array:
    # Uniform bytes have a standard deviation of 74.
    return jnp.full(count, inputs**-0.5 / 74.0, jnp.float32)
