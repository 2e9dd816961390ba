"""The decoder: one forward for prefill and decode, of every family.

Letters in shapes: N rows (one per slot at work), T tokens a row, D hidden, K key/value heads, G
query heads of each, H head size, F inner MLP width, S cache positions, V vocabulary.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

from server.attention.rows import Attend, Rows, Scores
from server.models import alibi
from server.models.operations import Operations
from server.models.parameters import Layer, Norm, Parameters
from server.models.rope import rotation
from server.models.spec import ModelSpec
from server.quant.kv import Entry

Cache = tuple[Entry, ...]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """Tokens to read; `starts`, `lengths` and `slots` are as in `Rows`."""

    tokens: Int32[Array, "N T"]
    starts: Int32[Array, " N"]
    lengths: Int32[Array, " N"]
    slots: Int32[Array, " N"] | None


def forward(
    spec: ModelSpec,
    operations: Operations,
    parameters: Parameters,
    cache: Cache,
    batch: Batch,
    span: int,
) -> tuple[Float[Array, "N T D"], Cache]:
    """Reads the batch: the hidden states after the last norm, and the cache with the batch in it.

    Each token sees the last `cache length` positions, itself included. `span` is as in `Attention`.
    Entries that keep nothing (`NoKV`) go with a form of attention that needs none.
    """
    offsets = jnp.arange(batch.tokens.shape[1], dtype=jnp.int32)
    positions = batch.starts[:, None] + offsets
    rows = Rows(batch.starts, batch.lengths, batch.slots, *rotation(spec, positions))
    scores = Scores(spec.head_dim**-0.5, alibi.slopes(spec))
    attend = operations.attention(rows, cache[0].length, span, scores)
    block = _Block(spec, operations, attend, offsets < batch.lengths[:, None])
    x = operations.residual(block.embed(parameters, batch.tokens, positions))
    written = []
    for layer, entry in zip(parameters.layers, cache, strict=True):
        attended, entry = block.attention(layer, entry, x)
        x = operations.residual(x + attended)
        x = operations.residual(x + block.mlp(layer, x))
        written.append(entry)
    return block.norm(parameters.final_norm, x), tuple(written)


def logits(parameters: Parameters, hidden: Float[Array, "... D"]) -> Float[Array, "... V"]:
    """Scores of the next token, float32."""
    return parameters.head(hidden).astype(jnp.float32)


@dataclass(frozen=True)
class _Block:
    """What all layers share. Idle rows and padding, which are not `live`, stay zero through every
    layer: the CPU kernel skips zero rows.
    """

    spec: ModelSpec
    operations: Operations
    attend: Attend
    live: Bool[Array, "N T"]

    def embed(
        self, parameters: Parameters, tokens: Int32[Array, "N T"], positions: Int32[Array, "N T"]
    ) -> Float[Array, "N T D"]:
        x = parameters.embedding[tokens]
        if self.spec.scaled_embedding:
            x = x * jnp.asarray(self.spec.hidden**0.5, x.dtype)
        if parameters.positions is not None:
            # The engine lets no request past the last; padding behind one may lie there.
            x = x + parameters.positions.at[positions].get(mode="clip")
        x = self._masked(x)
        return x if parameters.embedding_norm is None else self.norm(parameters.embedding_norm, x)

    def norm(self, norm: Norm, x: Float[Array, "N T D"]) -> Float[Array, "N T D"]:
        eps = self.spec.norm_eps
        if norm.bias is None:
            return self.operations.norm(x, norm.weight, eps)
        return self._masked(self.operations.layer_norm(x, norm.weight, norm.bias, eps))

    def attention(
        self, layer: Layer, entry: Entry, x: Float[Array, "N T D"]
    ) -> tuple[Float[Array, "N T D"], Entry]:
        qkv = layer.qkv(self.norm(layer.attention_norm, x))  # [N,T,K,G+2,H]
        out, entry = self.attend(self._plus(qkv, layer.qkv_bias), entry)
        out = layer.out(out.reshape(*x.shape[:2], -1))  # [N,T,K,G,H] -> [N,T,KGH]
        return self._plus(out, layer.out_bias), entry

    def mlp(self, layer: Layer, x: Float[Array, "N T D"]) -> Float[Array, "N T D"]:
        inner = self._plus(layer.gate_up(self.norm(layer.mlp_norm, x)), layer.gate_up_bias)
        inner = self.operations.activate(
            inner, self.spec.activation
        )  # [N,T,C,P,F/C] -> [N,T,C,F/C]
        return self._plus(layer.down(inner.reshape(*x.shape[:2], -1)), layer.down_bias)

    def _plus(self, x: jax.Array, bias: jax.Array | None) -> jax.Array:
        if bias is None:
            return x
        # Flat: over all axes XLA's loop on CPU is slower, 2.6 ms and not 1.8 for [512, 16, 3, 128].
        flat = x.reshape(*x.shape[:2], -1) + bias.astype(x.dtype).ravel()
        return self._masked(flat).reshape(x.shape)

    def _masked(self, x: Float[Array, "N T X"]) -> Float[Array, "N T X"]:
        return jnp.where(self.live[..., None], x, jnp.zeros_like(x))
