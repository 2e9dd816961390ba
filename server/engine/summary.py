"""What an engine is and holds, for those who plan with it. Imports no JAX."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineSummary:
    """`weight_bytes`, and the bytes of the cache for one position of one slot, are what all devices
    hold together: what is kept whole on each of several counts as often. `parameters` counts the
    model's weights, whatever form they are kept in. `step_weight_bytes` is what a decode step
    reads of the weights: all but the table of embeddings, of which it reads a row for each slot.
    """

    model: str
    device_kind: str
    devices: int
    slots: int
    cache_length: int
    parameters: int
    weight_bytes: int
    step_weight_bytes: int
    cache_bytes_per_position: int
