"""How keys and values are stored: [slot, kv_head, position, head_dim], in floating point or int8.

Both kinds are pytrees of arrays whose first three axes are slot, kv head and position, so one write
serves them all. int8 has one scale per (slot, kv head, position), rounded, never 0/0.
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int8


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FloatKV:
    """Keys and values of one layer in the compute type."""

    k: Float[Array, "B K S H"]
    v: Float[Array, "B K S H"]

    @property
    def length(self) -> int:
        """Positions of a slot."""
        return self.k.shape[2]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Int8KV:
    """Codes and their scales: key = k * k_scale."""

    k: Int8[Array, "B K S H"]
    v: Int8[Array, "B K S H"]
    k_scale: Float[Array, "B K S"]
    v_scale: Float[Array, "B K S"]

    @property
    def length(self) -> int:
        """Positions of a slot."""
        return self.k.shape[2]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NoKV:
    """A layer that keeps nothing, for forwards without a cache; a token sees the last `length`."""

    length: int = field(metadata={"static": True})


KV = FloatKV | Int8KV
Entry = KV | NoKV


def empty(slots: int, heads: int, length: int, head_dim: int, dtype: jnp.dtype | None) -> KV:
    """A zeroed cache of one layer; `dtype` None is int8."""
    shape = (slots, heads, length, head_dim)
    if dtype is not None:
        return FloatKV(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))
    codes, scales = (shape, jnp.int8), (shape[:3], jnp.float32)
    # Four arrays of their own: one that stands twice in a cache cannot be donated.
    return Int8KV(jnp.zeros(*codes), jnp.zeros(*codes), jnp.zeros(*scales), jnp.zeros(*scales))


def encode(like: KV, k: Float[Array, "N T K H"], v: Float[Array, "N T K H"]) -> KV:
    """Fresh keys and values as `like` stores them, [N, K, T, ..]."""
    k, v = jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2)
    if isinstance(like, FloatKV):
        return FloatKV(k.astype(like.k.dtype), v.astype(like.v.dtype))
    k_codes, k_scale = quantize(k)
    v_codes, v_scale = quantize(v)
    return Int8KV(k_codes, v_codes, k_scale, v_scale)


def quantize(
    x: Float[Array, "... H"],
) -> tuple[Int8[Array, "... H"], Float[Array, "..."]]:
    """Codes and scale of each vector; a zero vector has scale 0 and codes 0."""
    x = x.astype(jnp.float32)
    scale = jnp.max(jnp.abs(x), axis=-1) / 127.0
    codes = jnp.round(x / jnp.where(scale > 0, scale, 1.0)[..., None])
    return codes.astype(jnp.int8), scale


def write(cache: KV, new: KV, slots: jax.Array, index: jax.Array) -> KV:
    """Puts new[n, :, t] at cache[slots[n], :, index[n, t]]; an index out of range writes nothing.

    slots [N], index [N, T]. No two writes go to the same place.
    """

    def put(old: jax.Array, fresh: jax.Array) -> jax.Array:
        # [N,K,T,..] -> [N,T,K,..]: indexed axes split by a slice come first.
        fresh = jnp.swapaxes(fresh, 1, 2)
        return old.at[slots[:, None], :, index].set(fresh, mode="drop", unique_indices=True)

    return jax.tree.map(put, cache, new)


def read(cache: KV, slots: jax.Array | None, span: int) -> KV:
    """The first `span` positions of some slots, or of all (None)."""

    def take(x: jax.Array) -> jax.Array:
        x = x if x.shape[2] == span else x[:, :, :span]
        return x if slots is None else x.at[slots].get(mode="clip")

    return jax.tree.map(take, cache)
