"""Attention of one token per slot to what its slot holds."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from server.attention.prefill import MASKED
from server.quant.kv import KV, FloatKV


def attend_einsum(
    q: Float[Array, "B K G H"], kv: KV, count: Int32[Array, " B"], scale: float
) -> Float[Array, "B K G H"]:
    """softmax over positions 0..count-1 of each slot. The form for accelerators."""
    scores = jnp.einsum(
        "BKGH,BKSH->BKGS", q, kv.k.astype(q.dtype), preferred_element_type=jnp.float32
    )
    weights = _weights(scores, kv, count, scale).astype(q.dtype)
    out = jnp.einsum(
        "BKGS,BKSH->BKGH", weights, kv.v.astype(q.dtype), preferred_element_type=jnp.float32
    )
    return out.astype(q.dtype)


def attend_reduce(
    q: Float[Array, "B K G H"], kv: KV, count: Int32[Array, " B"], scale: float
) -> Float[Array, "B K G H"]:
    """The same as multiply and sum: on CPU 5 times faster over a quantized cache, for XLA fuses the
    cast and the slice into the loop instead of writing a float copy."""
    keys = kv.k.astype(jnp.float32)[:, :, None]  # [B,K,1,S,H]
    scores = jnp.sum(q.astype(jnp.float32)[:, :, :, None] * keys, axis=-1)
    weights = _weights(scores, kv, count, scale)
    values = kv.v.astype(jnp.float32)[:, :, None]
    return jnp.sum(weights[..., None] * values, axis=3).astype(q.dtype)


def _weights(scores: jax.Array, kv: KV, count: jax.Array, scale: float) -> jax.Array:
    if not isinstance(kv, FloatKV):
        scores = scores * kv.k_scale[:, :, None]
    live = jnp.arange(scores.shape[-1]) < count[:, None]
    weights = jax.nn.softmax(jnp.where(live[:, None, None], scores * scale, MASKED), axis=-1)
    return weights if isinstance(kv, FloatKV) else weights * kv.v_scale[:, :, None]
