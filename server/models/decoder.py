"""The decoder: one forward for prefill and decode.

Letters in shapes: N rows (one per slot at work), T tokens a row, D hidden, K key/value heads, G
query heads of each, H head size, F inner MLP width, S cache positions, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from server.attention.prefill import attend_chunk
from server.models.parameters import Layer, Parameters
from server.models.rope import rotate, rotation
from server.models.spec import ModelSpec
from server.quant import kv
from server.quant.kv import KV

DecodeAttention = Callable[[jax.Array, KV, jax.Array, float], jax.Array]
Cache = tuple[KV, ...]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """Tokens to read. Row n holds `lengths[n]` tokens (0: an idle row) from position `starts[n]`.

    `slots` names the cache slot of each row; None means all slots in order, one token each. A slot
    number out of range marks a padding row: it reads anything and writes nothing.
    """

    tokens: Int32[Array, "N T"]
    starts: Int32[Array, " N"]
    lengths: Int32[Array, " N"]
    slots: Int32[Array, " N"] | None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _View:
    """What every layer needs of the batch, computed once."""

    cos: Float[Array, "N T H/2"]
    sin: Float[Array, "N T H/2"]
    slots: Int32[Array, " N"]
    valid: Bool[Array, "N T"]
    index: Int32[Array, "N T"]  # where each token is written; the cache length means nowhere
    count: Int32[Array, " N"]  # live positions after the write
    sees_old: jax.Array  # [N,T,span]
    sees_chunk: jax.Array  # [N,T,T]


def forward(
    spec: ModelSpec,
    attend: DecodeAttention,
    parameters: Parameters,
    cache: Cache,
    batch: Batch,
    span: int,
) -> tuple[Float[Array, "N T D"], Cache]:
    """Reads the batch: the hidden states after the last norm, and the cache with the batch in it.

    Each token sees the last `cache length` positions, itself included. `span` (static) bounds the
    cache indices that are read: every live index of the rows before (prefill) or after (decode) the
    write lies below it; 0 means that nothing was there before.
    """
    view = _view(spec, cache[0].k.shape[2], batch, span)
    x = parameters.embedding[batch.tokens].astype(_compute_type(parameters))
    # Idle rows and padding stay zero through every layer: the CPU kernel skips zero rows.
    x = jnp.where(view.valid[..., None], x, jnp.zeros_like(x))
    written = []
    for layer, entry in zip(parameters.layers, cache, strict=True):
        attended, entry = _attention(spec, attend, layer, entry, x, view, span, batch.slots is None)
        x = x + attended
        x = x + _mlp(layer, _norm(x, layer.mlp_norm, spec.norm_eps))
        written.append(entry)
    return _norm(x, parameters.final_norm, spec.norm_eps), tuple(written)


def logits(parameters: Parameters, hidden: Float[Array, "N D"]) -> Float[Array, "N V"]:
    """Scores of the next token, float32."""
    return parameters.head(hidden).astype(jnp.float32)


def _compute_type(parameters: Parameters) -> jnp.dtype:
    return parameters.final_norm.dtype


def _view(spec: ModelSpec, length: int, batch: Batch, span: int) -> _View:
    offsets = jnp.arange(batch.tokens.shape[1], dtype=jnp.int32)
    positions = batch.starts[:, None] + offsets
    valid = offsets < batch.lengths[:, None]
    cos, sin = rotation(spec, positions)
    slots = batch.slots
    if slots is None:
        slots = jnp.arange(batch.tokens.shape[0], dtype=jnp.int32)

    # Old index i holds the newest position before the chunk that is i modulo the cache length.
    last = batch.starts[:, None] - 1
    held = last - (last - jnp.arange(span, dtype=jnp.int32)) % length
    in_window = held[:, None] > positions[..., None] - length
    causal = offsets[:, None] >= offsets
    return _View(
        cos=cos,
        sin=sin,
        slots=slots,
        valid=valid,
        index=jnp.where(valid, positions % length, length),
        count=jnp.where(batch.lengths > 0, jnp.minimum(batch.starts + batch.lengths, length), 0),
        sees_old=(held >= 0)[:, None] & in_window,
        sees_chunk=causal & (offsets[:, None] - offsets < length) & valid[:, None],
    )


def _attention(
    spec: ModelSpec,
    attend: DecodeAttention,
    layer: Layer,
    entry: KV,
    x: Float[Array, "N T D"],
    view: _View,
    span: int,
    decoding: bool,
) -> tuple[Float[Array, "N T D"], KV]:
    qkv = layer.qkv(_norm(x, layer.attention_norm, spec.norm_eps))  # [N,T,K,G+2,H]
    if layer.qkv_bias is not None:
        qkv = qkv + layer.qkv_bias.astype(qkv.dtype)
    q = rotate(qkv[..., : spec.group, :], view.cos, view.sin)
    k = rotate(qkv[..., spec.group : spec.group + 1, :], view.cos, view.sin)[..., 0, :]
    v = qkv[..., spec.group + 1, :]
    new = kv.encode(entry, k, v)
    scale = spec.head_dim**-0.5
    if decoding:
        # The token overwrites exactly the position that leaves its window: write, then read once.
        entry = kv.write(entry, new, view.slots, view.index)
        out = attend(q[:, 0], kv.read(entry, None, span), view.count, scale)[:, None]
    else:
        old = kv.read(entry, view.slots, span)
        out = attend_chunk(q, old, new, view.sees_old, view.sees_chunk, scale)
        entry = kv.write(entry, _after(new, out), view.slots, view.index)
    out = jnp.where(view.valid[..., None, None, None], out, jnp.zeros_like(out))
    return layer.out(out.reshape(*x.shape[:2], -1)), entry  # [N,T,K,G,H] -> [N,T,KGH]


def _after(new: KV, out: Float[Array, "N T K G H"]) -> KV:
    """`new`, but known only once `out` is, so that the write waits until the old cache was read.

    While both could happen in any order XLA copies the whole cache first (CPU, 32 slots of 1,024:
    a second cache in memory, and 35 ms a chunk instead of 6). It drops an optimization_barrier
    before it decides that; a zero that it cannot foresee stays.
    """
    zero = jnp.minimum(jnp.abs(out[:, 0, :, 0, 0]), 0)  # [N,K]

    def add(x: jax.Array) -> jax.Array:
        return x + zero.reshape(*zero.shape, *(1,) * (x.ndim - 2)).astype(x.dtype)

    return jax.tree.map(add, new)


def _mlp(layer: Layer, x: Float[Array, "N T D"]) -> Float[Array, "N T D"]:
    both = layer.gate_up(x)  # [N,T,C,2,F/C]
    inner = jax.nn.silu(both[..., 0, :]) * both[..., 1, :]
    return layer.down(inner.reshape(*x.shape[:2], -1))  # [N,T,C,F/C] -> [N,T,F]


def _norm(
    x: Float[Array, "... D"], weight: Float[Array, " D"], eps: float
) -> Float[Array, "... D"]:
    wide = x.astype(jnp.float32)
    mean = jnp.mean(wide * wide, axis=-1, keepdims=True)
    return (wide * jax.lax.rsqrt(mean + eps) * weight.astype(jnp.float32)).astype(x.dtype)
