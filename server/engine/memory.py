"""Whether a setting fits, known before anything is allocated."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax

from server.attention import blockwise
from server.engine.config import EngineConfig
from server.kernels.cpu import BLOCK
from server.models.sizes import largest_fitting
from server.models.spec import ModelSpec

GIB = 2**30


class DoesNotFitError(ValueError):
    """The setting needs more memory than a device has."""


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on the fullest device."""

    weights: int
    cache: int
    temporaries: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.cache + self.temporaries

    def __str__(self) -> str:
        return (
            f"weights {self.weights / GIB:.2f} + cache {self.cache / GIB:.2f} + temporaries "
            f"{self.temporaries / GIB:.2f} = {self.total / GIB:.2f} GiB"
        )


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

    def share(size: int, of: int) -> int:
        return size // split if of % split == 0 else size

    sizes = config.prefills
    tokens = max(size.rows * size.tokens for size in sizes)
    position = share(2 * model.kv_heads * model.head_dim * 4, model.kv_heads)  # a key and a value
    # Twice over for int8 on CPU, which holds two terms of every activation.
    inner = (model.mlp_parts + 1) * model.ffn  # what goes into the activation and comes out
    wide = 2 * (share(inner, model.ffn) + 4 * model.hidden)
    row = (wide + share(3 * model.vocab, model.vocab)) * 4
    prefill, decode = tokens * wide * max(itemsize, 4), config.slots * row
    if reads_live:
        # The kernel lays the chunk's keys and values out in blocks, which short rows do not fill.
        laid = max(size.rows * -(-size.tokens // BLOCK) * BLOCK for size in sizes)
        return max(prefill + laid * position, decode)
    scores = 2 * score_bytes(model, config, split, blockwise.KEYS if in_blocks else None)
    # The slots' old keys and values, and a copy of them in the order that the product wants.
    old = 2 * sizes[0].rows * config.cache_length * position
    # One layer's cache, where a step reads less than all of it.
    part = 0 if len(config.spans) == 1 else config.spans[-2] * position
    # The largest weight of a layer, where a product writes it anew.
    qkv = (model.heads + 2 * model.kv_heads) * model.head_dim
    largest = max(share(model.mlp_parts * model.ffn, model.ffn), share(qkv, model.kv_heads))
    anew = scratch * largest * model.hidden
    return max(prefill + scores + old, decode + config.slots * part) + anew


def score_bytes(model: ModelSpec, config: EngineConfig, split: int, keys: int | None = None) -> int:
    """Bytes of the float32 scores of the largest chunks, per device: against a whole cache and
    themselves, or against `keys` positions at a time."""
    tokens = max(size.rows * size.tokens for size in config.prefills)
    keys = keys or config.cache_length + config.prefills[-1].tokens
    heads = model.heads // split if model.kv_heads % split == 0 else model.heads
    return tokens * heads * keys * 4


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
    return largest_fitting(
        lambda slots: plan_for(replace(config, slots=slots)).total <= limit, granule
    )


def free_bytes(devices: list[jax.Device]) -> int:
    """Bytes that one device can still give. CPU devices share what the host has available."""
    device = devices[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return _host_available() // len(devices)


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
