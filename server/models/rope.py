"""Rotary positions, the two halves of a head as pairs (Hugging Face's order)."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from server.models.spec import ModelSpec


def rotation(
    spec: ModelSpec, positions: Int32[Array, "N T"]
) -> tuple[Float[Array, "N T H/2"], Float[Array, "N T H/2"]]:
    """Cosine and sine of every pair's angle, float32; of zero where the model does not rotate."""
    if spec.positions != "rope":
        shape = (*positions.shape, spec.head_dim // 2)
        return jnp.ones(shape, jnp.float32), jnp.zeros(shape, jnp.float32)
    angles = positions[..., None].astype(jnp.float32) * frequencies(spec)
    return jnp.cos(angles), jnp.sin(angles)


def frequencies(spec: ModelSpec) -> np.ndarray:
    """[H/2] radians per position, float32.

    Llama 3.1 divides slow frequencies by `factor`, keeps fast ones and blends in between, by how
    often a wave turns within the original context ("The Llama 3 Herd of Models", section 3.4.1).
    """
    exponents = np.arange(0, spec.head_dim, 2, dtype=np.float64) / spec.head_dim
    base = spec.rope_theta**-exponents
    if spec.rope_factors is not None:
        base = base / np.asarray(spec.rope_factors)
    scaling = spec.rope_scaling
    if scaling is None:
        return base.astype(np.float32)
    turns = scaling.original_positions * base / (2 * math.pi)
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    fast = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return (base * (fast + (1 - fast) / scaling.factor)).astype(np.float32)
