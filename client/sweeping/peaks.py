"""What the machine could do at most: bytes moved and floating-point operations a second."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from client.errors import UsageError

MEASURED, GIVEN = "measured", "given"
# Far beyond what processors cache, so that it comes from memory.
_BYTES = 512 * 2**20
_SIDE = 2048  # of the matrices
_TRIES = 5


@dataclass(frozen=True)
class Peaks:
    """Of all devices together: bytes/s from memory, and FLOP/s. Each given or measured.

    What was measured is that of this host's processors and says nothing about other devices.
    """

    bandwidth: float
    flops: float
    bandwidth_source: str
    flops_source: str

    def __post_init__(self) -> None:
        for source in (self.bandwidth_source, self.flops_source):
            if source not in (MEASURED, GIVEN):
                raise UsageError(f"source of a peak: {MEASURED} or {GIVEN}; got {source!r}")

    @property
    def measured(self) -> bool:
        """Whether one of the two was measured on this host's processors."""
        return MEASURED in (self.bandwidth_source, self.flops_source)

    def as_json(self) -> dict[str, Any]:
        """In GB/s and TFLOP/s, each with its source."""
        return {
            "bandwidth_gbps": self.bandwidth / 1e9,
            "bandwidth_source": self.bandwidth_source,
            "peak_tflops": self.flops / 1e12,
            "peak_source": self.flops_source,
        }


def peaks_from_json(values: dict[str, Any]) -> Peaks:
    """The inverse of `as_json`. KeyError or TypeError for anything else."""
    return Peaks(
        bandwidth=values["bandwidth_gbps"] * 1e9,
        flops=values["peak_tflops"] * 1e12,
        bandwidth_source=values["bandwidth_source"],
        flops_source=values["peak_source"],
    )


def find_peaks(bandwidth_gbps: float | None, peak_tflops: float | None) -> Peaks:
    """What was given, and measurements of what was not."""
    return Peaks(
        measure_bandwidth() if bandwidth_gbps is None else bandwidth_gbps * 1e9,
        measure_flops() if peak_tflops is None else peak_tflops * 1e12,
        MEASURED if bandwidth_gbps is None else GIVEN,
        MEASURED if peak_tflops is None else GIVEN,
    )


def measure_bandwidth(size: int = _BYTES) -> float:
    """Bytes/s that all cores together move, the better of reading and copying `size` bytes.

    A copied byte counts twice: it is read and written. Medians of five tries after one that does
    not count.
    """
    source = np.ones(size // 4, dtype=np.float32)
    target = np.empty_like(source)
    cores = _cores()
    parts = np.array_split(source, cores), np.array_split(target, cores)
    # NumPy lets go of the interpreter's lock in both, so threads run side by side.
    with ThreadPoolExecutor(cores) as threads:
        copying = _seconds(lambda: list(threads.map(np.copyto, parts[1], parts[0])))
        reading = _seconds(lambda: list(threads.map(np.max, parts[0])))
    return max(2 * source.nbytes / copying, source.nbytes / reading)


def measure_flops(side: int = _SIDE) -> float:
    """FLOP/s of a float32 product of square matrices, a multiplication and an addition each one.

    NumPy's BLAS spreads it over the cores. Median of five tries after one that does not count.
    """
    left = np.ones((side, side), dtype=np.float32)
    return 2 * side**3 / _seconds(lambda: left @ left)


def _seconds(work: Callable[[], object]) -> float:
    work()
    tries = []
    for _ in range(_TRIES):
        start = time.perf_counter()
        work()
        tries.append(time.perf_counter() - start)
    return median(tries)


def _cores() -> int:
    # Not os.cpu_count(): a container or taskset may leave fewer.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
