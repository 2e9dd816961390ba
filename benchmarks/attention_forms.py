"""Time and memory of every implementation of attention that this machine can run, one layer of it.

    python -m benchmarks.attention_forms
    python -m benchmarks.attention_forms --contexts 1024 --peer .venv-peers/bin/python

One row of tokens attends to itself, causally, with the heads of --model. `ms` is the median of
rounds in which the implementations take turns, `processor ms` the processor's time, which on a busy
machine says more; GFLOP/s counts what a causal mask leaves to do, by the processor's time on a CPU.
Beside ours, with --peer PYTHON, PyTorch's scaled_dot_product_attention in that environment, queries
and keys turned to their positions and repeated for their groups beforehand, which is in our time.
"""

import argparse
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.machine import describe_machine
from server.attention.choice import IMPLEMENTED
from server.attention.rows import Attention, Rows, Scores
from server.engine.backend import attention_case
from server.engine.mesh import make_mesh
from server.kernels import build
from server.models.catalogue import catalogue
from server.models.spec import ModelSpec
from server.quant.kv import NoKV

CONTEXTS = (2048, 8192)
PEER = "benchmarks/peers/torch_attention.py"
PEER_SECONDS = 600.0
HEADER = "| context | implementation | ms | processor ms | GFLOP/s | temporaries MiB |"
Times = list[tuple[float, float]]  # by the wall clock, of the processor


@dataclass(frozen=True)
class Problem:
    """One row of `tokens` in one layer of a model."""

    spec: ModelSpec
    tokens: int
    compute: str

    @property
    def operations(self) -> float:
        """Multiplications and additions: two products over half of all pairs."""
        return 2 * 2 * self.tokens**2 / 2 * self.spec.heads * self.spec.head_dim

    def compile(self, form: Attention) -> tuple[Callable[[], object], int]:
        """A call that waits for its result, and the bytes of its scratch memory."""
        spec, tokens = self.spec, self.tokens
        shape = (1, tokens, spec.kv_heads, spec.group + 2, spec.head_dim)
        qkv = jnp.asarray(np.random.default_rng(0).standard_normal(shape), self.compute)
        angles = jnp.ones((1, tokens, spec.head_dim // 2))
        scores = Scores(spec.head_dim**-0.5)

        def attend(qkv: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
            starts = jnp.zeros(1, jnp.int32)
            rows = Rows(starts, starts + tokens, starts, cos, sin)
            return form(rows, tokens, 0, scores)(qkv, NoKV(tokens))[0]

        given = (qkv, jnp.cos(angles), jnp.sin(angles))
        program = jax.jit(attend).lower(*given).compile()
        scratch = program.memory_analysis().temp_size_in_bytes
        return lambda: jax.block_until_ready(program(*given)), scratch


def main() -> None:
    """Prints the table."""
    arguments = parse_arguments()
    spec = catalogue()[arguments.model]
    mesh = make_mesh(jax.devices()[:1], "model")
    platform = mesh.devices.flat[0].platform
    compute = "float32" if platform == "cpu" else "bfloat16"
    no_kernel = build.load(arguments.cache_dir) if platform == "cpu" else "not a CPU"
    case = attention_case(spec, mesh, jnp.dtype(compute), no_kernel)
    print(f"{spec.heads} heads in {spec.kv_heads} groups of size {spec.head_dim}, {compute}")
    print(f"({describe_machine()})\n\n{HEADER}\n|{'---|' * 6}", flush=True)
    for tokens in arguments.contexts:
        problem = Problem(spec, tokens, compute)
        forms = {
            name: one.uncached(case, mesh)
            for name, one in IMPLEMENTED.items()
            if (one.platforms is None or platform in one.platforms) and not one.refuses(case)
        }
        measure(problem, forms, platform, arguments)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="smollm2-135m", choices=sorted(catalogue()))
    parser.add_argument("--contexts", type=int, nargs="+", default=CONTEXTS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer", help="python of an environment with torch")
    parser.add_argument("--cache-dir", type=Path, default=Path.home() / ".cache" / "loadstone")
    return parser.parse_args()


def measure(
    problem: Problem, forms: dict[str, Attention], platform: str, arguments: argparse.Namespace
) -> None:
    """Prints the rows of one context."""
    programs = {name: problem.compile(form) for name, form in forms.items()}
    times: dict[str, Times] = defaultdict(list)
    for _ in range(arguments.rounds):
        for name, (run, _) in programs.items():
            run()
            started, busy = time.perf_counter(), time.process_time()
            run()
            times[name].append((time.perf_counter() - started, time.process_time() - busy))
        if arguments.peer:
            version, theirs = run_peer(problem, platform, arguments.peer)
            times[f"PyTorch {version}"].extend(theirs)
    for name, taken in times.items():
        wall, busy = (median(column) for column in zip(*taken, strict=True))
        rate = problem.operations / (busy if platform == "cpu" else wall) / 1e9
        scratch = f"{programs[name][1] / 2**20:,.0f}" if name in programs else "-"
        print(
            f"| {problem.tokens:,} | {name} | {1000 * wall:,.1f} | {1000 * busy:,.1f} | "
            f"{rate:,.0f} | {scratch} |",
            flush=True,
        )


def run_peer(problem: Problem, platform: str, python: str) -> tuple[str, Any]:
    """One round of PyTorch: its version and times."""
    spec = problem.spec
    asked = {
        "platform": platform,
        "compute": problem.compute,
        "tokens": problem.tokens,
        "kv_heads": spec.kv_heads,
        "group": spec.group,
        "head": spec.head_dim,
        "repeats": 1,
    }
    done = subprocess.run(
        [python, PEER],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=PEER_SECONDS,
    )
    if done.returncode:
        sys.exit(f"{python} {PEER} failed:\n{done.stderr[-2000:]}")
    said = json.loads(done.stdout)
    return said["version"], said["times"]


if __name__ == "__main__":
    main()
