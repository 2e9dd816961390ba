"""Attention of a chunk of prompt to the cache before it and to itself."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from server.attention.rows import Scores
from server.quant.kv import KV, FloatKV

MASKED = -1e30  # finite, so that a row with nothing to see gives numbers instead of NaN


@dataclass(frozen=True)
class Keys:
    """Keys and values [N,K,S,H] and where they belong; position -1 means nothing is there."""

    kv: KV
    positions: Int32[Array, "N S"]


def attend_chunk(
    q: Float[Array, "N T K G H"],
    positions: Int32[Array, "N T"],
    parts: Sequence[Keys],
    window: int,
    scores: Scores,
) -> Float[Array, "N T K G H"]:
    """softmax over all parts together: a token sees the `window` positions that end with its own.

    What comes for a token at position -1, which is none, means nothing.

    Scores and softmax in float32; int8 scales on products and probabilities.
    """
    scored = [_score(q, positions, part, window, scores) for part in parts]
    peak = jnp.max(jnp.concatenate([jnp.max(s, -1, keepdims=True) for s in scored], -1), -1)
    weights = [jnp.exp(s - peak[..., None]) for s in scored]
    total = sum(jnp.sum(w, -1) for w in weights)
    mixed = [mix(w, part.kv, q.dtype) for w, part in zip(weights, parts, strict=True)]
    out = sum(mixed) / jnp.moveaxis(total, 3, 1)[..., None]
    return out.astype(q.dtype)


def sees(
    back: Int32[Array, "N T S"], positions: Int32[Array, "N S"], window: int
) -> Bool[Array, "N T S"]:
    """Whether a token sees a key that lies `back` behind it, at `positions`."""
    return (back >= 0) & (back < window) & (positions >= 0)[:, None]


def product(q: Float[Array, "N T K G H"], kv: KV) -> Float[Array, "N K G T S"]:
    """q . k, float32."""
    products = jnp.einsum(
        "NTKGH,NKSH->NKGTS", q, kv.k.astype(q.dtype), preferred_element_type=jnp.float32
    )
    return products if isinstance(kv, FloatKV) else products * kv.k_scale[:, :, None, None]


def mix(weights: Float[Array, "N K G T S"], kv: KV, dtype: jnp.dtype) -> Float[Array, "N T K G H"]:
    """weights @ v, the factors in `dtype`, the result float32."""
    if not isinstance(kv, FloatKV):
        weights = weights * kv.v_scale[:, :, None, None]
    return jnp.einsum(
        "NKGTS,NKSH->NTKGH",
        weights.astype(dtype),
        kv.v.astype(dtype),
        preferred_element_type=jnp.float32,
    )


def _score(
    q: jax.Array, positions: jax.Array, part: Keys, window: int, scores: Scores
) -> jax.Array:
    back = positions[..., None] - part.positions[:, None]
    seen = sees(back, part.positions, window)[:, None, None]
    return jnp.where(seen, scores.of(product(q, part.kv), back), MASKED)
