"""Attention of one token per slot to what its slot holds."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from server.attention.prefill import MASKED
from server.attention.rows import Scores
from server.quant.kv import KV, FloatKV


def attend_einsum(
    q: Float[Array, "B K G H"],
    kv: KV,
    count: Int32[Array, " B"],
    back: Int32[Array, "B S"],
    scores: Scores,
) -> Float[Array, "B K G H"]:
    """softmax over indices 0..count-1 of each slot. The form for accelerators.

    `back` is by how many positions each index lies behind the token, for `scores`.
    """
    products = jnp.einsum(
        "BKGH,BKSH->BKGS", q, kv.k.astype(q.dtype), preferred_element_type=jnp.float32
    )
    weights = _weights(products, kv, count, back, scores).astype(q.dtype)
    out = jnp.einsum(
        "BKGS,BKSH->BKGH", weights, kv.v.astype(q.dtype), preferred_element_type=jnp.float32
    )
    return out.astype(q.dtype)


def attend_reduce(
    q: Float[Array, "B K G H"],
    kv: KV,
    count: Int32[Array, " B"],
    back: Int32[Array, "B S"],
    scores: Scores,
) -> Float[Array, "B K G H"]:
    """The same as multiply and sum: on CPU 5 times faster over a quantized cache, for XLA fuses the
    cast and the slice into the loop instead of writing a float copy."""
    keys = kv.k.astype(jnp.float32)[:, :, None]  # [B,K,1,S,H]
    products = jnp.sum(q.astype(jnp.float32)[:, :, :, None] * keys, axis=-1)
    weights = _weights(products, kv, count, back, scores)
    values = kv.v.astype(jnp.float32)[:, :, None]
    return jnp.sum(weights[..., None] * values, axis=3).astype(q.dtype)


def _weights(
    products: jax.Array, kv: KV, count: jax.Array, back: jax.Array, scores: Scores
) -> jax.Array:
    if not isinstance(kv, FloatKV):
        products = products * kv.k_scale[:, :, None]
    live = jnp.arange(products.shape[-1]) < count[:, None]
    scored = jnp.where(live[:, None, None], scores.of(products, back), MASKED)
    weights = jax.nn.softmax(scored, axis=-1)
    return weights if isinstance(kv, FloatKV) else weights * kv.v_scale[:, :, None]
