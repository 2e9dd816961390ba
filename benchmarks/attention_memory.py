"""Memory and time of a whole forward without a KV cache, reference attention beside flash.

    python -m benchmarks.attention_memory
    python -m benchmarks.attention_memory --model clm-60m --contexts 1024 2048 --rounds 5

Each cell is a process of its own: a model with random weights gives the logits of the next token
after one row of random ids. `temporaries` is what the compiled program states for its scratch
memory, on each device. `resident` is by how much the process grew at its peak while the program
ran, from just before it ran for the first time (Linux; it counts memory that XLA does not know of,
too; on a GPU it says nothing). `ms` is the shortest of --rounds forwards, the first one left out.
A setting that needs more memory than is free says how much it would have taken.
"""

import argparse
import ctypes
import dataclasses
import json
import re
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.machine import describe_machine

CONTEXTS = (2048, 4096, 8192, 16384)
ATTENTION = ("reference", "flash")
MIB = 2**20
HEADER = "| context | attention | temporaries MiB | resident MiB | ms |"


@dataclasses.dataclass(frozen=True)
class Cell:
    """One forward. `note` says why figures are missing."""

    context: int
    attention: str
    temporaries: int | None = None
    resident: int | None = None
    milliseconds: float | None = None
    note: str = ""

    def __str__(self) -> str:
        def mebibytes(size: int | None) -> str:
            return "-" if size is None else f"{size / MIB:,.0f}"

        took = "-" if self.milliseconds is None else f"{self.milliseconds:,.0f}"
        figures = f"{mebibytes(self.temporaries)} | {mebibytes(self.resident)} | {took}"
        name = f"{self.attention}: {self.note}" if self.note else self.attention
        return f"| {self.context:,} | {name} | {figures} |"


def main() -> None:
    """Prints the table, a row as soon as it is there."""
    arguments = parse_arguments()
    if arguments.cell:
        cell = measure(arguments, arguments.contexts[0], arguments.attention[0])
        print(json.dumps(dataclasses.asdict(cell)))
        return
    print(f"{arguments.model}, 1 row, weights {arguments.quantize}")
    print(f"({describe_machine()})\n\n{HEADER}\n|{'---|' * 5}", flush=True)
    for context in arguments.contexts:
        for attention in arguments.attention:
            print(in_own_process(arguments, context, attention), flush=True)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="smollm2-135m", help="a name or a directory")
    parser.add_argument("--contexts", type=int, nargs="+", default=CONTEXTS)
    parser.add_argument("--attention", nargs="+", default=ATTENTION, choices=ATTENTION)
    parser.add_argument("--quantize", default="none")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--platform", choices=("cpu", "gpu", "tpu"))
    parser.add_argument("--cache-dir", type=Path, default=Path.home() / ".cache" / "loadstone")
    parser.add_argument("--seconds", type=float, default=1800.0, help="allowed for one cell")
    parser.add_argument("--cell", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def in_own_process(arguments: argparse.Namespace, context: int, attention: str) -> Cell:
    """Memory that an earlier cell has left behind would count for a later one."""
    command = [
        *(sys.executable, "-m", "benchmarks.attention_memory", "--cell"),
        *("--model", arguments.model, "--quantize", arguments.quantize),
        *("--rounds", str(arguments.rounds), "--cache-dir", str(arguments.cache_dir)),
        *("--contexts", str(context), "--attention", attention),
        *(("--platform", arguments.platform) if arguments.platform else ()),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=arguments.seconds)
    except subprocess.TimeoutExpired:
        return Cell(context, attention, note=f"not done in {arguments.seconds:.0f} s")
    if done.returncode != 0:
        why = done.stderr.strip().splitlines()[-1:] or [""]
        return Cell(context, attention, note=f"ended with {done.returncode} {why[0][:80]}")
    return Cell(**json.loads(done.stdout.splitlines()[-1]))


def measure(arguments: argparse.Namespace, context: int, attention: str) -> Cell:
    """One cell, in this process."""
    import jax
    import numpy as np

    from server.engine.memory import DoesNotFitError
    from server.engine.open import choose_model
    from server.engine.uncached import open_uncached

    if arguments.platform:
        jax.config.update("jax_platforms", arguments.platform)
    choice = choose_model(arguments.model, None, "dummy", Path)
    model = open_uncached(
        choice, weights=arguments.quantize, attention=attention, cache_dir=arguments.cache_dir
    )
    try:
        temporaries = model.memory(1, context)
    except DoesNotFitError as error:
        found = re.search(r"needs (.+) per device", str(error))
        return Cell(context, attention, note=f"refused, {found[1] if found else error}")
    tokens = np.random.default_rng(context).integers(0, model.spec.vocab, (1, context))
    before = reset_peak()
    model.next_logits(tokens)
    grown = None if before is None else peak() - before
    times = []
    for _ in range(arguments.rounds):
        started = time.perf_counter()
        model.next_logits(tokens)
        times.append(time.perf_counter() - started)
    return Cell(context, model.attention, temporaries, grown, 1000 * min(times))


def reset_peak() -> int | None:
    """Bytes of this process in memory, which from now on count as its peak; None: cannot tell.

    What loading and compiling left free is given back first, or the program would fill it unseen.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):  # not Linux, or another C library than glibc
        return None
    return status("VmRSS")


def peak() -> int:
    """Bytes that this process had in memory at most since `reset_peak`."""
    return status("VmHWM")


def status(field: str) -> int:
    """A size in /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


if __name__ == "__main__":
    main()
