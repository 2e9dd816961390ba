"""Attention in blocks with a running maximum, in plain XLA: no score outlives its block.

"Online softmax" (Milakov and Gimelshein, arXiv 1805.02867) as in FlashAttention (Dao et al.,
arXiv 2205.14135): memory grows with the length of the context and not with its square. Pairs of
blocks that see nothing of each other are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int32

from server.attention.names import KEYS_AT_ONCE
from server.attention.prefill import MASKED, Keys, mix, product, sees
from server.attention.rows import Scores

QUERIES = 512  # of each head in a block
KEYS = KEYS_AT_ONCE


@dataclass(frozen=True)
class Block:
    """Queries of a block: q [N,T,K,G,H] and their positions [N,T], -1 for none."""

    q: jax.Array
    positions: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sums:
    """What a block has seen so far, float32: peak and total [N,K,G,T], out [N,T,K,G,H]."""

    peak: jax.Array
    total: jax.Array
    out: jax.Array


def attend_blocks(
    q: Float[Array, "N T K G H"],
    positions: Int32[Array, "N T"],
    parts: Sequence[Keys],
    window: int,
    scores: Scores,
    *,
    queries: int = QUERIES,
    keys: int = KEYS,
) -> Float[Array, "N T K G H"]:
    """The twin of `attend_chunk`. A query at position -1 is none and gives zeros."""
    tokens = q.shape[1]
    size = min(queries, tokens)
    count = -(-tokens // size)
    tables = [_bounds(positions, part.positions, window, size, min(keys, _length(part)))
              for part in parts]  # fmt: skip

    def attend(i: jax.Array, out: jax.Array) -> jax.Array:
        # The last block begins earlier where it would not be full: some rows are made twice.
        first = jnp.minimum(i * size, tokens - size)
        block = Block(_cut(q, first, size), _cut(positions, first, size))
        sums = _nothing(block)
        for part, (low, high) in zip(parts, tables, strict=True):
            see = _seeing(block, part, window, scores, min(keys, _length(part)))
            sums = lax.fori_loop(low[i], high[i], see, sums)
        total = jnp.moveaxis(sums.total, 3, 1)[..., None]  # [N,T,K,G,1]
        done = (sums.out / jnp.where(total > 0, total, 1.0)).astype(q.dtype)
        return lax.dynamic_update_slice_in_dim(out, done, first, axis=1)

    return lax.fori_loop(0, count, attend, jnp.zeros_like(q))


def _nothing(block: Block) -> Sums:
    rows, tokens, heads, group, _ = block.q.shape
    per_query = jnp.zeros((rows, heads, group, tokens), jnp.float32)
    return Sums(per_query + MASKED, per_query, jnp.zeros(block.q.shape, jnp.float32))


def _seeing(block: Block, part: Keys, window: int, scores: Scores, size: int) -> Any:
    """A loop body: (index of a block of keys, sums) -> sums."""

    def see(j: jax.Array, sums: Sums) -> Sums:
        first = jnp.minimum(j * size, _length(part) - size)
        kv = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, first, size, axis=2), part.kv)
        at = _cut(part.positions, first, size)
        # What the block before has had is left out of a last block that begins earlier.
        at = jnp.where(first + jnp.arange(size, dtype=jnp.int32) >= j * size, at, -1)
        back = block.positions[..., None] - at[:, None]
        seen = sees(back, at, window)[:, None, None]
        scored = jnp.where(seen, scores.of(product(block.q, kv), back), MASKED)
        peak = jnp.maximum(sums.peak, jnp.max(scored, -1))
        weights = jnp.where(seen, jnp.exp(scored - peak[..., None]), 0.0)
        factor = jnp.exp(sums.peak - peak)
        out = sums.out * jnp.moveaxis(factor, 3, 1)[..., None]
        return Sums(
            peak,
            sums.total * factor + jnp.sum(weights, -1),
            out + mix(weights, kv, block.q.dtype),
        )

    return see


def _bounds(
    queries: Int32[Array, "N T"],
    keys: Int32[Array, "N S"],
    window: int,
    query_size: int,
    key_size: int,
) -> tuple[Int32[Array, " blocks"], Int32[Array, " blocks"]]:
    """The first block of keys that each block of queries may see anything of, and the one after
    the last; the same for all rows."""
    first, last = _range(queries, query_size)
    oldest, newest = _range(keys, key_size)
    near = (oldest[:, None] <= last[..., None]) & (newest[:, None] > first[..., None] - window)
    there = (newest[:, None] >= 0) & (last[..., None] >= 0)
    visible = jnp.any(near & there, axis=0)
    low = jnp.argmax(visible, axis=1).astype(jnp.int32)
    high = visible.shape[1] - jnp.argmax(visible[:, ::-1], axis=1).astype(jnp.int32)
    return low, jnp.where(jnp.any(visible, axis=1), high, low)


def _range(
    positions: Int32[Array, "N S"], size: int
) -> tuple[Int32[Array, "N blocks"], Int32[Array, "N blocks"]]:
    """The smallest position of each block that is not below 0, and the largest."""
    length = positions.shape[1]
    starts = np.minimum(np.arange(0, length, size), length - size)
    blocks = positions[:, starts[:, None] + np.arange(size)]
    most = jnp.iinfo(jnp.int32).max
    return jnp.min(jnp.where(blocks < 0, most, blocks), -1), jnp.max(blocks, -1)


def _length(part: Keys) -> int:
    return part.positions.shape[1]


def _cut(x: jax.Array, first: jax.Array, size: int) -> jax.Array:
    return lax.dynamic_slice_in_dim(x, first, size, axis=1)
