"""Splash attention, JAX's own Pallas kernel for TPUs: blocks that a mask hides are left out."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import (
    BlockSizes,
    CausalMask,
    LocalMask,
    MultiHeadMask,
    make_splash_mqa_single_device,
)
from jaxtyping import Array, Float, Int32

from server.attention.rows import Scores

LANES = 128  # rows come in whole multiples of it
BLOCKS = (512, 256, LANES)  # the largest that divides a row is taken


@dataclass(frozen=True)
class SplashAttention:
    """`SelfAttention`; without ALiBi. `interpret` runs the kernel anywhere, slowly, for tests."""

    interpret: bool = False

    def __call__(
        self,
        q: Float[Array, "N T K G H"],
        k: Float[Array, "N T K H"],
        v: Float[Array, "N T K H"],
        lengths: Int32[Array, " N"],
        window: int,
        scores: Scores,
    ) -> Float[Array, "N T K G H"]:
        """See `SelfAttention`. It needs no `lengths`: no token of a row sees what lies behind."""
        tokens, group = q.shape[1], q.shape[3]
        whole = -(-tokens // LANES) * LANES
        shape = (whole, whole)
        mask = CausalMask(shape) if window >= tokens else LocalMask(shape, (window - 1, 0), 0)
        block = next(size for size in BLOCKS if whole % size == 0)
        kernel = make_splash_mqa_single_device(
            MultiHeadMask([mask] * group),
            block_sizes=BlockSizes(block, block),
            interpret=self.interpret,
        )
        scaled = (q.astype(jnp.float32) * scores.scale).astype(q.dtype)
        padded = [
            jnp.pad(x, ((0, 0), (0, whole - tokens), *((0, 0),) * (x.ndim - 2)))
            for x in (scaled, k, v)
        ]
        queries = jnp.moveaxis(padded[0], 1, 3)  # [N,K,G,T,H]
        keys, values = (jnp.swapaxes(x, 1, 2) for x in padded[1:])  # [N,K,T,H]
        out = jax.vmap(jax.vmap(kernel))(queries, keys, values)
        return jnp.moveaxis(out, 3, 1)[:, :tokens]
