"""NF4: codes of 16 quantiles of a normal distribution, a scale for each 64 weights.

The definition is QLoRA's (Dettmers et al. 2023, arXiv 2305.14314) as bitsandbytes computes it: of
64 neighbours in the flattened weight scale = max|w|, and the code is the table's nearest to
w / scale.
Blocks begin anew with each output; where the inputs are a multiple of 64 that is the same.
"""

import math
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from server.kernels import cpu_codes
from server.quant.blocks import (
    BlockCode,
    BlockForm,
    PackedBlockForm,
    block_product,
    in_blocks,
    unpack_halves,
)
from server.quant.weight import kernel_rows, unflatten

BLOCK = 64
# Quantiles at equal steps of probability, 7 below zero and 8 above, over the largest of them;
# a test derives them.
TABLE = np.asarray(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ],
    np.float32,
)
BOUNDS = (TABLE[:-1] + TABLE[1:]) / np.float32(2)  # a value on a bound takes the lower code


def quantize(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[N, in] float32 -> codes uint8 [N, G, 64], scales float32 [N, G]. Zeros stay zero."""
    blocks = in_blocks(w, BLOCK)
    scales = np.max(np.abs(blocks), axis=-1)
    inverse = np.float32(1.0) / np.maximum(scales, np.float32(1e-38))
    scaled = np.clip(blocks * inverse[..., None], np.float32(-1.0), np.float32(1.0))
    return np.searchsorted(BOUNDS, scaled).astype(np.uint8), scales


def read(codes: UInt8[Array, "..."]) -> Float[Array, "..."]:
    """The table's values, chosen bit by bit: XLA does that in vectors, but looks up one by one."""
    values = [jnp.float32(value) for value in TABLE]
    for bit in range(4):
        chosen = (codes & jnp.uint8(1 << bit)) != 0
        pairs = zip(values[::2], values[1::2], strict=True)
        values = [jnp.where(chosen, odd, even) for even, odd in pairs]
    return values[0]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Nf4:
    """Stored as in `BlockForm`."""

    packed: UInt8[Array, "N P"]
    scales: Float[Array, "G N"]
    out: tuple[int, ...] = field(metadata={"static": True})

    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "..."]:
        """Against the weights, written anew in the type of `x`."""
        values = read(unpack_halves(self.packed, BLOCK))
        return unflatten(block_product(x, values, self.scales), x, self.out)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PackedNf4:
    """Stored as the CPU kernel wants it."""

    packed: UInt8[Array, "L lines 16 4"]
    scales: Float[Array, "L G 16"]
    out: tuple[int, ...] = field(metadata={"static": True})

    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "..."]:
        """The kernel's product over the flattened rows of `x`."""
        rows = kernel_rows(x, cpu_codes.INPUTS_IN_A_LINE)
        y = cpu_codes.nf4_product(rows, self.packed, self.scales, jnp.asarray(TABLE), BLOCK)
        return unflatten(y[:, : math.prod(self.out)], x, self.out)


CODE = BlockCode(BLOCK, quantize, float(np.std(TABLE)))
NF4 = BlockForm(Nf4, CODE)
PACKED_NF4 = PackedBlockForm(PackedNf4, CODE)
