"""Where a decode step spends its time: `python -m benchmarks.decode_profile --quantize int8`.

Runs the served program on SmolLM2 with every slot busy, under JAX's profiler, and sums the time of
each kind of operation. Shares are of the time that any thread spent in operations; the step time is
the wall clock's.
"""

import argparse
import collections
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from benchmarks.in_process import open_default, prefill_all
from server.engine.engine import JaxEngine

STEPS = 30


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quantize", choices=("none", "int8"), default="none")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--prompt", type=int, default=64, help="tokens")
    options = parser.parse_args()
    engine = open_default(options.quantize, options.batch_size, cache_length=512)
    for step in prefill_all(engine, options.prompt, max_tokens=400):
        step.tokens()
    for _ in range(5):
        engine.decode().tokens()
    plain = _time_steps(engine)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            _time_steps(engine)
        totals = _sum_operations(Path(folder))
    print(
        f"{options.quantize}, batch {options.batch_size}: {plain * 1e3:.1f} ms a step, "
        f"{options.batch_size / plain:.0f} tokens/s"
    )
    whole = sum(totals.values())
    print("| operation | ms a step (thread time) | share |\n|---|---|---|")
    for name, seconds in totals.most_common(16):
        print(f"| {name} | {seconds / STEPS * 1e3:.2f} | {seconds / whole:.1%} |")


def _time_steps(engine: JaxEngine) -> float:
    times = []
    for _ in range(STEPS):
        started = time.perf_counter()
        engine.decode().tokens()
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def _sum_operations(folder: Path) -> collections.Counter:
    totals: collections.Counter = collections.Counter()
    for path in folder.rglob("*.xplane.pb"):
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            for line in plane.lines:
                for event in line.events:
                    stats = dict(event.stats)
                    if "hlo_op" in stats:
                        totals[event.name.split(".")[0]] += event.duration_ns / 1e9
    return totals


if __name__ == "__main__":
    main()
