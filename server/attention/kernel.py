"""Attention in the CPU kernel: only live positions are read, and the cache is written in place."""

import jax
import jax.numpy as jnp

from server.attention.rows import Attend, Rows, Scores
from server.kernels import cpu
from server.quant.kv import KV


def attend_in_kernel(rows: Rows, length: int, span: int, scores: Scores) -> Attend:
    """`Attention`; needs no `span`."""
    slots = rows.slots
    if slots is None:
        slots = jnp.arange(len(rows.starts), dtype=jnp.int32)

    def attend(qkv: jax.Array, entry: KV) -> tuple[jax.Array, KV]:
        arrays, kind = jax.tree.flatten(entry)  # k, v and for int8 their scales
        given = (qkv, rows.cos, rows.sin, rows.starts, rows.lengths, slots)
        out, *arrays = cpu.attention(*given, arrays, scores.scale, scores.slopes)
        return out, jax.tree.unflatten(kind, arrays)

    return attend
