"""Attention that XLA cannot split by itself, on the part of rows and heads that each device has."""

from dataclasses import dataclass

import jax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int32

from server.attention.rows import Scores
from server.attention.uncached import SelfAttention


@dataclass(frozen=True)
class SplitAttention:
    """`SelfAttention` by `form` on each device of the mesh: rows over "data", heads over "model".

    What does not divide evenly is done whole on each. Without ALiBi, whose slopes are not split.
    """

    form: SelfAttention
    mesh: Mesh

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

        def attend(q: jax.Array, k: jax.Array, v: jax.Array, lengths: jax.Array) -> jax.Array:
            return self.form(q, k, v, lengths, window, scores)

        rows, heads = self._axis("data", q.shape[0]), self._axis("model", q.shape[2])
        vectors = PartitionSpec(rows, None, heads)
        return jax.shard_map(
            attend,
            mesh=self.mesh,
            in_specs=(vectors, vectors, vectors, PartitionSpec(rows)),
            out_specs=vectors,
            check_vma=False,  # a Pallas kernel does not say over which axes its results vary
        )(q, k, v, lengths)

    def _axis(self, name: str, size: int) -> str | None:
        return name if size % self.mesh.shape[name] == 0 else None
