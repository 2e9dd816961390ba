"""Weight products on this CPU: our kernel beside XLA's own, and beside what the processor can do.

    python -m benchmarks.cpu_products
    python -m benchmarks.cpu_products --kind int8 --shapes 4096x14336 --tokens 1 16 --repeats 9

A row is one shape [inputs x outputs] and one number of tokens. Weights come from memory, as they do
while decoding: a program goes through enough matrices to fill --megabytes, each product feeding the
next. Starting the program and cutting or padding between products is in the time of both; for the
small shapes that is a tenth of it. `peak` is a share of what the multiply-add instruction reaches
in an empty loop on one core in the same run, times the cores (int8 counts both terms: two products
of the shape). Medians of rounds in which the variants take turns; on a busy machine compare the
columns of one row, not rows of two runs.
"""

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import jax
import jax.numpy as jnp
from jax import lax

from server.kernels import build, cpu
from server.quant.bf16 import Bf16
from server.quant.two_term import two_term_product

# qkv, output, gate and up, down, head of a model of 135 M parameters; one matrix of an 8 B model.
SHAPES = ("576x960", "576x576", "576x3072", "1536x576", "576x49152", "4096x14336")
TOKENS = (1, 4, 8, 16, 32, 64, 256)
PEAK_SOURCE = """
#define ONE(op, n) op " %%zmm30, %%zmm31, %%zmm" #n "\\n"
#define EIGHT(op) \\
  ONE(op, 0) ONE(op, 1) ONE(op, 2) ONE(op, 3) ONE(op, 4) ONE(op, 5) ONE(op, 6) ONE(op, 7)
#define LOOP(name, op) \\
  void name(long rounds) { \\
    while (rounds-- > 0) \\
      __asm__ volatile(EIGHT(op) ::: \\
        "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7"); \\
  }
LOOP(int8, "vpdpbusd")
LOOP(f32, "vfmadd231ps")
LOOP(bf16, "vdpbf16ps")
"""
HEADER = "       shape tokens       ms  GOP/s  peak  GB/s     XLA ms  ratio"
FLOATS = {"f32": jnp.float32, "bf16": jnp.bfloat16}
PEAK_ROUNDS, PEAK_CHAINS, PEAK_TRIES = 500_000, 8, 50

Product = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]  # x, weight, scale


@dataclass(frozen=True)
class Kind:
    """One type of weight: `terms` products a multiply-add of the shape, `lanes` an instruction."""

    name: str
    terms: int
    lanes: int
    weight_bytes: int
    pack: Callable[[jax.Array], jax.Array]
    ours: Product
    xla: Product


def main() -> None:
    """Prints the table."""
    arguments = parse_arguments()
    reason = build.load(None)
    if reason:
        sys.exit(f"the CPU kernel cannot be used here: {reason}")
    if arguments.kind in ("bf16", "all") and (reason := build.lacks_bf16()):
        sys.exit(f"no kernel for bfloat16: {reason}; give --kind int8 or f32")
    kinds = [kind for kind in KINDS if arguments.kind in (kind.name, "all")]
    with tempfile.TemporaryDirectory() as folder:
        library = build_peaks(Path(folder))
    for kind in kinds:
        peak = measure_peak(library, kind)
        print(f"\n{kind.name}: {len(os.sched_getaffinity(0))} cores, peak {peak / 1e9:.0f} GMAC/s")
        print(HEADER)
        for text in arguments.shapes:
            inputs, outputs = map(int, text.split("x"))
            bench_shape(kind, inputs, outputs, arguments, peak)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=("int8", "f32", "bf16", "all"), default="all")
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="INxOUT")
    parser.add_argument("--tokens", nargs="+", type=int, default=TOKENS)
    parser.add_argument("--megabytes", type=int, default=100, help="weights that a program reads")
    parser.add_argument("--repeats", type=int, default=9)
    return parser.parse_args()


def bench_shape(
    kind: Kind, inputs: int, outputs: int, arguments: argparse.Namespace, peak: float
) -> None:
    """One row for each number of tokens."""
    size = inputs * outputs * kind.weight_bytes
    count = max(2, round(arguments.megabytes * 1e6 / size))
    scale = jnp.full(outputs, inputs**-0.5 / 74.0, jnp.float32)  # keeps a chain of products finite
    plain = [make_weight(kind, inputs, outputs, i) for i in range(count)]
    packed = [jax.jit(kind.pack)(w) for w in plain]
    for tokens in arguments.tokens:
        x = jax.random.normal(jax.random.key(0), (tokens, inputs), jnp.float32)
        variants = [
            partial(chained(kind.ours), x, packed, scale),
            partial(chained(kind.xla), x, plain, scale),
        ]
        seconds, xla_seconds = (t / count for t in take_turns(variants, arguments.repeats))
        multiply_adds = tokens * inputs * outputs * kind.terms
        print(
            f"{inputs:>6}x{outputs:<5} {tokens:>6} {seconds * 1e3:8.3f} "
            f"{2e-9 * multiply_adds / seconds:6.0f} {multiply_adds / seconds / peak:5.0%} "
            f"{size / seconds * 1e-9:5.1f}   {xla_seconds * 1e3:8.3f} {xla_seconds / seconds:6.2f}",
            flush=True,
        )


def make_weight(kind: Kind, inputs: int, outputs: int, seed: int) -> jax.Array:
    """Random values [outputs, inputs]; floats of a size that keeps a chain of products finite."""
    key = jax.random.key(seed)
    if kind.name in FLOATS:
        weight = jax.random.normal(key, (outputs, inputs), jnp.float32) * inputs**-0.5
        return weight.astype(FLOATS[kind.name])
    return lax.bitcast_convert_type(jax.random.bits(key, (outputs, inputs), jnp.uint8), jnp.int8)


def chained(product: Product) -> Callable[..., jax.Array]:
    """A program of products, each made to wait for the one before."""

    def run(x: jax.Array, weights: Sequence[jax.Array], scale: jax.Array) -> jax.Array:
        inputs = x.shape[1]
        for weight in weights:
            y = product(x, weight, scale)
            missing = max(0, inputs - y.shape[1])
            x = jnp.pad(y, ((0, 0), (0, missing)))[:, :inputs]
        return x

    return jax.jit(run)


def take_turns(variants: Sequence[Callable[[], jax.Array]], repeats: int) -> list[float]:
    """Median seconds of each variant."""
    seconds: list[list[float]] = [[] for _ in variants]
    for variant in variants:
        jax.block_until_ready(variant())
    for _ in range(repeats):
        for taken, variant in zip(seconds, variants, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(variant())
            taken.append(time.perf_counter() - start)
    return [median(taken) for taken in seconds]


def ours_f32(x: jax.Array, weight: jax.Array, scale: jax.Array) -> jax.Array:
    """The kernel."""
    return cpu.f32_product(x, weight)


def ours_bf16(x: jax.Array, weight: jax.Array, scale: jax.Array) -> jax.Array:
    """The kernel."""
    return cpu.bf16_product(x, weight)


def xla_bf16(x: jax.Array, weight: jax.Array, scale: jax.Array) -> jax.Array:
    """The plain twin."""
    return Bf16(weight, (weight.shape[0],))(x)


def xla_int8(x: jax.Array, weight: jax.Array, scale: jax.Array) -> jax.Array:
    """The same in plain XLA."""
    return two_term_product(x, weight, scale)


def xla_f32(x: jax.Array, weight: jax.Array, scale: jax.Array) -> jax.Array:
    """XLA's own dot."""
    return lax.dot_general(x, weight, (((1,), (1,)), ((), ())))


KINDS = (
    Kind("int8", 2, 64, 1, cpu.pack_int8, cpu.int8_product, xla_int8),
    Kind("f32", 1, 16, 4, cpu.pack_f32, ours_f32, xla_f32),
    Kind("bf16", 1, 32, 2, cpu.pack_bf16, ours_bf16, xla_bf16),
)


def build_peaks(folder: Path) -> ctypes.CDLL:
    """The empty loops, compiled."""
    source, library = folder / "peak.c", folder / "peak.so"
    source.write_text(PEAK_SOURCE)
    command = ["cc", "-O2", "-shared", "-fPIC", str(source), "-o", str(library)]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(library))


def measure_peak(library: ctypes.CDLL, kind: Kind) -> float:
    """Multiply-adds a second: the best of many short loops on one core, times the cores."""
    loop = getattr(library, kind.name)
    best = 0.0
    for _ in range(PEAK_TRIES):
        start = time.perf_counter()
        loop(ctypes.c_long(PEAK_ROUNDS))
        best = max(best, PEAK_ROUNDS * PEAK_CHAINS * kind.lanes / (time.perf_counter() - start))
    return best * len(os.sched_getaffinity(0))


if __name__ == "__main__":
    main()
