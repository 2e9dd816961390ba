"""How attention reads and writes the cache of a layer."""

from typing import Protocol

import jax
from jaxtyping import Array, Int32

from server.quant import kv
from server.quant.kv import KV


class Store(Protocol):
    """Reads and writes; what is meant by each place is as in `server.quant.kv`."""

    def append(self, cache: KV, new: KV, index: Int32[Array, "B 1"]) -> KV:
        """Puts new[b, :, 0] at cache[b, :, index[b]]; an index out of range writes nothing."""

    def write(
        self, cache: KV, new: KV, slots: Int32[Array, " N"], index: Int32[Array, "N T"]
    ) -> KV:
        """Puts new[n, :, t] at cache[slots[n], :, index[n, t]], as `kv.write`.

        A row's indices count up modulo the cache's length; those that are out of range come last.
        """

    def read(self, cache: KV, slots: Int32[Array, " N"] | None, span: int) -> KV:
        """The first `span` positions of some slots, or of all, as `kv.read`."""


class PlainStore:
    """Gather and scatter, for XLA to do as it likes."""

    def append(self, cache: KV, new: KV, index: Int32[Array, "B 1"]) -> KV:
        """See `Store`."""
        return kv.write(cache, new, jax.numpy.arange(len(index), dtype=index.dtype), index)

    def write(
        self, cache: KV, new: KV, slots: Int32[Array, " N"], index: Int32[Array, "N T"]
    ) -> KV:
        """See `Store`."""
        return kv.write(cache, new, slots, index)

    def read(self, cache: KV, slots: Int32[Array, " N"] | None, span: int) -> KV:
        """See `Store`."""
        return kv.read(cache, slots, span)
