"""The most tokens a second that a batch could decode on a machine.

A decode step makes one token for each of `batch` slots, and cannot take less time than either of

- moving its bytes: the weights once, and for each slot the keys and values of its live positions,
  over the bandwidth of the memory;
- its arithmetic: 2 * parameters * batch FLOPs (a multiplication and an addition for each parameter
  and token; attention is left out), over the peak.

bound = batch / (the longer of the two), tokens/s. The fraction of the roofline is the output
tokens/s of the run over this bound. The run holds prefill, the wait for the first and the last
requests, and slots that stood empty, which the bound does not: it says how much of the machine the
service as a whole turns into tokens, and 1 is out of reach.

Weights and cache are what all devices hold together, as the server says in its ready file, under
`plan`; bandwidth and peak are those of all devices together. Where each device keeps a copy of its
own, as with sharding by batch, each moves its own, and the weights count as often: the bound is
that of the setting. Where the server tells `step_weight_bytes` they count, else `weight_bytes`,
in which there may be weights that a step does not read, such as an embedding kept beside the head.
The bound is then too low, and the fraction too high.

Peaks measured here are medians, on a machine as busy as it was, and the FLOPs are those of float32;
int8 arithmetic can be faster. For both reasons a fraction above 1 is possible, and means that the
peaks are to be given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from client.sweeping.peaks import Peaks


@dataclass(frozen=True)
class Footprint:
    """What a step of the model moves and computes, whole, over all devices.

    `weight_bytes`: the weights, every copy. `position_bytes`: keys and values of one position of
    one slot, all layers.
    """

    weight_bytes: float
    position_bytes: float
    parameters: float


def footprint(plan: dict[str, Any] | None) -> Footprint | None:
    """From what the server says of itself; None where it does not say all of it."""
    said = {"step_weight_bytes": (plan or {}).get("weight_bytes"), **(plan or {})}
    names = ("step_weight_bytes", "cache_bytes_per_position", "parameters")
    values = [said.get(name) for name in names]
    numbers = [value for value in values if isinstance(value, int | float) and value > 0]
    return Footprint(*numbers) if len(numbers) == len(names) else None


def live_positions(lengths: Sequence[tuple[int, int]], cache_length: int) -> float | None:
    """Mean positions that a decode step reads of a slot, over all decode steps of all requests.

    `lengths`: tokens of prompt and answer of each request. Step j of a request (its token j + 1;
    the first comes from prefill) reads its prompt and j more, at most `cache_length`. None without
    a decode step.
    """
    steps = read = 0
    for prompt, answer in lengths:
        count = max(answer - 1, 0)
        growing = min(max(cache_length - prompt, 0), count)
        read += growing * prompt + growing * (growing + 1) // 2 + (count - growing) * cache_length
        steps += count
    return read / steps if steps else None


def bound(model: Footprint, peaks: Peaks, batch: int, positions: float) -> float:
    """Tokens/s that `batch` slots with `positions` live positions each could reach at most."""
    return batch / max(step_seconds(model, peaks, batch, positions))


def step_seconds(
    model: Footprint, peaks: Peaks, batch: int, positions: float
) -> tuple[float, float]:
    """The least a decode step takes for moving its bytes, and for its arithmetic."""
    moved = model.weight_bytes + batch * positions * model.position_bytes
    computed = 2 * model.parameters * batch
    return moved / peaks.bandwidth, computed / peaks.flops


def applies(peaks: Peaks, plan: dict[str, Any] | None) -> bool:
    """Whether these peaks are those of the server's devices."""
    kind = str((plan or {}).get("device_kind", ""))
    return not peaks.measured or kind.lower() == "cpu"
