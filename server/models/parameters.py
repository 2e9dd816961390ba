"""A model's weights as one pytree of frozen dataclasses."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
from jaxtyping import Array, Float

from server.quant.weight import Weight


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Layer:
    """One block. Fused projections keep their axes, so that sharding an axis is sharding a head.

    qkv maps [.., D] to [.., K, G+2, H]: for each key/value head its G queries, its key, its value.
    gate_up maps [.., D] to [.., 2, F].
    """

    attention_norm: Float[Array, "D"]
    qkv: Weight
    qkv_bias: Float[Array, "K G+2 H"] | None
    out: Weight
    mlp_norm: Float[Array, "D"]
    gate_up: Weight
    down: Weight


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Parameters:
    """The whole model. A tied head is stored again in the form that multiplies fast."""

    embedding: Float[Array, "V D"]
    layers: tuple[Layer, ...]
    final_norm: Float[Array, "D"]
    head: Weight


def map_layers(build: Callable[[int], Layer], count: int) -> tuple[Layer, ...]:
    """Layers 0..count-1, one at a time, so that a loader holds one full-precision layer at most."""
    return tuple(build(index) for index in range(count))
