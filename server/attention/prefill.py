"""Attention of a chunk of prompt to the cache before it and to itself."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from server.quant.kv import KV, FloatKV

MASKED = -1e30  # finite, so that a row with nothing to see gives numbers instead of NaN


def attend_chunk(
    q: Float[Array, "N T K G H"],
    old: KV,
    chunk: KV,
    sees_old: Bool[Array, "N T S"],
    sees_chunk: Bool[Array, "N T U"],
    scale: float,
) -> Float[Array, "N T K G H"]:
    """softmax over the old cache [N,K,S,H] and the chunk's own keys [N,K,U,H] together.

    The chunk is read before it is written, so it still sees what it is about to overwrite in a
    rolling window. Scores and softmax in float32; int8 scales on scores and probabilities.
    """
    parts = [(chunk, sees_chunk)] if old.k.shape[2] == 0 else [(old, sees_old), (chunk, sees_chunk)]
    scores = [_scores(q, kv, sees, scale) for kv, sees in parts]
    peak = jnp.max(jnp.concatenate([jnp.max(s, -1, keepdims=True) for s in scores], -1), -1)
    weights = [jnp.exp(s - peak[..., None]) for s in scores]
    total = sum(jnp.sum(w, -1) for w in weights)
    mixed = [_mix(w, kv, q.dtype) for w, (kv, _) in zip(weights, parts, strict=True)]
    out = sum(mixed) / jnp.moveaxis(total, 3, 1)[..., None]
    return out.astype(q.dtype)


def _scores(q: jax.Array, kv: KV, sees: jax.Array, scale: float) -> jax.Array:
    scores = jnp.einsum(
        "NTKGH,NKSH->NKGTS", q, kv.k.astype(q.dtype), preferred_element_type=jnp.float32
    )
    if not isinstance(kv, FloatKV):
        scores = scores * kv.k_scale[:, :, None, None, :]
    return jnp.where(sees[:, None, None], scores * scale, MASKED)


def _mix(weights: jax.Array, kv: KV, dtype: jnp.dtype) -> jax.Array:
    if not isinstance(kv, FloatKV):
        weights = weights * kv.v_scale[:, :, None, None, :]
    return jnp.einsum(
        "NKGTS,NKSH->NTKGH",
        weights.astype(dtype),
        kv.v.astype(dtype),
        preferred_element_type=jnp.float32,
    )
