"""Whether a setting fits, known before anything is allocated."""

import ctypes
import gc
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax

from server.attention import blockwise
from server.engine.config import EngineConfig
from server.kernels.cpu import BLOCK
from server.models import sizes
from server.models.spec import ModelSpec

GIB = 2**30


class DoesNotFitError(ValueError):
    """The setting needs more memory than a device has."""


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on the fullest device. `programs`: of compiled programs, on devices that have the
    host's memory."""

    weights: int
    cache: int
    temporaries: int
    programs: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.cache + self.temporaries + self.programs

    def __str__(self) -> str:
        parts = f"weights {self.weights / GIB:.2f} + cache {self.cache / GIB:.2f} + temporaries "
        parts += f"{self.temporaries / GIB:.2f}"
        if self.programs:
            parts += f" + programs {self.programs / GIB:.2f}"
        return f"{parts} = {self.total / GIB:.2f} GiB"


def tree_bytes(shapes: Any, shardings: Any) -> int:
    """Bytes per device of a tree of shapes under shardings, which may stand for whole subtrees."""
    pairs = zip(
        jax.tree.leaves(shapes), jax.tree.leaves(jax.tree.broadcast(shardings, shapes)), strict=True
    )
    return sum(
        math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf, sharding in pairs
    )


def estimate_temporaries(
    model: ModelSpec,
    config: EngineConfig,
    itemsize: int,
    split: int,
    reads_live: bool,
    scratch: int,
    in_blocks: bool = False,
) -> int:
    """Bytes of activations, scores and logits of the largest prefill or decode step, per device.

    An upper estimate before compiling; the compiled programs state theirs exactly. `split` devices
    share heads, MLP and vocabulary where these divide evenly. `reads_live` and `in_blocks` are as
    `reads_live` and `blockwise` in `Backend`, `scratch` as in `Form`.
    """

    return sizes.temporary_bytes(
        model,
        config.slots,
        config.cache_length,
        dispatches(config),
        itemsize,
        split,
        live_block=BLOCK if reads_live else None,
        score_keys=blockwise.KEYS if in_blocks else None,
        scratch=scratch,
    )


def score_bytes(model: ModelSpec, config: EngineConfig, split: int) -> int:
    """Bytes of the float32 scores of the largest chunks against a whole cache and themselves, per
    device."""
    return sizes.score_bytes(model, dispatches(config), config.cache_length, split)


def dispatches(config: EngineConfig) -> tuple[sizes.Dispatch, ...]:
    """Rows and tokens of the prefill dispatches."""
    return tuple((size.rows, size.tokens) for size in config.prefills)


def check_fit(
    name: str,
    config: EngineConfig,
    plan_for: Callable[[EngineConfig], MemoryPlan],
    limit: int,
    granule: int,
) -> MemoryPlan:
    """The plan of a setting that fits in `limit` bytes.

    DoesNotFitError names the numbers and the largest batch that does. Batches are multiples of
    `granule`, the number of devices that share the slots.
    """
    plan = plan_for(config)
    if plan.total <= limit:
        return plan
    largest = largest_batch(config, plan_for, limit, granule)
    advice = (
        f"the largest batch that fits is {largest}"
        if largest
        else "no batch fits: use int8, a shorter cache length, or more devices"
    )
    raise DoesNotFitError(
        f"{name} with batch {config.slots} and cache length {config.cache_length} needs {plan} per "
        f"device, and {limit / GIB:.2f} GiB are free; {advice}"
    )


def largest_batch(
    config: EngineConfig, plan_for: Callable[[EngineConfig], MemoryPlan], limit: int, granule: int
) -> int:
    """The most slots that fit, a multiple of `granule`; 0 when not even that many do."""
    return sizes.largest_fitting(
        lambda slots: plan_for(replace(config, slots=slots)).total <= limit, granule
    )


def free_bytes(devices: list[jax.Device]) -> int:
    """Bytes that one device can still give. CPU devices share what the host has available."""
    device = devices[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return _host_available() // len(devices)


def give_back() -> None:
    """Returns to the system what this process has freed. The allocator of Linux would keep it:
    180 MiB after loading SmolLM2 135M in int8 and as much after compiling its programs."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def peak_bytes(devices: list[jax.Device]) -> int | None:
    """The most that one of these devices has held since the process began; None where the runtime
    does not count, as on CPU."""
    stats = [device.memory_stats() or {} for device in devices if device.platform != "cpu"]
    peaks = [each["peak_bytes_in_use"] for each in stats if "peak_bytes_in_use" in each]
    return max(peaks, default=None)


def _host_available() -> int:
    available = 1 << 62
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        available = int(fields["MemAvailable"].split()[0]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and limit.read_text().strip() != "max":
        # The page cache counts as used there but is given back under pressure.
        available = min(available, int(limit.read_text()) - _unreclaimable(used))
    return max(available, 0)


def _unreclaimable(used: Path) -> int:
    stat = Path("/sys/fs/cgroup/memory.stat")
    files = 0
    if stat.exists():
        fields = dict(line.split() for line in stat.read_text().splitlines())
        files = int(fields.get("inactive_file", 0)) + int(fields.get("active_file", 0))
    return int(used.read_text()) - files
