"""fp8: 8-bit floating point (e4m3fn: no infinities, largest 448), a scale per output channel.

w ~ q * scale with scale = max|w| / 448 over the inputs of an output, and q the nearest such number
to w / scale. The activation stays as it is; codes become its type inside the product.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax import lax
from jaxtyping import Array, Float, UInt8

from server.kernels import cpu, cpu_codes
from server.quant.parts import by_rows
from server.quant.weight import (
    channel_product,
    flatten,
    kernel_rows,
    random_bytes,
    spec,
    unflatten,
    whole_blocks,
)

LARGEST = np.float32(448.0)
_NAN = 0x7F  # but for the sign
_DEVIATION = 100.0  # of codes drawn evenly


def quantize(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[N, in] float32 -> codes float8_e4m3fn [N, in], scale float32 [N]. Zeros stay zero."""
    scale = np.max(np.abs(w), axis=-1) / LARGEST
    divisor = np.where(scale > 0, scale, np.float32(1.0))[:, None]
    return np.clip(w / divisor, -LARGEST, LARGEST).astype(ml_dtypes.float8_e4m3fn), scale


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Fp8:
    """Codes q and their scales."""

    q: Float[Array, "N I"]
    scale: Float[Array, " N"]
    out: tuple[int, ...] = field(metadata={"static": True})

    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "..."]:
        """(x @ q) * scale, accumulated in float32."""
        return channel_product(x, self.q, self.scale, self.out)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PackedFp8:
    """The bits of the codes in the CPU kernel's layout."""

    packed: UInt8[Array, "L I 16"]
    scale: Float[Array, " N"]
    out: tuple[int, ...] = field(metadata={"static": True})

    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "..."]:
        """The kernel's product over the flattened rows of `x`."""
        y = cpu_codes.fp8_product(kernel_rows(x, 1), self.packed, self.scale)
        return unflatten(y[:, : math.prod(self.out)], x, self.out)


@dataclass(frozen=True)
class Fp8Form:
    """For any device. CPUs write the codes anew in float32."""

    block: ClassVar[int] = 1
    scratch: ClassVar[int] = 4

    def pack(self, w: np.ndarray) -> Fp8:
        """Quantizes."""
        codes, scale = by_rows(flatten(w), quantize)
        return Fp8(codes, scale, w.shape[:-1])

    def random(self, key: jax.Array, out: tuple[int, ...], inputs: int) -> Fp8:
        """Codes drawn evenly; scales that give a standard deviation of in**-0.5."""
        count = math.prod(out)
        codes = _random_bits(key, (count, inputs))
        return Fp8(
            lax.bitcast_convert_type(codes, jnp.float8_e4m3fn), _random_scale(count, inputs), out
        )

    def partition(self, out: tuple[int, ...], rows: str | None, inputs: str | None) -> Fp8:
        """Scales follow the outputs."""
        return Fp8(spec(rows, inputs), spec(rows), out)  # type: ignore[arg-type]


@dataclass(frozen=True)
class PackedFp8Form:
    """For the CPU kernel; on one device only, so nothing is partitioned."""

    block: ClassVar[int] = 1
    scratch: ClassVar[int] = 0

    def pack(self, w: np.ndarray) -> PackedFp8:
        """Quantizes and packs."""
        codes, scale = by_rows(flatten(w), _packed)
        return PackedFp8(codes, scale, w.shape[:-1])

    def random(self, key: jax.Array, out: tuple[int, ...], inputs: int) -> PackedFp8:
        """As `Fp8Form`, straight in the kernel's layout."""
        lanes = -(-math.prod(out) // cpu.LANES)
        codes = _random_bits(key, (lanes, inputs, cpu.LANES))
        return PackedFp8(codes, _random_scale(lanes * cpu.LANES, inputs), out)

    def partition(self, out: tuple[int, ...], rows: str | None, inputs: str | None) -> PackedFp8:
        """Whole on its device."""
        return PackedFp8(spec(), spec(), out)  # type: ignore[arg-type]


def _packed(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    codes, scale = quantize(whole_blocks(w, 1))
    return cpu_codes.pack_lanes(codes.view(np.uint8)), scale


def _random_bits(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    bits = random_bytes(key, shape)
    return jnp.where(bits & jnp.uint8(_NAN) == _NAN, bits ^ jnp.uint8(1), bits)


def _random_scale(count: int, inputs: int) -> jax.Array:
    return jnp.full(count, inputs**-0.5 / _DEVIATION, jnp.float32)
