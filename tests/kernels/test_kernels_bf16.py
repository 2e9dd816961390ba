"""The product in bfloat16: against float64 within what the instruction rounds, and without it."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.kernels import build, cpu
from server.quant.bf16 import Bf16
from tests.cache import CACHE
from tests.quant.definitions import nearest_bf16

SHAPES = [(16, 2), (48, 6), (64, 34), (112, 200), (80, 4098), (640, 576)]
SMALLEST = 2.0**-126  # normal number; below it counts as zero


@pytest.fixture(scope="module", autouse=True)
def kernel() -> None:
    reason = build.load(CACHE) or build.lacks_bf16()
    if reason:
        pytest.skip(f"no CPU kernel for bfloat16: {reason}")


def weight(shape: tuple[int, int]) -> np.ndarray:
    random = np.random.default_rng(shape[0] * shape[1])
    return random.standard_normal(shape).astype(ml_dtypes.bfloat16)


def kernel_product(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return np.asarray(jax.jit(cpu.bf16_product)(x, cpu.pack_bf16(w)))


def plain_product(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    program = jax.jit(lambda w, x: Bf16(w, (w.shape[0],))(x))
    return np.asarray(program(jnp.asarray(w), x))


def bound(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """How far a sum may be from the exact one of the rounded x [M, K] and w [N, K].

    Each of K multiply-adds rounds its sum to nearest: K * 2^-24 of the sum of magnitudes (Higham,
    Accuracy and Stability of Numerical Algorithms, 3.1), and 1% for the magnitudes of the sums
    being rounded themselves. Numbers below 2^-126 count as zero: a value of x or w loses at most
    that much times the other, and a sum that much a step.
    """
    count = x.shape[1]
    large = np.abs(x) @ np.abs(w).T * count * 2.0**-24 * 1.01
    lost = np.abs(x).sum(1)[:, None] + np.abs(w).sum(1)[None] + count
    return large + SMALLEST * lost


def assert_right(got: np.ndarray, x: np.ndarray, w: np.ndarray) -> None:
    near, wide = nearest_bf16(x), w.astype(np.float64)
    assert got.dtype == np.float32
    assert (np.abs(got - near @ wide.T) <= bound(near, wide)).all()


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(SHAPES), st.integers(1, 70), st.integers(-30, 30), st.integers(0, 2**32 - 1))
def test_products_are_within_what_is_rounded(
    shape: tuple[int, int], tokens: int, exponent: int, seed: int
) -> None:
    """The kernel and its plain twin."""
    w = weight(shape)
    x = np.random.default_rng(seed).standard_normal((tokens, shape[1])).astype(np.float32)
    x *= np.float32(10.0) ** exponent
    assert_right(kernel_product(x, w), x, w)
    assert_right(plain_product(x, w), x, w)


def test_more_tokens_than_one_part_and_more_inputs_than_one_chunk() -> None:
    x = np.random.default_rng(1).standard_normal((301, 4098)).astype(np.float32)
    assert_right(kernel_product(x, weight((80, 4098))), x, weight((80, 4098)))


def test_sums_keep_float32() -> None:
    """A sum in bfloat16 would stop at 256."""
    x, w = np.ones((3, 4098), np.float32), np.ones((16, 4098), ml_dtypes.bfloat16)
    assert (kernel_product(x, w) == 4098).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_activations_are_rounded_to_nearest_and_ties_to_even(tokens: int, seed: int) -> None:
    """Every 64 bits of x alone, so that nothing else rounds; a quarter of them are ties."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((tokens, 64)).astype(np.float32)
    x *= (10.0 ** random.integers(-30, 30, x.shape)).astype(np.float32)
    bits = x.view(np.uint32)
    tie = random.random(x.shape) < 0.25
    bits[tie] = (bits[tie] & np.uint32(0xFFFF0000)) | np.uint32(0x8000)
    w = np.eye(64, dtype=ml_dtypes.bfloat16)
    expected = nearest_bf16(x)
    np.testing.assert_array_equal(kernel_product(x, w), expected)
    np.testing.assert_array_equal(plain_product(x, w), expected)
    np.testing.assert_array_equal(x.astype(ml_dtypes.bfloat16).astype(np.float64), expected)


def test_zero_rows_give_zeros_and_small_numbers_no_more() -> None:
    """A tile of idle slots is left out; below 2^-126 it may be zero, never wrong."""
    w = weight((112, 200))
    x = np.zeros((20, 200), np.float32)
    x[1], x[17], x[18] = -0.0, 1.0, 1e-39
    got = kernel_product(x, w)
    assert not np.delete(got, [17, 18], axis=0).any() and got[17].any()
    assert_right(got, x, w)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -np.nan, 3.4e38])
@pytest.mark.parametrize("at", [0, 17, 63])
def test_a_bad_value_spoils_its_row_and_no_other(bad: float, at: int) -> None:
    """The largest float32 becomes infinity in bfloat16."""
    w = np.ones((16, 64), ml_dtypes.bfloat16)
    x = np.random.default_rng(4).standard_normal((7, 64)).astype(np.float32)
    x[3, at] = bad
    got, others = kernel_product(x, w), [0, 1, 2, 4, 5, 6]
    assert not np.isfinite(got[3]).any()
    assert_right(got[others], x[others], w)


def test_packing_is_the_same_for_numpy_and_jax() -> None:
    w = weight((48, 6))
    np.testing.assert_array_equal(cpu.pack_bf16(w), jax.jit(cpu.pack_bf16)(w))
    assert cpu.pack_bf16(w).shape == (3, 3, 16, 2)
    assert cpu.pack_bf16(w)[1, 2, 5, 1] == w[21, 5]


@pytest.mark.parametrize("outputs, inputs", [(24, 8), (16, 7), (16, 70000), (0, 8), (16, 0)])
def test_shapes_that_do_not_fit_are_refused(outputs: int, inputs: int) -> None:
    assert not cpu.fits(outputs, inputs, 2)
    with pytest.raises(ValueError, match=f"{outputs} outputs and {inputs} inputs.*inputs of 2 "):
        cpu.pack_bf16(np.zeros((outputs, inputs), ml_dtypes.bfloat16))


@pytest.mark.parametrize("outputs", [97, 100, 112])
def test_the_last_outputs_can_be_left_out(outputs: int) -> None:
    """Of the other kernels, too; what lies behind y is not touched."""
    w, x = weight((112, 200)), np.ones((11, 200), np.float32)
    wide, scale = w.astype(np.float32), np.ones(112, np.float32)
    codes = np.sign(wide).astype(np.int8)
    calls = [
        (cpu.bf16_product, (cpu.pack_bf16(w),)),
        (cpu.f32_product, (cpu.pack_f32(wide),)),
        (cpu.int8_product, (cpu.pack_int8(codes), scale)),
    ]
    for product, held in calls:
        whole, part = product(x, *held), product(x, *held, outputs=outputs)
        assert part.shape == (11, outputs)
        np.testing.assert_array_equal(part, whole[:, :outputs])


@pytest.mark.parametrize("outputs", [0, 96, 113])
def test_no_more_and_no_fewer_than_the_last_block_allows(outputs: int) -> None:
    with pytest.raises(ValueError, match=f"97 to 112 outputs.*; {outputs} were asked for"):
        cpu.bf16_product(np.ones((1, 200), np.float32), cpu.pack_bf16(weight((112, 200))), outputs)


def test_what_is_missing_is_named() -> None:
    assert build.lacks_bf16((*build.INSTRUCTIONS, build.BF16_INSTRUCTION)) == ""
    assert build.lacks_bf16(build.INSTRUCTIONS) == "the processor lacks avx512_bf16"


def test_a_compiler_that_does_not_know_the_instruction(tmp_path: Path) -> None:
    """The library is built without it, and all else works."""
    compiler = tmp_path / "old-cc"
    compiler.write_text('#!/bin/sh\nexec cc -DLOADSTONE_WITHOUT_BF16 "$@"\n')
    compiler.chmod(0o755)
    program = (
        "import sys, numpy as np; from server.kernels import build, cpu;"
        "assert build.load(None, sys.argv[1]) == '';"
        "y = cpu.f32_product(np.ones((3, 8), np.float32), np.ones((2, 8, 16), np.float32));"
        "assert (np.asarray(y) == 8).all();"
        "print(build.lacks_bf16())"
    )
    command = [sys.executable, "-c", program, str(compiler)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "the C compiler does not know avx512_bf16" in done.stdout
