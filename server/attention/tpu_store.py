"""Reads and writes of the cache that leave the rest of it alone on TPU.

There XLA copies a whole cache before it gathers slots from it, and one of int8 before and after it
scatters into it, for it wants positions in another order. In programs compiled for v5e with jax
0.10.2 (96 slots of 2,048, 4 heads of 128, int8) the compiler expects 5.1 ms a layer and step so,
and 0.5 beside what the kernel takes. A token is written by a kernel that takes the block of
positions around it on chip and back; a prompt's slots are taken out and put back one by one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Int32

from server.quant import kv
from server.quant.kv import KV

# Positions that lie together in a tile, by the bytes of a number: codes fill 32 rows of a tile,
# bfloat16 16, float32 8. Scales [B,K,S] have positions along lanes, of which there are 128.
_ROWS = {1: 32, 2: 16, 4: 8}
_LANES = 128


@dataclass(frozen=True)
class TpuStore:
    """`Store`. Each device works on its own slots and heads: nothing here is left to XLA to split.

    interpret: the kernel runs as plain operations, anywhere; for tests.
    """

    mesh: Mesh
    interpret: bool = False

    def append(self, cache: KV, new: KV, index: Int32[Array, "B 1"]) -> KV:
        """See `Store`."""
        split = self._split(cache)
        return self._map(self._append, (split, split, PartitionSpec("data")), split)(
            cache, new, index
        )

    def write(
        self, cache: KV, new: KV, slots: Int32[Array, " N"], index: Int32[Array, "N T"]
    ) -> KV:
        """See `Store`."""
        split, heads, whole = self._split(cache), self._heads(cache), PartitionSpec()
        return self._map(_write_slots, (split, PartitionSpec(None, heads), whole, whole), split)(
            cache, new, slots, index
        )

    def read(self, cache: KV, slots: Int32[Array, " N"] | None, span: int) -> KV:
        """See `Store`."""
        if slots is None:
            return kv.read(cache, None, span)
        heads = PartitionSpec(None, self._heads(cache))
        return self._map(
            lambda cache, slots: _read_slots(cache, slots, span),
            (self._split(cache), PartitionSpec()),
            heads,
        )(cache, slots)

    def _append(self, cache: KV, new: KV, index: jax.Array) -> KV:
        old, kind = jax.tree.flatten(cache)
        turned = _lies_turned(cache)
        old = [_turn(each, turned) for each in old]
        fresh = [_turn(each, turned) for each in jax.tree.leaves(new)]
        index = index[:, 0]
        count = len(old)
        axes = tuple(3 if turned and each.ndim == 4 else 2 for each in old)
        blocks = [_block(each, axis) for each, axis in zip(old, axes, strict=True)]
        shapes: list[Any] = [jax.ShapeDtypeStruct(each.shape, each.dtype) for each in old]
        if not self.interpret:
            # Else XLA takes half of a 7B's caches on chip and back as a whole around the kernel: of
            # 14 GB that a step moved for v5e (96 slots of 2,048, int8) it was 6.
            old = [pltpu.with_memory_space_constraint(each, pltpu.HBM) for each in old]
            shapes = [pltpu.HBM(each.shape, each.dtype) for each in shapes]
        written = pl.pallas_call(
            partial(_put, axes, cache.length),
            out_shape=shapes,
            grid_spec=pltpu.PrefetchScalarGridSpec(
                num_scalar_prefetch=1,
                grid=index.shape,
                in_specs=[*map(_token, fresh), *blocks],
                out_specs=blocks,
            ),
            # Counted with the index.
            input_output_aliases={1 + count + n: n for n in range(count)},
            interpret=self.interpret,
        )(index, *fresh, *old)
        return jax.tree.unflatten(kind, [_turn(each, turned) for each in written])

    def _split(self, cache: KV) -> PartitionSpec:
        return PartitionSpec("data", self._heads(cache))

    def _heads(self, cache: KV) -> str | None:
        return "model" if cache.k.shape[1] % self.mesh.shape["model"] == 0 else None

    def _map(self, work: Callable, given: tuple[Any, ...], made: Any) -> Callable:
        # A kernel does not say over which axes its results vary.
        return jax.shard_map(work, mesh=self.mesh, in_specs=given, out_specs=made, check_vma=False)


def _put(axes: tuple[int, ...], length: int, index: Any, *refs: Any) -> None:
    """One slot: its token into the block around it. refs: tokens, blocks as they are, as they are
    to be; axes: where these have their `length` positions; `index` of each slot."""
    count = len(axes)
    at = index[pl.program_id(0)]
    near = jnp.minimum(at, length - 1)
    groups = (refs[:count], refs[count : 2 * count], refs[2 * count :])
    for axis, new, old, out in zip(axes, *groups, strict=True):
        block = old[...]
        # Codes are chosen as int32: the TPU selects no narrower integers.
        wide = jnp.int32 if block.dtype == jnp.int8 else jnp.float32
        here = lax.broadcasted_iota(jnp.int32, block.shape, axis)
        here = here + near // block.shape[axis] * block.shape[axis]
        fresh = jnp.broadcast_to(new[...].astype(wide), block.shape)
        out[...] = jnp.where(here == at, fresh, block.astype(wide)).astype(block.dtype)


def _block(cache: jax.Array, axis: int) -> pl.BlockSpec:
    """The positions around a slot's token; around the last for one that is out of range."""
    length = cache.shape[axis]
    last = axis == cache.ndim - 1
    rows = min(length, _LANES if last else _ROWS[cache.dtype.itemsize])
    shape = (1, *cache.shape[1:axis], rows, *cache.shape[axis + 1 :])

    def place(slot: Any, index: Any) -> tuple[Any, ...]:
        block = jnp.minimum(index[slot], length - 1) // rows
        return (slot, *(block if n == axis else 0 for n in range(1, cache.ndim)))

    return pl.BlockSpec(shape, place)


def _lies_turned(cache: KV) -> bool:
    """Whether a TPU keeps the positions of an array [B,K,S,H] along its lanes: it does where heads
    would fill them in part only (seen with 64). A wrong guess costs a copy."""
    return cache.k.shape[3] % _LANES != 0 and cache.k.shape[2] % _LANES == 0


def _turn(x: jax.Array, turned: bool) -> jax.Array:
    return jnp.swapaxes(x, 2, 3) if turned and x.ndim == 4 else x


def _token(new: jax.Array) -> pl.BlockSpec:
    return pl.BlockSpec((1, *new.shape[1:]), lambda slot, _: (slot, *(0 for _ in new.shape[1:])))


def _read_slots(cache: KV, slots: jax.Array, span: int) -> KV:
    """Each device gives the slots that it holds and zeros for the others."""
    here = _local(cache, slots)
    held = (here >= 0) & (here < cache.k.shape[0])

    def take(x: jax.Array) -> jax.Array:
        found = lax.map(lambda slot: _slot(x, slot, span)[0], here)
        if lax.axis_size("data") == 1:
            return found
        mine = held.reshape(-1, *(1,) * (found.ndim - 1))
        # Exact in any type: all but one are zero.
        return lax.psum(jnp.where(mine, found, jnp.zeros_like(found)), "data")

    return jax.tree.map(take, cache)


def _write_slots(cache: KV, new: KV, slots: jax.Array, index: jax.Array) -> KV:
    """One slot after the other, in a loop: unrolled, 8 rows of 2 layers were 40 MiB of code."""
    here = _local(cache, slots)
    count, _, length = cache.k.shape[:3]
    held = (here >= 0) & (here < count)
    tokens = jnp.where(held, jnp.sum(index < length, axis=1), 0)
    # By how many positions each of a slot lies behind the row's first token.
    behind = (jnp.arange(length, dtype=jnp.int32) - index[:, :1]) % length

    def put(n: jax.Array, cache: KV) -> KV:
        def one(old: jax.Array, fresh: jax.Array) -> jax.Array:
            slot = _slot(old, here[n], length)
            chunk = _slot(fresh, n, fresh.shape[2])
            rest = old.ndim - 3
            more = [(0, 0), (0, 0), (0, length - chunk.shape[2])] + [(0, 0)] * rest
            spread = jnp.pad(chunk, more)
            spread = jnp.roll(spread, index[n, 0] % length, axis=2)
            written = (behind[n] < tokens[n]).reshape(-1, *(1,) * rest)
            slot = jnp.where(written, spread, slot)
            # Clamped as it was taken: a slot that is not here is put back as it was.
            return lax.dynamic_update_slice(old, slot, (here[n], *(0,) * (old.ndim - 1)))

        return jax.tree.map(one, cache, new)

    return lax.fori_loop(0, len(slots), put, cache)


def _slot(x: jax.Array, slot: jax.Array, span: int) -> jax.Array:
    """[1, K, span, ..] of the nearest slot that is here."""
    return lax.dynamic_slice(x, (slot, *(0,) * (x.ndim - 1)), (1, x.shape[1], span, *x.shape[3:]))


def _local(cache: KV, slots: jax.Array) -> jax.Array:
    """What each slot is called on this device; of another device, a number out of range."""
    return slots - lax.axis_index("data").astype(slots.dtype) * cache.k.shape[0]
