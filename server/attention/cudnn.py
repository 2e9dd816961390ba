"""cuDNN's flash attention, for NVIDIA GPUs since Ampere; its backward pass is not used here."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from server.attention.rows import Scores

# https://docs.nvidia.com/deeplearning/cudnn/frontend/latest/operations/Attention.html
OLDEST = (8, 0)  # compute capability
HEADS_OF_256 = (9, 0)  # since then heads may be that large; before, 128
HEAD_STEP = 8
TYPES = ("bfloat16", "float16")


def refuses(capability: tuple[int, int] | None, head_dim: int, compute: str, alibi: bool) -> str:
    """Why cuDNN cannot serve; "" when it can. `capability` None: the GPU is not NVIDIA's."""
    if capability is None:
        return "the GPU is not NVIDIA's"
    if capability < OLDEST:
        return f"compute capability {_dotted(capability)} is older than {_dotted(OLDEST)}"
    if alibi:
        return "ALiBi would need a bias for every pair of positions"
    if compute not in TYPES:
        return f"{compute} activations; it takes {' or '.join(TYPES)}"
    most = 256 if capability >= HEADS_OF_256 else 128
    if head_dim % HEAD_STEP or head_dim > most:
        return f"head size {head_dim}; it takes multiples of {HEAD_STEP} up to {most}"
    return ""


def attend_cudnn(
    q: Float[Array, "N T K G H"],
    k: Float[Array, "N T K H"],
    v: Float[Array, "N T K H"],
    lengths: Int32[Array, " N"],
    window: int,
    scores: Scores,
) -> Float[Array, "N T K G H"]:
    """`SelfAttention`. It needs no `lengths`: no token of a row sees what lies behind it."""
    rows, tokens, heads, group, head = q.shape
    out = jax.nn.dot_product_attention(
        q.reshape(rows, tokens, heads * group, head),
        k,
        v,
        scale=scores.scale,
        is_causal=True,
        # As many positions on the left as are seen beside the token's own.
        local_window_size=None if window >= tokens else (window - 1, 0),
        implementation="cudnn",
    )
    return out.reshape(q.shape)


def trial(device: jax.Device, head_dim: int, compute: str) -> str:
    """Compiles a small case: why this machine's cuDNN cannot be used, "" when it can."""
    place = jax.sharding.SingleDeviceSharding(device)

    def like(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.dtype(compute), sharding=place)

    q, k = like(1, 128, 1, 2, head_dim), like(1, 128, 1, head_dim)
    lengths = jax.ShapeDtypeStruct((1,), jnp.int32, sharding=place)

    def attend(q: jax.Array, k: jax.Array, v: jax.Array, lengths: jax.Array) -> jax.Array:
        return attend_cudnn(q, k, v, lengths, 128, Scores(1.0))

    try:
        jax.jit(attend).lower(q, k, k, lengths).compile()
    except (RuntimeError, NotImplementedError, ValueError) as error:
        return f"it does not compile: {str(error).splitlines()[0][:200]}"
    return ""


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))
