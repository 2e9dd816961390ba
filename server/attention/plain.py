"""Attention in plain XLA."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from server.attention.prefill import Keys, attend_chunk
from server.attention.rows import Attend, Attention, Rows, Scores
from server.attention.store import PlainStore, Store
from server.quant import kv
from server.quant.kv import KV, NoKV

DecodeAttention = Callable[[jax.Array, KV, jax.Array, jax.Array, Scores], jax.Array]
ChunkAttention = Callable[[jax.Array, jax.Array, Sequence[Keys], int, Scores], jax.Array]


@dataclass(frozen=True)
class PlainAttention:
    """`Attention` with `decode` for one token a slot and `chunk` for chunks of prompt.

    `alone`, if there is one, serves chunks that have nothing before them; it keeps nothing.
    `store`: how the cache is read and written.
    """

    decode: DecodeAttention
    chunk: ChunkAttention = attend_chunk
    alone: Attention | None = None
    store: Store = field(default_factory=PlainStore)

    def __call__(self, rows: Rows, length: int, span: int, scores: Scores) -> Attend:
        """See `Attention`."""
        tokens = rows.cos.shape[1]
        positions = rows.starts[:, None] + jnp.arange(tokens, dtype=jnp.int32)
        valid = live_tokens(rows)
        index = jnp.where(valid, positions % length, length)  # the length means nowhere

        def split(qkv: jax.Array, entry: KV) -> tuple[jax.Array, KV]:
            q = rotate(qkv[..., :-2, :], rows.cos, rows.sin)
            k = rotate(qkv[..., -2:-1, :], rows.cos, rows.sin)[..., 0, :]
            return q, kv.encode(entry, k, qkv[..., -1, :])

        if rows.slots is None:
            live = jnp.minimum(rows.starts + rows.lengths, length)
            count = jnp.where(rows.lengths > 0, live, 0)
            back = (rows.starts[:, None] - jnp.arange(span, dtype=jnp.int32)) % length

            def decode(qkv: jax.Array, entry: KV) -> tuple[jax.Array, KV]:
                q, new = split(qkv, entry)
                # The token overwrites exactly the position that leaves its window: write, then
                # read once.
                entry = self.store.append(entry, new, index)
                held = self.store.read(entry, None, span)
                out = self.decode(q[:, 0], held, count, back, scores)
                return masked(out[:, None], valid), entry

            return decode

        slots = rows.slots
        before = _held(rows.starts, length, span)
        own = jnp.where(valid, positions, -1)

        def read_chunk(qkv: jax.Array, entry: KV) -> tuple[jax.Array, KV]:
            q, new = split(qkv, entry)
            # The chunk is read before it is written, so it still sees what it is about to
            # overwrite in a rolling window.
            old = [Keys(self.store.read(entry, slots, span), before)] if span else []
            out = self.chunk(q, own, [*old, Keys(new, own)], length, scores)
            return masked(out, valid), self.store.write(entry, _after(new, out), slots, index)

        if self.alone is None or span:
            return read_chunk
        attend_alone = self.alone(rows, length, 0, scores)

        def read_first(qkv: jax.Array, entry: KV) -> tuple[jax.Array, KV]:
            out, _ = attend_alone(qkv, NoKV(length))
            return out, self.store.write(entry, split(qkv, entry)[1], slots, index)

        return read_first


def live_tokens(rows: Rows) -> Bool[Array, "N T"]:
    """Which places of the rows hold a token."""
    return jnp.arange(rows.cos.shape[1], dtype=jnp.int32) < rows.lengths[:, None]


def masked(out: Float[Array, "N T K G H"], valid: Bool[Array, "N T"]) -> Float[Array, "N T K G H"]:
    """Zero where there is no token."""
    return jnp.where(valid[..., None, None, None], out, jnp.zeros_like(out))


def rotate(
    x: Float[Array, "N T K G H"], cos: Float[Array, "N T H/2"], sin: Float[Array, "N T H/2"]
) -> Float[Array, "N T K G H"]:
    """Turns each pair (x[i], x[i + H/2]) by its angle; float32 inside."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = cos[:, :, None, None], sin[:, :, None, None]
    turned = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def _held(starts: Int32[Array, " N"], length: int, span: int) -> Int32[Array, "N S"]:
    """The newest position before the chunk that each index of the cache holds; below 0: none."""
    last = starts[:, None] - 1
    return last - (last - jnp.arange(span, dtype=jnp.int32)) % length


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
