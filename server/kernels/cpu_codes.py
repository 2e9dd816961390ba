"""Products in C with weights of 4 and 8 bits that are decoded as they are used; see `cpu.py`."""

from typing import Any

import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

from server.kernels.cpu import LANES, Units, product

INPUTS_IN_A_LINE = 8  # of 4-bit codes


def pack_nibbles(codes: Any) -> Any:
    """4-bit codes uint8 [N, K] -> uint8 [N/16, K/8, 16, 4], numpy or JAX as given.

    N is a multiple of 16 and K of 8. Byte j of an output has input j and, above, input j + 4.
    """
    outputs, inputs = codes.shape
    if outputs % LANES or inputs % INPUTS_IN_A_LINE:
        raise ValueError(
            f"the CPU kernel cannot hold 4-bit codes of {outputs} outputs and {inputs} inputs: "
            f"multiples of {LANES} and {INPUTS_IN_A_LINE} are needed; use the plain form"
        )
    halves = codes.reshape(outputs // LANES, LANES, inputs // INPUTS_IN_A_LINE, 2, 4)
    both = halves[..., 0, :] | (halves[..., 1, :] << np.uint8(4))
    return both.transpose(0, 2, 1, 3)  # [N/16, 16, K/8, 4] -> [N/16, K/8, 16, 4]


def pack_lanes(values: Any) -> Any:
    """[N, X] -> [N/16, X, 16]: bytes of codes, or scales of blocks. N is a multiple of 16."""
    return values.reshape(-1, LANES, values.shape[1]).transpose(0, 2, 1)


def nf4_product(
    x: Float[Array, "M K"],
    codes: UInt8[Array, "blocks lines 16 4"],
    scales: Float32[Array, "blocks groups 16"],
    table: Float32[Array, "16"],
    block: int,
) -> Float32[Array, "M N"]:
    """x @ (table[codes] * scale).T; a scale for `block` inputs."""
    units = Units(2, groups=scales.shape[1])
    return product("nf4_product", units, x, codes, scales, table, block=np.float32(block))


def nf4_dq_product(
    x: Float[Array, "M K"],
    codes: UInt8[Array, "blocks lines 16 4"],
    ranks: UInt8[Array, "blocks groups 16"],
    spreads: Float32[Array, " S"],
    mean: Float32[Array, "1"],
    levels: Float32[Array, "256"],
    table: Float32[Array, "16"],
    block: int,
) -> Float32[Array, "M N"]:
    """As `nf4_product` with scale = levels[rank] * spread + mean; one spread for 256 ranks.

    Scale g of output n, of G, has the spread number (n * G + g) // 256.
    """
    rest = (ranks, spreads, mean, levels, table)
    units = Units(2, groups=ranks.shape[1])
    return product("nf4_dq_product", units, x, codes, *rest, block=np.float32(block))


def int4_product(
    x: Float[Array, "M K"],
    codes: UInt8[Array, "blocks lines 16 4"],
    scales: Float32[Array, "blocks groups 16"],
    block: int,
) -> Float32[Array, "M N"]:
    """x @ ((codes - 8) * scale).T with x in two int8 terms; a scale for `block` inputs."""
    units = Units(2, groups=scales.shape[1])
    return product("int4_product", units, x, codes, scales, block=np.float32(block))


def fp8_product(
    x: Float[Array, "M K"], codes: UInt8[Array, "blocks K 16"], scale: Float32[Array, " N"]
) -> Float32[Array, "M N"]:
    """(x @ w.T) * scale; the codes are the bits of float8_e4m3fn, none of them NaN."""
    return product("fp8_product", Units(inputs=1), x, codes, scale)
