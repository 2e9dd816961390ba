"""How a weight is stored and multiplied: one `Form` per scheme and backend.

A weight maps [.., in] to [.., *out]. It is kept as [*out, in] (facts measured on CPU: int8 products
run 10% faster that way; accelerators choose their own layout).
"""

from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float


class Weight(Protocol):
    """A stored weight: a pytree that can be applied."""

    def __call__(self, x: Float[Array, "... I"]) -> Float[Array, "..."]:
        """The product, in the type of `x`."""


class Form(Protocol):
    """Makes weights of one kind."""

    def pack(self, w: np.ndarray) -> Any:
        """[*out, in] float -> a Weight of numpy arrays."""

    def random(self, key: jax.Array, out: tuple[int, ...], inputs: int) -> Any:
        """Random values of the scale of a trained layer, made in the stored type at once."""

    def partition(self, out: tuple[str | None, ...], inputs: str | None) -> Any:
        """A Weight of PartitionSpecs, given the mesh axis of each axis of the weight."""


def spec(*axes: str | None) -> PartitionSpec:
    """PartitionSpec without its trailing Nones."""
    trimmed = list(axes)
    while trimmed and trimmed[-1] is None:
        trimmed.pop()
    return PartitionSpec(*trimmed)
