"""Operations in C for x86 CPUs with AVX-512 VNNI, called through XLA's FFI.

They can be used once `build.load` returned "", inside `jax.jit` and with all arrays on one device.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, BFloat16, Float, Float32, Int32, UInt8

LANES = 16  # outputs in one register
LINE = 64  # bytes that memory moves at once
MAX_HEAD_DIM = 256
BLOCK = 64  # positions that prefill attention lays out together
ACTIVATIONS = {"silu": "silu", "gelu-tanh": "gelu", "relu": "relu"}
MAX_INPUTS = 65536  # 255 * 127 of each add up within an int32


def fits(outputs: int, inputs: int, together: int = 4) -> bool:
    """Whether a weight [outputs, inputs] can be packed, `together` inputs in a product's step; the
    pack functions refuse others.
    """
    shaped = outputs % LANES == 0 and inputs % together == 0 and outputs > 0
    return shaped and 0 < inputs <= MAX_INPUTS


def pack_int8(w: Any) -> Any:
    """Codes int8 [N, K] -> uint8 [N/16, K/4, 16, 4], numpy or JAX as given; 128 added to each.

    ValueError unless N is a multiple of 16 and K of 4.
    """
    outputs, inputs = _checked(w)
    shifted = (w.astype(jnp.int16) + 128).astype(jnp.uint8)
    blocks = shifted.reshape(outputs // LANES, LANES, inputs // 4, 4)
    return blocks.transpose(0, 2, 1, 3)  # [N/16, 16, K/4, 4] -> [N/16, K/4, 16, 4]


def pack_f32(w: Any) -> Any:
    """float32 [N, K] -> [N/16, K, 16], numpy or JAX as given. ValueError as for `pack_int8`."""
    outputs, inputs = _checked(w)
    return w.reshape(outputs // LANES, LANES, inputs).transpose(0, 2, 1)


def pack_bf16(w: Any) -> Any:
    """bfloat16 [N, K] -> [N/16, K/2, 16, 2], numpy or JAX as given.

    ValueError unless N is a multiple of 16 and K of 2.
    """
    outputs, inputs = _checked(w, 2)
    blocks = w.reshape(outputs // LANES, LANES, inputs // 2, 2)
    return blocks.transpose(0, 2, 1, 3)  # [N/16, 16, K/2, 2] -> [N/16, K/2, 16, 2]


def int8_product(
    x: Float[Array, "M K"],
    packed: UInt8[Array, "blocks quads 16 4"],
    scale: Float32[Array, " N"],
    outputs: int | None = None,
) -> Float32[Array, "M outputs"]:
    """(x @ w.T) * scale with x in two int8 terms; see `two_term.py`.

    `outputs` as in `f32_product`.
    """
    return product("int8_product", Units(terms=2), x, packed, scale, outputs=outputs)


def dynamic_product(
    x: Float[Array, "M K"], packed: UInt8[Array, "blocks quads 16 4"], scale: Float32[Array, " N"]
) -> Float32[Array, "M N"]:
    """(x @ w.T) * scale with x in one int8 term: 127 steps of the largest value of a row."""
    return product("dynamic_product", Units(), x, packed, scale)


def decomp_product(
    x: Float[Array, "M K"],
    packed: UInt8[Array, "blocks quads 16 4"],
    scale: Float32[Array, " N"],
    threshold: float,
) -> Float32[Array, "M N"]:
    """As `dynamic_product`, but inputs in which any row reaches the threshold stay float32."""
    limit = np.float32(threshold)
    return product("decomp_product", Units(), x, packed, scale, threshold=limit)


def f32_product(
    x: Float[Array, "M K"], packed: Float32[Array, "blocks K 16"], outputs: int | None = None
) -> Float32[Array, "M outputs"]:
    """x @ w.T, accumulated in float32.

    outputs: so many of the weight's, all but at most the last 15; None for all. Cutting them off
    later would copy the logits on one core.
    """
    return product("f32_product", Units(inputs=1), x, packed, outputs=outputs)


@dataclass(frozen=True)
class Units:
    """How a product keeps a row of x: as `terms` rows of units of `inputs` each, with sums of their
    own for each of `groups`."""

    terms: int = 1
    inputs: int = 4
    groups: int = 1

    def scratch(self, tokens: int, inputs: int) -> jax.ShapeDtypeStruct:
        """Memory for rows of x [tokens, inputs]: scales, sums, units, and the order of the rows.

        A result of the call, so that XLA counts it among a program's temporaries and uses it again.
        The C code refuses another size.
        """
        rows = tokens * self.terms
        parts = (rows, rows * self.groups, rows * (inputs // self.inputs), tokens)
        lines = sum(-(-4 * each // LINE) for each in parts)
        return jax.ShapeDtypeStruct((lines * LINE,), jnp.uint8)


def product(
    name: str,
    units: Units,
    x: jax.Array,
    packed: jax.Array,
    *rest: Any,
    outputs: int | None = None,
    **attributes: Any,
) -> jax.Array:
    """Calls a product in C: x [M,K], weights packed for N/16 blocks of outputs -> [M,N] float32.
    `outputs` as in `f32_product`.
    """
    tokens, inputs = x.shape
    out = _product_shape(x, packed, outputs)
    call = jax.ffi.ffi_call(f"loadstone_{name}", (out, units.scratch(tokens, inputs)))
    return call(x.astype(jnp.float32), packed, *rest, **attributes)[0]


def bf16_product(
    x: Float[Array, "M K"],
    packed: BFloat16[Array, "blocks pairs 16 2"],
    outputs: int | None = None,
) -> Float32[Array, "M outputs"]:
    """bfloat16(x) @ w.T, accumulated in float32; only where `build.lacks_bf16` returned "".
    `outputs` as in `f32_product`.
    """
    return product("bf16_product", Units(inputs=2), x, packed, outputs=outputs)


def attention_fits(heads: int, kv_heads: int, head_dim: int) -> bool:
    """Whether `attention` takes these sizes."""
    return heads % kv_heads == 0 and head_dim % LANES == 0 and 0 < head_dim <= MAX_HEAD_DIM


def attention(
    qkv: Float[Array, "N T K G+2 H"],
    cos: Float[Array, "N T H/2"],
    sin: Float[Array, "N T H/2"],
    starts: Int32[Array, " N"],
    lengths: Int32[Array, " N"],
    slots: Int32[Array, " N"],
    cache: Sequence[jax.Array],
    scale: float,
    slopes: Sequence[Sequence[float]] | None = None,
) -> tuple[jax.Array, ...]:
    """Turns, attends and writes: out [N,T,K,G,H] float32, then the arrays of the cache.

    What goes in is as in `server.attention.rows`, `slopes` [K][G] too. `cache` is k, v [B,K,S,H]
    float32, or int8 with k_scale, v_scale [B,K,S] behind them; it is written in place where XLA may
    (donated and not used again). No two rows name one slot, and T is at most S. ValueError unless
    `attention_fits`.
    """
    rows, tokens, heads, vectors, head = qkv.shape
    if not attention_fits((vectors - 2) * heads, heads, head) or tokens > cache[0].shape[2]:
        raise ValueError(
            f"CPU attention cannot take {tokens} tokens with heads of size {head} and a cache of "
            f"{cache[0].shape[2]} positions: the size must be a multiple of {LANES} and at most "
            f"{MAX_HEAD_DIM}, the tokens at most the positions; use a plain form"
        )
    shapes = [jax.ShapeDtypeStruct((rows, tokens, heads, vectors - 2, head), jnp.float32)]
    shapes += [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in cache]
    if tokens > 1:
        shapes.append(_laid(rows, tokens, heads, head))
    call = jax.ffi.ffi_call(
        "loadstone_attention",
        shapes,
        input_output_aliases={6 + i: 1 + i for i in range(len(cache))},
    )
    floats = (x.astype(jnp.float32) for x in (qkv, cos, sin))
    found = call(*floats, starts, lengths, slots, *cache, **_settings(scale, slopes))
    return tuple(found[: 1 + len(cache)])


def uncached_attention(
    qkv: Float[Array, "N T K G+2 H"],
    cos: Float[Array, "N T H/2"],
    sin: Float[Array, "N T H/2"],
    lengths: Int32[Array, " N"],
    window: int,
    scale: float,
    slopes: Sequence[Sequence[float]] | None = None,
) -> Float32[Array, "N T K G H"]:
    """Turns and attends: each row's tokens to the last `window` of themselves.

    What goes in is as in `server.attention.rows`, `slopes` [K][G] too. ValueError unless
    `attention_fits`.
    """
    rows, tokens, heads, vectors, head = qkv.shape
    if not attention_fits((vectors - 2) * heads, heads, head) or window < 1:
        raise ValueError(
            f"CPU attention cannot take heads of size {head} and a window of {window}: the size "
            f"must be a multiple of {LANES} and at most {MAX_HEAD_DIM}, the window at least 1; use "
            "a plain form"
        )
    out = jax.ShapeDtypeStruct((rows, tokens, heads, vectors - 2, head), jnp.float32)
    shapes = [out, _laid(rows, tokens, heads, head)]
    call = jax.ffi.ffi_call("loadstone_uncached_attention", shapes)
    floats = (x.astype(jnp.float32) for x in (qkv, cos, sin))
    settings = _settings(scale, slopes) | {"window": np.int32(min(window, tokens))}
    return call(*floats, lengths, **settings)[0]


def _laid(rows: int, tokens: int, heads: int, head: int) -> jax.ShapeDtypeStruct:
    """Scratch memory for keys and values in whole blocks. A result of the call, so that XLA counts
    it among a program's temporaries and uses it again."""
    size = rows * heads * -(-tokens // BLOCK) * 2 * BLOCK * head
    return jax.ShapeDtypeStruct((size,), jnp.float32)


def norm(x: Float[Array, "... D"], weight: Float[Array, " D"], eps: float) -> Float32[Array, "..."]:
    """x / sqrt(mean(x^2) + eps) * weight."""
    rows = x.astype(jnp.float32).reshape(-1, x.shape[-1])
    call = jax.ffi.ffi_call("loadstone_norm", jax.ShapeDtypeStruct(rows.shape, jnp.float32))
    out = call(rows, weight.astype(jnp.float32), epsilon=np.float32(eps))
    return out.reshape(x.shape)


def layer_norm(
    x: Float[Array, "... D"], weight: Float[Array, " D"], bias: Float[Array, " D"], eps: float
) -> Float32[Array, "... D"]:
    """(x - mean(x)) / sqrt(variance(x) + eps) * weight + bias."""
    rows = x.astype(jnp.float32).reshape(-1, x.shape[-1])
    call = jax.ffi.ffi_call("loadstone_layer_norm", jax.ShapeDtypeStruct(rows.shape, jnp.float32))
    floats = (array.astype(jnp.float32) for array in (weight, bias))
    out = call(rows, *floats, epsilon=np.float32(eps))
    return out.reshape(x.shape)


def activate(x: Float[Array, "... P F"], activation: str) -> Float32[Array, "... F"]:
    """activation(x[.., 0, :]), times x[.., 1, :] where P is 2; one of ACTIVATIONS."""
    outer, (parts, width) = x.shape[:-2], x.shape[-2:]
    rows = math.prod(outer)
    shape = jax.ShapeDtypeStruct((rows, width), jnp.float32)
    call = jax.ffi.ffi_call(f"loadstone_{ACTIVATIONS[activation]}", shape)
    return call(x.astype(jnp.float32).reshape(rows, parts, width)).reshape(*outer, width)


def argmax(x: Float[Array, "B V"]) -> Int32[Array, " B"]:
    """The first index of the largest value of each row; the last index where one is NaN."""
    call = jax.ffi.ffi_call("loadstone_argmax", jax.ShapeDtypeStruct(x.shape[:1], jnp.int32))
    return call(x.astype(jnp.float32))


def _product_shape(x: Any, packed: Any, outputs: int | None) -> jax.ShapeDtypeStruct:
    held = packed.shape[0] * LANES
    if outputs is not None and not held - LANES < outputs <= held:
        raise ValueError(
            f"a product gives {held - LANES + 1} to {held} outputs of a weight with {held}; "
            f"{outputs} were asked for"
        )
    shape = (x.shape[0], held if outputs is None else outputs)
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _settings(scale: float, slopes: Sequence[Sequence[float]] | None) -> dict[str, Any]:
    settings: dict[str, Any] = {"scale": np.float32(scale)}
    if slopes is not None:
        settings["slopes"] = np.asarray(slopes, np.float32).ravel()
    return settings


def _checked(w: Any, together: int = 4) -> tuple[int, int]:
    outputs, inputs = w.shape
    if not fits(outputs, inputs, together):
        raise ValueError(
            f"the CPU kernel cannot hold a weight of {outputs} outputs and {inputs} inputs: "
            f"outputs must be a multiple of {LANES}, inputs of {together} and at most "
            f"{MAX_INPUTS}; "
            "use the plain form for it"
        )
    return outputs, inputs
