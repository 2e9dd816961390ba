"""A model's weights as one pytree of frozen dataclasses."""

from dataclasses import dataclass

import jax
from jaxtyping import Array, Float

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
        """C, 2, F/C."""
        return (self.blocks, 2, self.model.ffn // self.blocks)

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
class Layer:
    """One block. Fused projections keep their axes, so that sharding an axis is sharding a head.

    qkv maps [.., D] to [.., K, G+2, H]: for each key/value head its G queries, its key, its value.
    gate_up maps [.., D] to [.., C, 2, F/C]: gate and up alternate in C blocks, one for each device
    that shares the MLP.
    """

    attention_norm: Float[Array, " D"]
    qkv: Weight
    qkv_bias: Float[Array, "K G+2 H"] | None
    out: Weight
    mlp_norm: Float[Array, " D"]
    gate_up: Weight
    down: Weight


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Parameters:
    """The whole model. A tied head is stored again in the form that multiplies fast."""

    embedding: Float[Array, "V D"]
    layers: tuple[Layer, ...]
    final_norm: Float[Array, " D"]
    head: Weight
