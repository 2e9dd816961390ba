"""Attention of rows to themselves: nothing before them, nothing kept."""

from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from server.attention.plain import ChunkAttention, live_tokens, masked, rotate
from server.attention.prefill import Keys, attend_chunk
from server.attention.rows import Attend, Rows, Scores
from server.kernels import cpu
from server.quant.kv import FloatKV, NoKV


class SelfAttention(Protocol):
    """One implementation, on queries and keys that are turned to their positions."""

    def __call__(
        self,
        q: Float[Array, "N T K G H"],
        k: Float[Array, "N T K H"],
        v: Float[Array, "N T K H"],
        lengths: Int32[Array, " N"],
        window: int,
        scores: Scores,
    ) -> Float[Array, "N T K G H"]:
        """softmax over the last `window` tokens of the row up to each, itself included.

        Row n has `lengths[n]` tokens; what comes for those behind its end means nothing.
        """


@dataclass(frozen=True)
class UncachedAttention:
    """`Attention` that keeps nothing: cache entries are `NoKV`, rows begin where they say."""

    form: SelfAttention

    def __call__(self, rows: Rows, length: int, span: int, scores: Scores) -> Attend:
        """See `Attention`; needs no `span`."""
        valid = live_tokens(rows)

        def attend(qkv: jax.Array, entry: NoKV) -> tuple[jax.Array, NoKV]:
            q = rotate(qkv[..., :-2, :], rows.cos, rows.sin)
            k = rotate(qkv[..., -2:-1, :], rows.cos, rows.sin)[..., 0, :]
            out = self.form(q, k, qkv[..., -1, :], rows.lengths, length, scores)
            return masked(out, valid), entry

        return attend


def attend_in_kernel(rows: Rows, length: int, span: int, scores: Scores) -> Attend:
    """`UncachedAttention` in the CPU kernel, which turns queries and keys by itself."""

    def attend(qkv: jax.Array, entry: NoKV) -> tuple[jax.Array, NoKV]:
        given = (qkv, rows.cos, rows.sin, rows.lengths)
        return cpu.uncached_attention(*given, length, scores.scale, scores.slopes), entry

    return attend


@dataclass(frozen=True)
class SelfChunk:
    """`SelfAttention` by a form for chunks of prompt, the row being one chunk."""

    chunk: ChunkAttention

    def __call__(
        self,
        q: Float[Array, "N T K G H"],
        k: Float[Array, "N T K H"],
        v: Float[Array, "N T K H"],
        lengths: Int32[Array, " N"],
        window: int,
        scores: Scores,
    ) -> Float[Array, "N T K G H"]:
        """See `SelfAttention`."""
        offsets = jnp.arange(q.shape[1], dtype=jnp.int32)
        positions = jnp.where(offsets < lengths[:, None], offsets, -1)
        kv = FloatKV(jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2))
        return self.chunk(q, positions, [Keys(kv, positions)], window, scores)


reference = UncachedAttention(SelfChunk(attend_chunk))
