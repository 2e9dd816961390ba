"""Weights of 4-bit codes with a scale for each block of inputs: how they are stored.

A block never spans two outputs, nor two devices. Where the inputs are not whole blocks the last one
of each output is shorter; the plain form stores it whole, with codes that no input meets.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, UInt8

from server.kernels import cpu, cpu_codes
from server.quant.parts import by_rows
from server.quant.weight import flatten, random_bytes, spec, whole_blocks


@dataclass(frozen=True)
class BlockCode:
    """A scheme: `block` inputs share a scale.

    quantize: float32 [N, in] -> codes uint8 [N, G, block], scales float32 [N, G]. deviation: the
    standard deviation of what codes drawn evenly mean, with a scale of 1.
    """

    block: int
    quantize: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    deviation: float

    def blocks(self, inputs: int) -> int:
        """Of one output."""
        return -(-inputs // self.block)

    def scale(self, inputs: int) -> float:
        """Gives codes drawn evenly a standard deviation of in**-0.5."""
        return inputs**-0.5 / self.deviation


@dataclass(frozen=True)
class BlockForm:
    """For any device: two codes a byte, in a weight of fields packed, scales and out.

    packed uint8 [N, G * block / 2]; scales float32 [G, N], which tiles well on TPU.
    """

    weight: type[Any]
    code: BlockCode
    scratch: ClassVar[int] = 4

    @property
    def block(self) -> int:
        """See `Form`."""
        return self.code.block

    def pack(self, w: np.ndarray) -> Any:
        """Quantizes."""
        packed, scales = by_rows(flatten(w), self._halves)
        return self.weight(packed, np.ascontiguousarray(scales.T), w.shape[:-1])

    def random(self, key: jax.Array, out: tuple[int, ...], inputs: int) -> Any:
        """Codes drawn evenly, with scales to suit."""
        count, blocks = math.prod(out), self.code.blocks(inputs)
        packed = random_bytes(key, (count, blocks * self.block // 2))
        scales = jnp.full((blocks, count), self.code.scale(inputs), jnp.float32)
        return self.weight(packed, scales, out)

    def partition(self, out: tuple[int, ...], rows: str | None, inputs: str | None) -> Any:
        """Scales follow their blocks."""
        return self.weight(spec(rows, inputs), spec(inputs, rows), out)

    def _halves(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        codes, scales = self.code.quantize(w)
        return pack_halves(codes), scales


@dataclass(frozen=True)
class PackedBlockForm:
    """For the CPU kernel, in its layout; on one device only, so nothing is partitioned."""

    weight: type[Any]
    code: BlockCode
    scratch: ClassVar[int] = 0

    @property
    def block(self) -> int:
        """See `Form`."""
        return self.code.block

    def pack(self, w: np.ndarray) -> Any:
        """Quantizes and packs."""
        return self.weight(*by_rows(flatten(w), self._packed), w.shape[:-1])

    def random(self, key: jax.Array, out: tuple[int, ...], inputs: int) -> Any:
        """Codes drawn evenly, with scales to suit."""
        lanes = -(-math.prod(out) // cpu.LANES)
        lines = -(-inputs // cpu_codes.INPUTS_IN_A_LINE)
        packed = random_bytes(key, (lanes, lines, cpu.LANES, 4))
        shape = (lanes, self.code.blocks(inputs), cpu.LANES)
        return self.weight(packed, jnp.full(shape, self.code.scale(inputs), jnp.float32), out)

    def partition(self, out: tuple[int, ...], rows: str | None, inputs: str | None) -> Any:
        """Whole on its device."""
        return self.weight(spec(), spec(), out)

    def _packed(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        codes, scales = self.code.quantize(whole_blocks(w, 1))
        return kernel_codes(codes, w.shape[1]), cpu_codes.pack_lanes(scales)


def in_blocks(w: np.ndarray, block: int) -> np.ndarray:
    """[N, in] -> [N, G, block], with zeros behind the inputs."""
    padded = np.pad(w, ((0, 0), (0, -w.shape[1] % block)))
    return padded.reshape(w.shape[0], -1, block)


def kernel_codes(codes: np.ndarray, inputs: int) -> np.ndarray:
    """Codes [N, G, block] of so many inputs -> the CPU kernel's layout."""
    line = cpu_codes.INPUTS_IN_A_LINE
    return cpu_codes.pack_nibbles(codes.reshape(len(codes), -1)[:, : -(-inputs // line) * line])


def pack_halves(codes: np.ndarray) -> np.ndarray:
    """[N, G, block] -> [N, G * block / 2]: the first half of a block below, the second above.

    So both halves come out side by side, and no lane has to change its place.
    """
    low, high = np.split(codes, 2, axis=-1)
    return (low | high << np.uint8(4)).reshape(len(codes), -1)


def unpack_halves(packed: UInt8[Array, "N P"], block: int) -> UInt8[Array, "N G B"]:
    """The inverse, on the device."""
    halves = packed.reshape(packed.shape[0], -1, block // 2)
    return jnp.concatenate([halves & jnp.uint8(15), halves >> jnp.uint8(4)], axis=-1)


def block_product(
    x: Float[Array, "... I"],
    values: Float[Array, "N G B"],
    scales: Float[Array, "G N"],
) -> Float[Array, "M N"]:
    """x @ (values * scale).T over the flattened rows of x, in float32.

    Writes the weights anew in the type of `x`, in which they are multiplied.
    """
    rows = x.reshape(-1, x.shape[-1])
    wide = values.astype(jnp.float32) * scales.T[..., None]
    w = wide.astype(x.dtype).reshape(len(values), -1)  # [N,G,B] -> [N,GB]
    rows = jnp.pad(rows, ((0, 0), (0, w.shape[1] - rows.shape[1])))
    contract = (((1,), (1,)), ((), ()))
    return lax.dot_general(rows, w, contract, preferred_element_type=jnp.float32)
