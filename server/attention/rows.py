"""What attention is given, and the shape of every form of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32


@dataclass(frozen=True)
class Rows:
    """New tokens. Row n holds `lengths[n]` of them from position `starts[n]` on.

    `slots` names the cache slot of each row; None means all slots in order, one token each. A row
    of length 0 is idle; its slot may be out of range. `cos` and `sin` turn queries and keys to
    their positions.
    """

    starts: Int32[Array, " N"]
    lengths: Int32[Array, " N"]
    slots: Int32[Array, " N"] | None
    cos: Float[Array, "N T H/2"]
    sin: Float[Array, "N T H/2"]


@dataclass(frozen=True)
class Scores:
    """How a query scores a key: q . k * scale - slope * (query position - key position).

    `slopes` [K][G], ALiBi's (arXiv 2108.12409), one for each query head; None where positions are
    told otherwise. The caller then turns nothing: `Rows.cos` 1 and `Rows.sin` 0.
    """

    scale: float
    slopes: tuple[tuple[float, ...], ...] | None = None

    def of(
        self, products: Float[Array, "N K G ..."], back: Int32[Array, "N ..."]
    ) -> Float[Array, "N K G ..."]:
        """Scores from q . k, float32; `back` is by how many positions the key lies behind."""
        scores = products * self.scale
        if self.slopes is None:
            return scores
        slopes = jnp.asarray(self.slopes, jnp.float32)
        slopes = slopes.reshape(*slopes.shape, *(1,) * (back.ndim - 1))
        return scores - slopes * back[:, None, None].astype(jnp.float32)


# The second of each pair is an `Entry` of the kind that the form of attention keeps.
Attend = Callable[[jax.Array, Any], tuple[jax.Array, Any]]


class Attention(Protocol):
    """One form of attention."""

    def __call__(self, rows: Rows, length: int, span: int, scores: Scores) -> Attend:
        """A function for every layer that reads these rows: (qkv, cache) -> (out, cache).

        qkv [N,T,K,G+2,H] holds, before rotation, the G queries of each key/value head, its key and
        its value. out [N,T,K,G,H] is zero where there is no token. The cache comes back with the
        tokens in it. A token sees the last `length` positions, itself included. `span` (static)
        bounds the cache indices that are read: every live index of the rows before (prefill) or
        after (decode) the write lies below it; 0 means that nothing was there before.
        """
