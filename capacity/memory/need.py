"""Bytes on each chip, and the largest batch that fits."""

from dataclasses import dataclass, replace

from capacity.hardware.chip import GIB
from capacity.hardware.slice import slices_of
from capacity.work.setting import Setting
from client.errors import UsageError
from server.attention.names import KEYS_AT_ONCE, MOST_SCORES
from server.models import sizes
from server.quant.schemes import SCHEMES

# Kept free beside the plan for XLA's own buffers and fragments, as `server/engine/open.py` does.
HEADROOM = 0.05
# `server/kernels/cpu.py` BLOCK, and `scratch` of the accelerators' forms: a test holds them equal.
_KERNEL_BLOCK = 64
_SCRATCH = {"nf4": 4, "nf4-dq": 4, "int4": 4, "fp8": 4}


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes per chip; `limit` is what a chip has for them. `programs`: as compiled, on CPUs."""

    weights: float
    cache: float
    temporaries: float
    programs: float
    limit: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.cache + self.temporaries + self.programs

    @property
    def fits(self) -> bool:
        """Whether it is within the limit."""
        return self.total <= self.limit

    def __str__(self) -> str:
        parts = f"weights {self.weights / GIB:.2f} + cache {self.cache / GIB:.2f} + temporaries "
        parts += f"{self.temporaries / GIB:.2f}"
        if self.programs:
            parts += f" + programs {self.programs / GIB:.2f}"
        return f"{parts} = {self.total / GIB:.2f} GiB per chip"


def memory_need(setting: Setting, headroom: float = HEADROOM) -> MemoryNeed:
    """Of a setting, counted as the engine counts before it allocates (`server/models/sizes.py`).

    Other software: the weights it stores, the same cache, and temporaries as ours.
    """
    return MemoryNeed(
        weights=stored_weights(setting),
        cache=setting.slots / setting.replicas * setting.kept_positions * setting.position_bytes,
        temporaries=_temporaries(setting),
        programs=_programs(setting),
        limit=setting.slice.chip.memory * (1 - headroom),
    )


def _temporaries(setting: Setting) -> int:
    """As on one CPU with the kernels, or on accelerators in plain XLA."""
    model, split, length = setting.model, setting.split, setting.kept_positions
    found = sizes.prefill_sizes(setting.slots, length, setting.chunk)
    cpu = setting.slice.chip.kind == "cpu"
    in_blocks = sizes.score_bytes(model, found, length, split) > MOST_SCORES
    return sizes.temporary_bytes(
        model,
        setting.slots,
        length,
        found,
        setting.compute_bytes,
        split,
        live_block=_KERNEL_BLOCK if cpu else None,
        score_keys=KEYS_AT_ONCE if in_blocks else None,
        scratch=0 if cpu else _SCRATCH.get(setting.weights, 0),
    )


def _programs(setting: Setting) -> int:
    """Of our software on a CPU with the kernels, which reads live positions: one decode program."""
    if setting.slice.chip.kind != "cpu" or not setting.software.skips_on_cpu:
        return 0
    found = sizes.prefill_sizes(setting.slots, setting.kept_positions, setting.chunk)
    return sizes.program_bytes(setting.model, 1 + len(found))


def stored_weights(setting: Setting) -> float:
    """Bytes of weights on a chip, as the software stores them."""
    model, split, compute = setting.model, setting.split, setting.compute_bytes
    software = setting.software
    total = sizes.weight_bytes(model, setting.weights, compute, split)
    head = sizes.head_matrix(model)
    ours = head.bytes(sizes.head_scheme(setting.weights), compute, split)
    if model.tied and not software.stores_tied_head:
        return total - ours
    if not software.quantizes_head:
        return total - ours + head.bytes("none", compute, split)
    return total


def largest_batch(setting: Setting, headroom: float = HEADROOM) -> int:
    """The most slots that fit, 0 when not even the fewest do."""

    def fits(slots: int) -> bool:
        return memory_need(replace(setting, slots=slots), headroom).fits

    return sizes.largest_fitting(fits, setting.replicas)


def require_fit(setting: Setting) -> MemoryNeed:
    """The need of a setting that fits. UsageError says what would."""
    need = memory_need(setting)
    if need.fits:
        return need
    largest = largest_batch(setting)
    what = f"{setting.model.name} with {setting.slots} slots of {setting.cache_length} positions"
    advice = (
        f"the largest batch that fits is {largest}"
        if largest
        else f"no batch fits; {_elsewhere(setting)}"
    )
    raise UsageError(
        f"{what} on {setting.slice.name} needs {need}, and {need.limit / GIB:.2f} GiB are there; "
        f"{advice}"
    )


def _elsewhere(setting: Setting) -> str:
    """What to do about a model that is too large for its slice."""
    least = replace(setting, slots=setting.replicas)
    ways = []
    if not SCHEMES[setting.weights].quantized and memory_need(replace(least, weights="int8")).fits:
        ways.append("--quantize int8 fits")
    if setting.sharding == "batch" and setting.slice.count > 1:
        ways.append("--sharding model splits the weights")
    for bigger in slices_of(setting.slice.chip):
        if (
            bigger.count > setting.slice.count
            and memory_need(replace(least, slice=bigger, sharding="model", slots=1)).fits
        ):
            ways.append(f"{bigger.name} would hold it")
            break
    return "; ".join(ways) or "take a chip with more memory, or a smaller model"
