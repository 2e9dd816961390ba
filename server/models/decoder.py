"""The decoder: one forward for prefill and decode.

Letters in shapes: N rows (one per slot at work), T tokens a row, D hidden, K key/value heads, G
query heads of each, H head size, F inner MLP width, S cache positions, V vocabulary.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from server.attention.rows import Attend, Rows, Scores
from server.models.operations import Operations
from server.models.parameters import Layer, Parameters
from server.models.rope import rotation
from server.models.spec import ModelSpec
from server.quant.kv import KV

Cache = tuple[KV, ...]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """Tokens to read; `starts`, `lengths` and `slots` are as in `Rows`."""

    tokens: Int32[Array, "N T"]
    starts: Int32[Array, " N"]
    lengths: Int32[Array, " N"]
    slots: Int32[Array, " N"] | None


def forward(
    spec: ModelSpec,
    operations: Operations,
    parameters: Parameters,
    cache: Cache,
    batch: Batch,
    span: int,
) -> tuple[Float[Array, "N T D"], Cache]:
    """Reads the batch: the hidden states after the last norm, and the cache with the batch in it.

    Each token sees the last `cache length` positions, itself included. `span` is as in `Attention`.
    """
    offsets = jnp.arange(batch.tokens.shape[1], dtype=jnp.int32)
    rotated = rotation(spec, batch.starts[:, None] + offsets)
    rows = Rows(batch.starts, batch.lengths, batch.slots, *rotated)
    length = cache[0].k.shape[2]
    attend = operations.attention(rows, length, span, Scores(spec.head_dim**-0.5))
    x = parameters.embedding[batch.tokens].astype(parameters.final_norm.dtype)
    # Idle rows and padding stay zero through every layer: the CPU kernel skips zero rows.
    x = jnp.where((offsets < batch.lengths[:, None])[..., None], x, jnp.zeros_like(x))
    written = []
    for layer, entry in zip(parameters.layers, cache, strict=True):
        attended, entry = _attention(spec, operations, attend, layer, entry, x)
        x = x + attended
        x = x + _mlp(operations, layer, operations.norm(x, layer.mlp_norm, spec.norm_eps))
        written.append(entry)
    return operations.norm(x, parameters.final_norm, spec.norm_eps), tuple(written)


def logits(parameters: Parameters, hidden: Float[Array, "N D"]) -> Float[Array, "N V"]:
    """Scores of the next token, float32."""
    return parameters.head(hidden).astype(jnp.float32)


def _attention(
    spec: ModelSpec,
    operations: Operations,
    attend: Attend,
    layer: Layer,
    entry: KV,
    x: Float[Array, "N T D"],
) -> tuple[Float[Array, "N T D"], KV]:
    qkv = layer.qkv(operations.norm(x, layer.attention_norm, spec.norm_eps))  # [N,T,K,G+2,H]
    if layer.qkv_bias is not None:
        qkv = qkv + layer.qkv_bias.astype(qkv.dtype)
    out, entry = attend(qkv, entry)
    return layer.out(out.reshape(*x.shape[:2], -1)), entry  # [N,T,K,G,H] -> [N,T,KGH]


def _mlp(operations: Operations, layer: Layer, x: Float[Array, "N T D"]) -> Float[Array, "N T D"]:
    inner = operations.gate(layer.gate_up(x))  # [N,T,C,2,F/C] -> [N,T,C,F/C]
    return layer.down(inner.reshape(*x.shape[:2], -1))  # [N,T,C,F/C] -> [N,T,F]
