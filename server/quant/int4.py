"""int4: symmetric 4-bit integers, a scale for each 128 inputs of an output.

w ~ q * scale with q = round(w / scale) from -7 to 7 and scale = max|w| / 7 of the block; q + 8 is
stored. Where the inputs are not whole blocks the last one of each output is shorter.
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

BLOCK = 128
LARGEST = 7
ZERO = 8


def quantize(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[N, in] float32 -> codes uint8 [N, G, 128], scales float32 [N, G]. Zeros stay zero."""
    blocks = in_blocks(w, BLOCK)
    scales = np.max(np.abs(blocks), axis=-1) / np.float32(LARGEST)
    divisors = np.where(scales > 0, scales, np.float32(1.0))[..., None]
    return (np.rint(blocks / divisors) + ZERO).astype(np.uint8), scales


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Int4:
    """Stored as in `BlockForm`."""

    packed: UInt8[Array, "N P"]
    scales: Float[Array, "G N"]
    out: tuple[int, ...] = field(metadata={"static": True})

    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "..."]:
        """Against the weights, written anew in the type of `x`."""
        values = unpack_halves(self.packed, BLOCK).astype(jnp.int8) - jnp.int8(ZERO)
        return unflatten(block_product(x, values, self.scales), x, self.out)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PackedInt4:
    """Stored as the CPU kernel wants it, which takes the activation in two int8 terms."""

    packed: UInt8[Array, "L lines 16 4"]
    scales: Float[Array, "L G 16"]
    out: tuple[int, ...] = field(metadata={"static": True})

    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "..."]:
        """The kernel's product over the flattened rows of `x`."""
        rows = kernel_rows(x, cpu_codes.INPUTS_IN_A_LINE)
        y = cpu_codes.int4_product(rows, self.packed, self.scales, BLOCK)
        return unflatten(y[:, : math.prod(self.out)], x, self.out)


CODE = BlockCode(BLOCK, quantize, deviation=4.61)  # of whole numbers drawn evenly from -8 to 7
INT4 = BlockForm(Int4, CODE)
PACKED_INT4 = PackedBlockForm(PackedInt4, CODE)
