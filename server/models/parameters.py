"""A model's weights as one pytree of frozen dataclasses."""

from dataclasses import dataclass

import jax
from jaxtyping import Array, Float, Float32

from server.models.spec import ModelSpec
from server.quant.weight import Weight


@dataclass(frozen=True)
class WeightShapes:
    """The output axes of each weight, for a model whose MLP stands in `blocks` blocks."""

    model: ModelSpec
    blocks: int

    @property
    def qkv(self) -> tuple[int, int, int]:
        """K, G+2, H."""
        return (self.model.kv_heads, self.model.group + 2, self.model.head_dim)

    @property
    def gate_up(self) -> tuple[int, int, int]:
        """C, P, F/C; P is 2 for gate and up, 1 for a plain MLP."""
        return (self.blocks, self.model.mlp_parts, self.model.ffn // self.blocks)

    @property
    def hidden(self) -> tuple[int]:
        """D."""
        return (self.model.hidden,)

    @property
    def head(self) -> tuple[int]:
        """V."""
        return (self.model.vocab,)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Norm:
    """Float32 in every form of a model: bfloat16 keeps 8 bits of Gemma's weights, which lie around
    1. A layer norm has a bias, an RMS norm none.
    """

    weight: Float32[Array, " D"]
    bias: Float32[Array, " D"] | None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Layer:
    """One block. Fused projections keep their axes, so that sharding an axis is sharding a head.

    qkv maps [.., D] to [.., K, G+2, H]: for each key/value head its G queries, its key, its value.
    gate_up maps [.., D] to [.., C, P, F/C]: gate and up (or up alone) alternate in C blocks, one
    for each device that shares the MLP. A family without a bias has None there.
    """

    attention_norm: Norm
    qkv: Weight
    qkv_bias: Float[Array, "K G+2 H"] | None
    out: Weight
    out_bias: Float[Array, " D"] | None
    mlp_norm: Norm
    gate_up: Weight
    gate_up_bias: Float[Array, "C P F/C"] | None
    down: Weight
    down_bias: Float[Array, " D"] | None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Parameters:
    """The whole model. A tied head is stored again in the form that multiplies fast.

    positions: learned ones, from position 0 on.
    """

    embedding: Float[Array, "V D"]
    positions: Float[Array, "positions D"] | None
    embedding_norm: Norm | None
    layers: tuple[Layer, ...]
    final_norm: Norm
    head: Weight
