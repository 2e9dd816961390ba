"""Where a step spends its time.

    python -m benchmarks.step_profile --quantize int8                # decode, every slot busy
    python -m benchmarks.step_profile --quantize int8 --prefill 500  # reading prompts of 500 tokens

Runs the served program on SmolLM2 (or `--model`) under JAX's profiler and sums the time of each
kind of operation. Our kernels go by their names, with what they give out. The step time is the wall
clock's, measured without the profiler; the times in the table are those of the thread that started
the operation.
"""

import argparse
import collections
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from benchmarks.in_process import open_default, prefill_all, random_prompts
from server.engine.engine import JaxEngine
from server.engine.protocol import PrefillChunk
from server.quant.schemes import SCHEMES

STEPS = 30
_KERNEL = re.compile(r'%(\S+) = \(?([^ ]+?)\{.*custom_call_target="loadstone_(\w+)"')


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quantize", choices=SCHEMES, default="none")
    parser.add_argument("--model", help="another, with random weights: a known name or a folder")
    parser.add_argument("--cache-length", type=int, default=1024)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--prompt", type=int, default=64, help="tokens in each slot before decode")
    parser.add_argument("--prefill", type=int, help="profile reading prompts of so many tokens")
    parser.add_argument("--lines", type=int, default=12)
    options = parser.parse_args()
    engine = open_default(options.quantize, options.batch_size, options.cache_length, options.model)
    if options.prefill:
        key = "prefill", engine.shape.prefill_size(options.prefill).tokens
        tokens, what = _prefill(engine, options.prefill)
    else:
        key = ("decode",)
        tokens, what = _decode(engine, options.prompt)
    plain = _time_steps(what)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            _time_steps(what)
        events = _events(Path(folder))
    names = _kernels(engine, key)
    totals: collections.Counter = collections.Counter()
    counts: collections.Counter = collections.Counter()
    for name, seconds in events:
        kind = names.get(name, name.split(".")[0])
        totals[kind] += seconds
        counts[kind] += 1
    print(
        f"{options.quantize}, batch {options.batch_size}, {tokens} tokens a step: "
        f"{plain * 1e3:.1f} ms a step, {tokens / plain:.0f} tokens/s"
    )
    whole = sum(totals.values())
    print("| operation | in a step | ms a step | share |\n|---|---|---|---|")
    for name, seconds in totals.most_common(options.lines):
        times, share = counts[name] / STEPS, seconds / whole
        print(f"| {name} | {times:.0f} | {seconds / STEPS * 1e3:.2f} | {share:.1%} |")


def _decode(engine: JaxEngine, prompt: int) -> tuple[int, Callable[[], object]]:
    for step in prefill_all(engine, prompt, max_tokens=2 * STEPS + 10):
        step.tokens()
    for _ in range(5):
        engine.decode().tokens()
    return engine.shape.slots, lambda: engine.decode().tokens()


def _prefill(engine: JaxEngine, prompt: int) -> tuple[int, Callable[[], object]]:
    """As many prompts as one dispatch takes."""
    rows = engine.shape.prefill_size(prompt).rows
    prompts = random_prompts(rows, prompt, engine.shape.vocab)
    chunks = [PrefillChunk(slot, prompts[slot], 0, True) for slot in range(rows)]
    engine.prefill(chunks).tokens()
    return rows * prompt, lambda: engine.prefill(chunks).tokens()


def _time_steps(step: Callable[[], object]) -> float:
    times = []
    for _ in range(STEPS):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def _events(folder: Path) -> list[tuple[str, float]]:
    """Name and seconds of every operation that ran."""
    return [
        (event.name, event.duration_ns / 1e9)
        for path in folder.rglob("*.xplane.pb")
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes
        for line in plane.lines
        for event in line.events
        if "hlo_op" in dict(event.stats)
    ]


def _kernels(engine: JaxEngine, key: tuple) -> dict[str, str]:
    """XLA's name of each call of a kernel in a program -> the kernel and what it gives out."""
    program = next(program for own, program in engine.programs.items() if own[: len(key)] == key)
    found = _KERNEL.findall(program.as_text())
    return {name: f"{kernel} {shape}" for name, shape, kernel in found}


if __name__ == "__main__":
    main()
