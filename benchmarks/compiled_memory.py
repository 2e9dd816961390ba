"""What the compiler says programs need, beside what they take.

    python -m benchmarks.compiled_memory --model smollm2-135m --batch-size 16 --quantize int8

The engine's programs are compiled from shapes, then random weights and a cache are made and every
program runs, on one device, with every slot sampling. What is taken is what the device reports; on
CPU it is how far this process's resident memory grows at most, with an allocator that keeps nothing
of what is freed, while a program runs that has run before.
"""

import argparse
import ctypes
import gc
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.machine import describe_machine
from server.engine import mesh as meshes
from server.engine import programs as engine_programs
from server.engine import state as states
from server.engine.backend import choose_backend
from server.engine.config import EngineConfig
from server.engine.engine import EnginePlan
from server.engine.state import SlotState
from server.models.catalogue import catalogue
from server.quant.schemes import SCHEMES
from server.weights.dummy import dummy_parameters

MIB = 2**20
# glibc keeps what is freed below a threshold that it raises up to 32 MiB: after a few programs up
# to 50 MiB, in which the next ones then run unseen. At a fixed one pages go back at once.
_MMAP_THRESHOLD, _KEPT_BYTES = -3, 65536  # M_MMAP_THRESHOLD of malloc.h
# XLA frees a program's temporaries a little after its results are there.
_STILL_SECONDS, _MOST_SECONDS, _STILL_BYTES = 0.1, 5.0, 2**18
_RUNS = 2


@dataclass(frozen=True)
class Measured:
    """Bytes per device: planned (before compiling), said by the compiler, and taken."""

    what: str
    planned: int | None
    compiled: int
    taken: int

    @property
    def error(self) -> float:
        """Of the compiler, as a share of what was taken."""
        return self.compiled / self.taken - 1

    @property
    def plan_error(self) -> float | None:
        """Of the plan, as a share of what was taken."""
        return None if self.planned is None else self.planned / self.taken - 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table, or JSON."""
    options = _parse(arguments)
    if options.platform:
        jax.config.update("jax_platforms", options.platform)
    config = EngineConfig(
        slots=options.batch_size,
        cache_length=options.cache_length,
        chunk=options.prefill_chunk,
        weights=options.quantize,
        quantize_kv_cache=options.quantize == "int8",
    )
    ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _KEPT_BYTES)
    device = jax.devices()[0]
    mesh = meshes.make_mesh([device], "model")
    spec = catalogue()[options.model]
    backend = choose_backend(spec, mesh, config, options.cache_dir, _say)
    found = measure(EnginePlan(spec, config, backend, mesh, frozenset(spec.eos_ids)), _say)
    if options.json:
        print(json.dumps([vars(each) for each in found]))
        return 0
    print(f"{describe_machine()}; {device.device_kind}, jax {jax.__version__}")
    print(
        f"{spec.name}, weights {config.weights}, int8 KV cache {config.quantize_kv_cache}, "
        f"{config.slots} slots of {config.cache_length}\n"
    )
    print("| MiB | Planned | Compiled | Taken | Compiler's error | Plan's error |")
    print("|---|---|---|---|---|---|")
    for each in found:
        planned = "-" if each.planned is None else f"{each.planned / MIB:,.1f}"
        error = "-" if each.plan_error is None else f"{each.plan_error:+.2%}"
        print(
            f"| {each.what} | {planned} | {each.compiled / MIB:,.1f} | {each.taken / MIB:,.1f} | "
            f"{each.error:+.2%} | {error} |"
        )
    return 0


def measure(plan: EnginePlan, report: Callable[[str], None]) -> list[Measured]:
    """Weights, cache and state, each program's peak, and the largest of these."""
    compiled = engine_programs.compile_all(plan, report)
    shapes = plan.parameter_shapes()
    planned = plan.memory(shapes)
    _make(plan)  # once in vain, so that nothing is compiled while memory is measured
    meter = Meter(plan.mesh.devices.flat[0])
    parameters, (cache, state) = _make(plan)
    held = meter.live()
    decode = next(program for name, program in compiled.items() if name[0] == "decode")
    said = decode.memory_analysis()
    found = [
        Measured(
            "weights, cache and state",
            planned.weights + planned.cache,
            said.argument_size_in_bytes,
            held,
        )
    ]
    for name, program in compiled.items():
        if name[0] == "release":
            continue
        given = _given(plan, name)
        # First in vain: a first run also reads pages of the compiler's own code.
        for run in range(1 + _RUNS):
            if run == 1:
                meter.reset()
            state = _busy(state)
            cache, state, out = program(parameters, cache, state, *given)
            jax.block_until_ready(out)
            meter.settle()
        said = program.memory_analysis()
        needs = (
            said.argument_size_in_bytes
            + said.output_size_in_bytes
            - said.alias_size_in_bytes
            + said.temp_size_in_bytes
        )
        found.append(Measured(" ".join(map(str, name)), None, needs, meter.peak()))
    largest = max(found[1:], key=lambda each: each.compiled)
    # Programs were compiled before anything was measured.
    running = planned.total - planned.programs
    found.append(Measured("the largest program", running, largest.compiled, largest.taken))
    return found


class Meter:
    """Bytes taken since it was made: by arrays, and at most."""

    def __init__(self, device: jax.Device) -> None:
        self._device = device
        _settle()
        self._before = {id(each) for each in jax.live_arrays()}
        self._base = self._now()

    def live(self) -> int:
        """Of arrays that are there and were not before."""
        arrays = [each for each in jax.live_arrays() if id(each) not in self._before]
        shards = [shard for each in arrays for shard in each.addressable_shards]
        return sum(shard.data.nbytes for shard in shards if shard.device == self._device)

    def settle(self) -> None:
        """Waits until what is free has been given back, so that it does not count as taken."""
        if self._device.platform == "cpu":
            _settle()

    def reset(self) -> None:
        """Forgets the peak, where the system can."""
        self.settle()
        if self._device.platform == "cpu":
            Path("/proc/self/clear_refs").write_text("5")

    def peak(self) -> int:
        """The most since the last reset; on devices, since the process began."""
        if self._device.platform == "cpu":
            return _status("VmHWM") - self._base
        return self._stats()["peak_bytes_in_use"] - self._base

    def _now(self) -> int:
        if self._device.platform == "cpu":
            return _status("VmRSS")
        return self._stats()["bytes_in_use"]

    def _stats(self) -> dict[str, Any]:
        stats = self._device.memory_stats()
        if stats is None:
            raise RuntimeError(f"{self._device.device_kind} does not report its memory")
        return stats


def _make(plan: EnginePlan) -> tuple[Any, Any]:
    backend = plan.backend
    parameters = dummy_parameters(
        plan.model, backend.forms, backend.compute, plan.parameter_shardings(), plan.mlp_blocks
    )
    return jax.block_until_ready((parameters, engine_programs.empty(plan)))


def _busy(state: SlotState) -> SlotState:
    """Every slot at work and sampling with all limits: pages that no step touches are not taken."""

    def full(like: jax.Array, value: float) -> jax.Array:
        return jax.device_put(np.full(like.shape, value, like.dtype), like.sharding)

    settings = state.settings
    return replace(
        state,
        remaining=full(state.remaining, 8),
        active=full(state.active, True),
        settings=replace(
            settings,
            temperature=full(settings.temperature, 1.0),
            top_k=full(settings.top_k, 50),
            top_p=full(settings.top_p, 0.9),
            logprobs=full(settings.logprobs, True),
        ),
    )


def _given(plan: EnginePlan, name: tuple) -> tuple[Any, ...]:
    """Beside parameters, cache and state: rows of a whole prompt for a prefill."""
    if name[0] == "decode":
        return ()
    size = next(size for size, _ in plan.prefills if size.tokens == name[1])
    packed = np.zeros((size.rows, states.COLUMNS + size.tokens), np.int32)
    packed[:, 1] = size.tokens
    packed[:, 2] = np.arange(size.rows)
    return (jax.device_put(packed, meshes.whole(plan.mesh)),)


def _settle() -> None:
    """Until resident memory stands still."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    until, before = time.monotonic() + _MOST_SECONDS, -1
    while time.monotonic() < until and abs((now := _status("VmRSS")) - before) > _STILL_BYTES:
        before = now
        time.sleep(_STILL_SECONDS)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--model", default="smollm2-135m", choices=catalogue())
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--cache-length", type=int, default=1024)
    parser.add_argument("--prefill-chunk", type=int, default=512)
    parser.add_argument("--quantize", default="none", choices=SCHEMES)
    parser.add_argument("--platform", choices=("cpu", "gpu", "tpu"), help="default: JAX's choice")
    parser.add_argument("--cache-dir", type=Path, default=Path.home() / ".cache" / "loadstone")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
