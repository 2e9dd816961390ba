"""The time that work takes: the one formula behind every estimate.

    memory, compute = bytes / (share * bandwidth), FLOPs / (share * peak)
    device = sum over parts of (memory^r + compute^r)^(1/r) + collectives
    host   = step_s + layer_s * layers + sequence_s * sequences
    step   = (host^q + device^q)^(1/q)

With r -> infinity this is max(memory, compute), the roofline (Williams, Waterman, Patterson 2009),
for each kind of kernel; near the ridge, where both take as long, kernels do not hide all of one
behind the other. q = 1 adds host and device up; with q -> infinity the longer hides the shorter, as
when kernels are launched ahead.

    collectives = 2 (n - 1) / n * bytes / (share * link) + number * latency

is a ring all-reduce over n chips (Thakur, Rabenseifner, Gropp 2005).
"""

from dataclasses import dataclass

import numpy as np

from capacity.hardware.slice import Slice
from capacity.timing.efficiency import Efficiency
from capacity.work.part import Amount, Part, Work


@dataclass(frozen=True)
class StepTime:
    """Seconds. `memory` and `compute` are what each alone would take; `device` is not their sum."""

    memory: Amount
    compute: Amount
    links: Amount
    device: Amount
    host: Amount
    total: Amount


def step_time(work: Work, slice_: Slice, efficiency: Efficiency) -> StepTime:
    """Of one step on a slice; arrays in the work give arrays."""
    memory = [part.times * _memory_seconds(part, slice_, efficiency) for part in work.parts]
    compute = [
        part.times * part.flops / (slice_.chip.peak(part.arithmetic) * efficiency.compute)
        for part in work.parts
    ]
    links = _link_seconds(work, slice_, efficiency)
    device = sum(_together(*both, efficiency.ridge) for both in zip(memory, compute, strict=True))
    device = device + links
    host = (
        efficiency.step_s
        + efficiency.layer_s * work.layers
        + efficiency.sequence_s * work.sequences
    )
    total = side_by_side(host, device, efficiency)
    return StepTime(sum(memory), sum(compute), links, device, host, total)


def side_by_side(host: Amount, device: Amount, efficiency: Efficiency) -> Amount:
    """Seconds that a step takes whose host and device take so many each."""
    q = efficiency.overlap
    total = host + device if q == 1.0 else (host**q + device**q) ** (1 / q)
    return total * efficiency.effect


def _together(memory: Amount, compute: Amount, ridge: float) -> Amount:
    longer = np.maximum(memory, compute)
    if np.isinf(ridge):
        return longer
    both = np.minimum(memory, compute)
    ratio = np.divide(both, longer, out=np.zeros_like(longer, dtype=float), where=longer > 0)
    return longer * (1 + ratio**ridge) ** (1 / ridge)


def _memory_seconds(part: Part, slice_: Slice, efficiency: Efficiency) -> Amount:
    share = getattr(efficiency, part.kind) * (efficiency.quantized if part.quantized else 1.0)
    return part.bytes / (slice_.chip.bandwidth * share)


def _link_seconds(work: Work, slice_: Slice, efficiency: Efficiency) -> Amount:
    link = slice_.link
    if link is None or not work.collectives:
        return 0.0
    moved = 2 * (work.sharers - 1) / work.sharers * work.reduced
    return moved / (link * efficiency.link) + work.collectives * slice_.latency
