"""Reads texts as prompts are read, in chunks through the KV cache, and says how likely they were.

So a quantized cache counts as it does when the model is served.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int32

from server.engine import mesh as meshes
from server.engine.backend import Backend
from server.engine.losses import token_losses
from server.models.decoder import Batch, Cache, forward
from server.models.parameters import Parameters
from server.models.spec import ModelSpec
from server.quant import kv


@dataclass(frozen=True)
class Reading:
    """`window`: tokens that see each other, at most: fewer where the model's own window is smaller.
    `chunk`: how many are read in a dispatch."""

    spec: ModelSpec
    backend: Backend
    mesh: Mesh
    parameters: Parameters
    window: int
    chunk: int

    def __post_init__(self) -> None:
        if self.window < 2 or not self.window >= self.chunk >= 1:
            raise ValueError(
                f"a window of {self.window} tokens read {self.chunk} at a time; the window has 2 "
                "or more, a chunk from 1 to the window's"
            )
        limit = self.spec.position_limit
        if limit is not None and self.window > limit:
            raise ValueError(
                f"a window of {self.window} tokens; {self.spec.name} has {limit} positions"
            )

    def losses(self, tokens: Sequence[int]) -> Float[np.ndarray, " T-1"]:
        """The negative log-likelihood of each token but the first, in nats.

        It starts with an empty cache. ValueError for more tokens than the window holds, or fewer
        than 2.
        """
        if not 2 <= len(tokens) <= self.window:
            raise ValueError(f"{len(tokens)} tokens; from 2 to the window's {self.window} are read")
        cache, found = self._empty_cache(), []
        size = self._size
        for start in range(0, len(tokens) - 1, size):
            part = np.asarray(tokens[start : start + size + 1], np.int32)
            losses, cache = self._program(self.parameters, cache, *self._batch(start, part))
            found.append((losses, len(part) - 1))
        return np.concatenate([np.asarray(losses)[0, :count] for losses, count in found])

    @cached_property
    def _program(self) -> Any:
        kept = meshes.whole(self.mesh), meshes.cache_sharding(self.spec, self.mesh)
        return jax.jit(self._read, donate_argnums=(1,), out_shardings=kept)

    @property
    def _length(self) -> int:
        """Positions of the cache; one as long as the model's sliding window is that window."""
        return min(self.window, self.spec.longest_cache or self.window)

    @property
    def _size(self) -> int:
        """Of a dispatch."""
        return min(self.chunk, self._length)

    @property
    def _rows(self) -> int:
        """As many as there are groups of slots; all but the first stay idle."""
        return self.mesh.shape["data"]

    def _batch(self, start: int, part: Int32[np.ndarray, " C"]) -> tuple[Batch, np.ndarray]:
        """A run of tokens, the last of which is only to be guessed; and what is to be guessed."""
        tokens, targets = np.zeros((2, self._rows, self._size), np.int32)
        tokens[0, : len(part) - 1], targets[0, : len(part) - 1] = part[:-1], part[1:]
        lengths = np.zeros(self._rows, np.int32)
        lengths[0] = len(part) - 1
        starts = np.where(lengths > 0, np.int32(start), np.int32(0))
        batch = Batch(
            tokens=jnp.asarray(tokens),
            starts=jnp.asarray(starts),
            lengths=jnp.asarray(lengths),
            slots=jnp.arange(self._rows, dtype=jnp.int32),
        )
        return batch, targets

    def _read(
        self, parameters: Parameters, cache: Cache, batch: Batch, targets: Int32[Array, "N T"]
    ) -> tuple[Float[Array, "N T"], Cache]:
        operations, span = self.backend.operations, self._length
        hidden, cache = forward(self.spec, operations, parameters, cache, batch, span)
        return token_losses(self.spec, parameters, hidden, targets), cache

    def _empty_cache(self) -> Cache:
        spec = self.spec
        sizes = (self._rows, spec.kv_heads, self._length, spec.head_dim, self.backend.cache)
        make = jax.jit(
            lambda: tuple(kv.empty(*sizes) for _ in range(spec.layers)),
            out_shardings=meshes.cache_sharding(spec, self.mesh),
        )
        return make()
