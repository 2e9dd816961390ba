"""The scratch memory of the C operations: XLA's own, and of just the size that they use."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from server.kernels import build, cpu, cpu_codes
from tests.cache import CACHE

SMALL = 32 * 1024  # what belongs to no array named here
TOKENS, OUTPUTS, INPUTS, BLOCK = 301, 64, 256, 64
FLOATS = np.ones((OUTPUTS, INPUTS), np.float32)
SCALE = np.ones(OUTPUTS, np.float32)
BLOCKS = cpu_codes.pack_lanes(np.ones((OUTPUTS, INPUTS // BLOCK), np.float32))
NIBBLES = cpu_codes.pack_nibbles(np.ones((OUTPUTS, INPUTS), np.uint8))
TABLE = np.linspace(-1, 1, 16, dtype=np.float32)
INT8 = cpu.pack_int8(FLOATS.astype(np.int8))
# Each product, and how many bytes of units a row of x becomes.
PRODUCTS: dict[str, tuple[Callable[..., Any], int]] = {
    "int8": (lambda x: cpu.int8_product(x, INT8, SCALE), 2 * INPUTS),
    "dynamic": (lambda x: cpu.dynamic_product(x, INT8, SCALE), INPUTS),
    "decomp": (lambda x: cpu.decomp_product(x, INT8, SCALE, 6.0), INPUTS),
    "f32": (lambda x: cpu.f32_product(x, cpu.pack_f32(FLOATS)), 4 * INPUTS),
    "bf16": (
        lambda x: cpu.bf16_product(x, cpu.pack_bf16(jnp.asarray(FLOATS, jnp.bfloat16))),
        2 * INPUTS,
    ),
    "int4": (lambda x: cpu_codes.int4_product(x, NIBBLES, BLOCKS, BLOCK), 2 * INPUTS),
    "nf4": (lambda x: cpu_codes.nf4_product(x, NIBBLES, BLOCKS, TABLE, BLOCK), 2 * INPUTS),
    "fp8": (
        lambda x: cpu_codes.fp8_product(
            x, cpu_codes.pack_lanes(np.ones((OUTPUTS, INPUTS), np.uint8)), SCALE
        ),
        4 * INPUTS,
    ),
}


@pytest.fixture(scope="module", autouse=True)
def kernel() -> None:
    reason = build.load(CACHE)
    if reason:
        pytest.skip(f"no CPU kernel: {reason}")


def temporaries(function: Callable[..., Any], *arguments: Any) -> int:
    """Bytes, as the compiler counts; the program also runs."""
    program = jax.jit(function).lower(*arguments).compile()
    jax.block_until_ready(program(*arguments))
    return program.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("name", PRODUCTS)
def test_the_units_of_a_product_are_in_the_compilers_account(name: str) -> None:
    if name == "bf16" and (reason := build.lacks_bf16()):
        pytest.skip(f"no CPU kernel for bfloat16: {reason}")
    product, each = PRODUCTS[name]
    counted = temporaries(product, np.ones((TOKENS, INPUTS), np.float32))
    # Beside them sums, and y where it is copied; of decomp the outliers' lists are not.
    assert TOKENS * each < counted < TOKENS * (each + 2 * 4 * INPUTS // BLOCK + 4 * OUTPUTS) + SMALL


@pytest.mark.parametrize("tokens", [1, 65])
def test_the_blocks_of_attention_are_in_the_compilers_account(tokens: int) -> None:
    rows, heads, group, head, length = 3, 2, 2, 32, 128
    qkv = np.ones((rows, tokens, heads, group + 2, head), np.float32)
    turn = np.ones((rows, tokens, head // 2), np.float32)
    cache = np.zeros((rows, heads, length, head), np.float32)
    ones, slots = np.ones(rows, np.int32), np.arange(rows, dtype=np.int32)

    def attend(k: jax.Array, v: jax.Array) -> tuple[jax.Array, ...]:
        return cpu.attention(qkv, turn, turn, ones, ones, slots, (k * 2, v * 2), 1.0)

    laid = rows * heads * 2 * cpu.BLOCK * 2 * head * 4 if tokens > 1 else 0
    both = 2 * cache.nbytes  # what k * 2 and v * 2 take at most
    assert laid <= temporaries(attend, cache, cache) <= laid + both + SMALL


@pytest.mark.parametrize("off", [-64, 64])
def test_scratch_of_another_size_is_refused(off: int) -> None:
    x = np.ones((5, INPUTS), np.float32)
    (size,) = cpu.Units(inputs=1).scratch(5, INPUTS).shape
    results = [
        jax.ShapeDtypeStruct((5, OUTPUTS), jnp.float32),
        jax.ShapeDtypeStruct((size + off,), jnp.uint8),
    ]
    call = jax.jit(jax.ffi.ffi_call("loadstone_f32_product", results))
    with pytest.raises(jax.errors.JaxRuntimeError, match="scratch memory is of another size"):
        jax.block_until_ready(call(x, cpu.pack_f32(FLOATS)))
