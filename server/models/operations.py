"""What a device computes in its own way between the weight products, and the plain forms of it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int32

from server.attention.rows import Attention


def rms_norm(
    x: Float[Array, "... D"], weight: Float[Array, " D"], eps: float
) -> Float[Array, "... D"]:
    """x / sqrt(mean(x^2) + eps) * weight, float32 inside."""
    wide = x.astype(jnp.float32)
    mean = jnp.mean(wide * wide, axis=-1, keepdims=True)
    return (wide * lax.rsqrt(mean + eps) * weight.astype(jnp.float32)).astype(x.dtype)


def layer_norm(
    x: Float[Array, "... D"], weight: Float[Array, " D"], bias: Float[Array, " D"], eps: float
) -> Float[Array, "... D"]:
    """(x - mean(x)) / sqrt(variance(x) + eps) * weight + bias, float32 inside."""
    wide = x.astype(jnp.float32)
    centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
    factor = lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + eps)
    y = centred * factor * weight.astype(jnp.float32) + bias.astype(jnp.float32)
    return y.astype(x.dtype)


def activate(x: Float[Array, "... P F"], activation: str) -> Float[Array, "... F"]:
    """activation(x[.., 0, :]), times x[.., 1, :] where P is 2; the activation float32 inside.

    `activation` is one of server.models.spec.ACTIVATIONS.
    """
    chosen = _ACTIVATIONS[activation](x[..., 0, :].astype(jnp.float32)).astype(x.dtype)
    return chosen if x.shape[-2] == 1 else chosen * x[..., 1, :]


_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "silu": jax.nn.silu,
    "gelu-tanh": partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
}


def argmax(x: Float[Array, "B V"]) -> Int32[Array, " B"]:
    """The first index of the largest value of each row. As two plain reductions it is several times
    faster on CPU than XLA's reduction over pairs; a row of NaN gives the last index."""
    indices = lax.broadcasted_iota(jnp.int32, x.shape, 1)
    largest = jnp.max(x, axis=-1, keepdims=True)
    return jnp.min(jnp.where(x == largest, indices, x.shape[1] - 1), axis=-1)


def unplaced(x: Float[Array, "N T D"]) -> Float[Array, "N T D"]:
    """As it comes."""
    return x


@dataclass(frozen=True)
class Operations:
    """The forms that a device takes; all but attention have one that every device can.

    residual: where the devices of a mesh keep what the layers add to.
    """

    attention: Attention
    norm: Callable[[jax.Array, jax.Array, float], jax.Array] = rms_norm
    layer_norm: Callable[[jax.Array, jax.Array, jax.Array, float], jax.Array] = layer_norm
    activate: Callable[[jax.Array, str], jax.Array] = activate
    argmax: Callable[[jax.Array], jax.Array] = argmax
    residual: Callable[[jax.Array], jax.Array] = unplaced
