"""How a weight is stored and multiplied: one `Form` per scheme and backend.

A weight maps [.., in] to [.., *out]. It is kept flat, [outputs, in] (measured on CPU: int8 products
run 10% faster that way, and XLA transposes a weight of more axes on every step; accelerators choose
their own layout), so only the first of the output axes can be split over devices.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, UInt8

from server.kernels import cpu

INPUTS_AT_ONCE = 4  # inputs that the CPU kernel takes together


class Weight(Protocol):
    """A stored weight: a pytree that can be applied."""

    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "..."]:
        """The product, in the type of `x`."""


class Form(Protocol):
    """Makes weights of one kind.

    block: inputs that share a scale. Devices that share the inputs take whole blocks each.
    scratch: bytes that a product writes anew for each weight that it reads, at most.
    """

    @property
    def block(self) -> int:
        """See above."""

    @property
    def scratch(self) -> int:
        """See above."""

    def pack(self, w: np.ndarray) -> Any:
        """[*out, in] float -> a Weight of numpy arrays."""

    def random(self, key: jax.Array, out: tuple[int, ...], inputs: int) -> Any:
        """Random values of the scale of a trained layer, made in the stored type at once."""

    def partition(self, out: tuple[int, ...], rows: str | None, inputs: str | None) -> Any:
        """A Weight of PartitionSpecs: the mesh axes of the first output axis and of the inputs."""


@dataclass(frozen=True)
class Forms:
    """How the matrices of the layers are stored, and how the output head is."""

    layers: Form
    head: Form


def flatten(w: np.ndarray) -> np.ndarray:
    """[*out, in] -> [outputs, in]."""
    return w.reshape(-1, w.shape[-1])


def unflatten(y: jax.Array, x: jax.Array, out: tuple[int, ...]) -> jax.Array:
    """Rows [M, outputs] -> [.., *out] in the type of x [.., in]."""
    return y.reshape(*x.shape[:-1], *out).astype(x.dtype)


def random_bytes(key: jax.Array, shape: tuple[int, ...]) -> UInt8[Array, "..."]:
    """Even ones, four from each number that is drawn: to draw one JAX mixes two of 32 bits, sixteen
    times the size of a byte."""
    *rest, last = shape
    words = jax.random.bits(key, (*rest, -(-last // 4)), jnp.uint32)
    codes = jax.lax.bitcast_convert_type(words, jnp.uint8)  # [.., W, 4]
    return codes.reshape(*rest, -1)[..., :last]


def spec(*axes: str | None) -> PartitionSpec:
    """PartitionSpec without its trailing Nones."""
    trimmed = list(axes)
    while trimmed and trimmed[-1] is None:
        trimmed.pop()
    return PartitionSpec(*trimmed)


def whole_blocks(w: Any, inputs: int = INPUTS_AT_ONCE) -> Any:
    """[N, in], numpy or JAX, with zeros added until the CPU kernel can hold it."""
    return _padded(w, cpu.LANES, inputs)


def kernel_rows(x: jax.Array, inputs: int = INPUTS_AT_ONCE) -> jax.Array:
    """[.., in] -> [M, in], with the zero inputs that `whole_blocks` gave the weight."""
    return _padded(x.reshape(-1, x.shape[-1]), 1, inputs)


def _padded(x: Any, rows: int, columns: int) -> Any:
    more = (-x.shape[0] % rows, -x.shape[1] % columns)
    if not any(more):
        return x
    return (np if isinstance(x, np.ndarray) else jnp).pad(x, [(0, more[0]), (0, more[1])])


def channel_product(
    x: Float[Array, "... I"], q: Array, scale: Float[Array, " N"], out: tuple[int, ...]
) -> Float[Array, "..."]:
    """(x @ q) * scale for codes [N, I] of any type, accumulated in float32."""
    contract = (((x.ndim - 1,), (1,)), ((), ()))
    y = jax.lax.dot_general(x, q.astype(x.dtype), contract, preferred_element_type=jnp.float32)
    return unflatten(y * scale, x, out)
