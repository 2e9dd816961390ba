"""The loss of every token, for vocabularies whose logits are too large to hold at once."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int32

from server.models.decoder import logits
from server.models.parameters import Parameters
from server.models.spec import ModelSpec

# Logits that are made at once, in float32. Those of 16 x 1,024 tokens and a vocabulary of 49,152
# would take 3.2 GB.
LOGIT_BYTES = 64 * 2**20


def token_losses(
    spec: ModelSpec,
    parameters: Parameters,
    hidden: Float[Array, "B T D"],
    targets: Int32[Array, "B T"],
) -> Float[Array, "B T"]:
    """-log softmax(logits of the hidden state)[target], in nats, some positions at a time."""
    rows, length = targets.shape
    size = min(length, max(1, LOGIT_BYTES // (4 * spec.vocab * rows)))

    def block(first: jax.Array) -> Float[Array, "B size"]:
        part = lax.dynamic_slice_in_dim(hidden, first, size, axis=1)
        target = lax.dynamic_slice_in_dim(targets, first, size, axis=1)
        return cross_entropy(logits(parameters, part), target)

    # The last block begins earlier where it would not be full.
    starts = np.minimum(np.arange(0, length, size), length - size).astype(np.int32)
    blocks = lax.map(block, jnp.asarray(starts))
    spare = len(starts) * size - length
    full = jnp.moveaxis(blocks[:-1], 0, 1).reshape(rows, length - size + spare)
    return jnp.concatenate([full, blocks[-1][:, spare:]], axis=1)


def cross_entropy(
    scores: Float[Array, "B T V"], targets: Int32[Array, "B T"]
) -> Float[Array, "B T"]:
    """-log softmax(scores)[target]. As a sum over the vocabulary, which may be split over devices,
    and not as a look-up, for which XLA would gather all of it."""
    ids = lax.broadcasted_iota(jnp.int32, scores.shape, scores.ndim - 1)
    chosen = jnp.sum(jnp.where(ids == targets[..., None], scores, 0.0), -1)
    return jax.nn.logsumexp(scores, axis=-1) - chosen
