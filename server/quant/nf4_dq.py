"""NF4 with double quantization: the scales of `nf4` in 8 bits (QLoRA, section 3).

As bitsandbytes computes it: the mean of all scales of a weight is taken off; of 256 neighbouring
scales, by outputs and then by blocks, spread = max|rest|, and the rank is the code of the nearest
of 256 levels to rest / spread. scale = level * spread + mean, so 4 + 8/64 + 32/(64 * 256) = 4.127
bits a weight. Spreads are kept whole on every device: 256 scales may lie on several.

The levels are of "dynamic tree" quantization (Dettmers 2015, arXiv 1511.04561): seven decades, each
with twice as many equal steps between 0.1 and 1 as the one below.
"""

import math
from dataclasses import dataclass, field
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from server.kernels import cpu, cpu_codes
from server.quant import nf4
from server.quant.blocks import block_product, unpack_halves
from server.quant.weight import kernel_rows, random_bytes, spec, unflatten

GROUP = 256
BLOCK = nf4.BLOCK


def dynamic_levels() -> np.ndarray:
    """The 256 levels, ascending: 0, 1 and, with both signs, the middles of the steps."""
    levels = [0.0, 1.0]
    for decade in range(7):
        edges = np.linspace(0.1, 1.0, 2**decade + 1)
        middles = (edges[:-1] + edges[1:]) / 2 * 10.0 ** (decade - 6)
        levels += [*middles, *-middles]
    return np.sort(np.asarray(levels, np.float32))


LEVELS = dynamic_levels()
_BOUNDS = (LEVELS[:-1] + LEVELS[1:]) / np.float32(2)


def read_levels(ranks: UInt8[Array, "..."]) -> Float[Array, "..."]:
    """The levels to a last bit, by arithmetic: to look 256 up takes TPUs 30 times as long.

    A rank is n = 2^d + step above or below that of zero, 127: the step in the middle of decade d.
    """
    number = ranks.astype(jnp.int32) - 127
    size = jnp.abs(number).astype(jnp.float32)
    level = jnp.zeros_like(size)
    for decade in range(7):
        unit, steps = 10.0 ** (decade - 6), 2.0**decade
        middle = (size - steps + 0.5) * (0.9 * unit / steps) + 0.1 * unit
        level = jnp.where(size >= steps, middle, level)
    level = jnp.where(number == 128, 1.0, level)
    return jnp.where(number < 0, -level, level)


def quantize_scales(scales: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """float32 [N, G] -> ranks uint8 [N, G], spreads float32 [S], the mean float32 [1]."""
    mean = np.mean(scales, dtype=np.float64).astype(np.float32)
    rest = (scales - mean).reshape(-1)
    groups = np.pad(rest, (0, -rest.size % GROUP)).reshape(-1, GROUP)
    spreads = np.max(np.abs(groups), axis=-1)
    inverse = np.float32(1.0) / np.maximum(spreads, np.float32(1e-38))
    scaled = np.clip(groups * inverse[:, None], np.float32(-1.0), np.float32(1.0))
    ranks = np.searchsorted(_BOUNDS, scaled).astype(np.uint8)
    return ranks.reshape(-1)[: rest.size].reshape(scales.shape), spreads, mean.reshape(1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Nf4Dq:
    """As `Nf4`, with ranks in place of scales."""

    packed: UInt8[Array, "N P"]
    ranks: UInt8[Array, "G N"]
    spreads: Float[Array, " S"]
    mean: Float[Array, "1"]
    out: tuple[int, ...] = field(metadata={"static": True})

    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "..."]:
        """Against the weights, written anew in the type of `x`."""
        values = nf4.read(unpack_halves(self.packed, BLOCK))
        return unflatten(block_product(x, values, self.scales()), x, self.out)

    def scales(self) -> Float[Array, "G N"]:
        """What the ranks mean."""
        blocks, outputs = self.ranks.shape
        output = jnp.arange(outputs, dtype=jnp.int32)
        number = (output * blocks + jnp.arange(blocks, dtype=jnp.int32)[:, None]) // GROUP
        return read_levels(self.ranks) * jnp.asarray(self.spreads)[number] + self.mean


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PackedNf4Dq:
    """As `PackedNf4`, with ranks in place of scales."""

    packed: UInt8[Array, "L lines 16 4"]
    ranks: UInt8[Array, "L G 16"]
    spreads: Float[Array, " S"]
    mean: Float[Array, "1"]
    out: tuple[int, ...] = field(metadata={"static": True})

    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "..."]:
        """The kernel's product over the flattened rows of `x`."""
        rows = kernel_rows(x, cpu_codes.INPUTS_IN_A_LINE)
        tables = jnp.asarray(LEVELS), jnp.asarray(nf4.TABLE)
        y = cpu_codes.nf4_dq_product(
            rows, self.packed, self.ranks, self.spreads, self.mean, *tables, BLOCK
        )
        return unflatten(y[:, : math.prod(self.out)], x, self.out)


@dataclass(frozen=True)
class Nf4DqForm:
    """For any device."""

    block: ClassVar[int] = BLOCK
    scratch: ClassVar[int] = 4

    def pack(self, w: np.ndarray) -> Nf4Dq:
        """Quantizes twice."""
        once = nf4.NF4.pack(w)
        ranks, spreads, mean = quantize_scales(once.scales.T)
        return Nf4Dq(once.packed, np.ascontiguousarray(ranks.T), spreads, mean, once.out)  # type: ignore[arg-type]

    def random(self, key: jax.Array, out: tuple[int, ...], inputs: int) -> Nf4Dq:
        """Codes and ranks drawn evenly, with spreads and a mean to suit."""
        once = nf4.NF4.random(key, out, inputs)
        return Nf4Dq(once.packed, *_random_scales(key, once.scales.shape, out, inputs), out)

    def partition(self, out: tuple[int, ...], rows: str | None, inputs: str | None) -> Nf4Dq:
        """Ranks follow their blocks."""
        return Nf4Dq(spec(rows, inputs), spec(inputs, rows), spec(), spec(), out)  # type: ignore[arg-type]


@dataclass(frozen=True)
class PackedNf4DqForm:
    """For the CPU kernel; on one device only, so nothing is partitioned."""

    block: ClassVar[int] = BLOCK
    scratch: ClassVar[int] = 0

    def pack(self, w: np.ndarray) -> PackedNf4Dq:
        """Quantizes twice and packs."""
        once = nf4.PACKED_NF4.pack(w)
        lanes, blocks, _ = once.scales.shape
        outputs = math.prod(once.out)
        scales = once.scales.transpose(0, 2, 1).reshape(-1, blocks)[:outputs]
        ranks, spreads, mean = quantize_scales(scales)
        padded = np.pad(ranks, ((0, lanes * cpu.LANES - outputs), (0, 0)))
        return PackedNf4Dq(once.packed, cpu_codes.pack_lanes(padded), spreads, mean, once.out)  # type: ignore[arg-type]

    def random(self, key: jax.Array, out: tuple[int, ...], inputs: int) -> PackedNf4Dq:
        """As `Nf4DqForm`, straight in the kernel's layout."""
        once = nf4.PACKED_NF4.random(key, out, inputs)
        return PackedNf4Dq(once.packed, *_random_scales(key, once.scales.shape, out, inputs), out)

    def partition(self, out: tuple[int, ...], rows: str | None, inputs: str | None) -> PackedNf4Dq:
        """Whole on its device."""
        return PackedNf4Dq(spec(), spec(), spec(), spec(), out)  # type: ignore[arg-type]


def _random_scales(
    key: jax.Array, shape: tuple[int, ...], out: tuple[int, ...], inputs: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Scales about `nf4`'s own for random codes, a fifth of it up and down."""
    scale = nf4.CODE.scale(inputs)
    groups = -(-math.prod(out) * nf4.CODE.blocks(inputs) // GROUP)
    ranks = random_bytes(jax.random.fold_in(key, 1), shape)
    return ranks, jnp.full(groups, 0.2 * scale, jnp.float32), jnp.full(1, scale, jnp.float32)
