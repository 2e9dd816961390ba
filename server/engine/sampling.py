"""The next token on the device, each row with its own settings.

Limits are exact and need no sort: the top-k and top-p cuts are found by bisection on the bits of
the logits, 32 passes over [B,V].
Nothing but the argmax runs unless a row asks for more (`lax.cond` on the device).
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int32, UInt32

from server.models.operations import argmax as plain_argmax

Argmax = Callable[[jax.Array], jax.Array]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Settings:
    """Per row. Temperature 0 is greedy, top_k 0 and top_p 1 no limit; the seed in two halves."""

    temperature: Float[Array, " B"]
    top_k: Int32[Array, " B"]
    top_p: Float[Array, " B"]
    seed: UInt32[Array, "B 2"]
    logprobs: Bool[Array, " B"]


def sample(
    logits: Float[Array, "B V"],
    settings: Settings,
    positions: Int32[Array, " B"],
    active: jax.Array,
    argmax: Argmax = plain_argmax,
) -> tuple[Int32[Array, " B"], Float[Array, " B"]]:
    """The chosen token and its natural log-probability under the model (0 where not asked for).

    The noise depends on the row's seed and position alone, so a request gives the same tokens in
    any slot and beside any others. Temperature first, then top-k, then top-p of what is left.
    """
    greedy = argmax(logits)
    random = active & (settings.temperature > 0)
    token = lax.cond(
        jnp.any(random),
        lambda: jnp.where(random, argmax(_noisy(logits, settings, positions, random)), greedy),
        lambda: greedy,
    )
    logprob = lax.cond(
        jnp.any(active & settings.logprobs),
        lambda: _logprob(logits, token),
        lambda: jnp.zeros(token.shape, jnp.float32),
    )
    return token, logprob


def _noisy(
    logits: jax.Array, settings: Settings, positions: jax.Array, random: jax.Array
) -> jax.Array:
    warm = jnp.where(random, settings.temperature, 1.0)
    scaled = logits / warm[:, None]
    limited = random & ((settings.top_k > 0) | (settings.top_p < 1.0))
    kept = lax.cond(jnp.any(limited), lambda: _limit(scaled, settings, limited), lambda: scaled)
    keys = jax.vmap(_key)(settings.seed, positions)
    noise = jax.vmap(lambda key: jax.random.gumbel(key, scaled.shape[1:]))(keys)
    return kept + noise


def _key(seed: jax.Array, position: jax.Array) -> jax.Array:
    return jax.random.fold_in(jax.random.wrap_key_data(seed, impl="threefry2x32"), position)


def _limit(scaled: jax.Array, settings: Settings, limited: jax.Array) -> jax.Array:
    vocab = scaled.shape[-1]
    order = _ordered(scaled)
    wanted = jnp.where(settings.top_k > 0, jnp.minimum(settings.top_k, vocab), vocab)
    cut = _bisect(lambda at: jnp.sum(order >= at[:, None], -1) >= wanted, scaled.shape[0])
    keep = order >= cut[:, None]
    probabilities = jax.nn.softmax(jnp.where(keep, scaled, -jnp.inf), axis=-1)
    # The smallest set of the most likely tokens that holds top_p: all at or above the highest cut
    # whose mass still reaches it. Rounding may keep the whole sum below a top_p next to 1.
    mass = jnp.minimum(settings.top_p, 1.0 - 1e-6)
    cut = _bisect(
        lambda at: jnp.sum(jnp.where(order >= at[:, None], probabilities, 0.0), -1) >= mass,
        scaled.shape[0],
    )
    keep &= order >= cut[:, None]
    return jnp.where(keep | ~limited[:, None], scaled, -jnp.inf)


def _ordered(x: jax.Array) -> jax.Array:
    """uint32 in the order of the floats."""
    bits = lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    negative = bits >> 31 == 1
    return jnp.where(negative, ~bits, bits | jnp.uint32(1 << 31))


def _bisect(enough: Callable[[jax.Array], jax.Array], rows: int) -> jax.Array:
    """The largest uint32 for which `enough` still holds, per row; it must hold at 0."""

    def halve(step: int, low: jax.Array) -> jax.Array:
        bit = jnp.uint32(1) << (31 - jnp.asarray(step, jnp.uint32))
        return jnp.where(enough(low | bit), low | bit, low)

    return lax.fori_loop(0, 32, halve, jnp.zeros(rows, jnp.uint32))


def _logprob(logits: jax.Array, token: jax.Array) -> jax.Array:
    chosen = jnp.take_along_axis(logits, token[:, None], axis=-1)[:, 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)
