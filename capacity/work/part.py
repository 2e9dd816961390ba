"""Kernels by what limits them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

# Single numbers, or arrays over the steps of a run.
Amount = Any

WEIGHTS, CACHE, ELEMENTWISE = "weights", "cache", "elementwise"


@dataclass(frozen=True)
class Part:
    """Kernels of one kind. `bytes`: moved to and from memory. `arithmetic`: the type of the inputs
    of its products (one of `PEAKS`). `quantized`: what is read is stored in fewer bits.
    `times`: so often, one after the other.
    """

    kind: str
    bytes: Amount
    flops: Amount = 0.0
    arithmetic: str = "bf16"
    quantized: bool = False
    times: int = 1


@dataclass(frozen=True)
class Work:
    """A step on each chip.

    parts: run one after the other. reduced: bytes that each chip puts into all-reduces, in
    `collectives` of them among `sharers` chips. layers: those whose kernels the host launches.
    sequences: rows that the host looks after.
    """

    parts: tuple[Part, ...]
    reduced: Amount = 0.0
    collectives: int = 0
    sharers: int = 1
    layers: int = 0
    sequences: Amount = 0.0

    @property
    def bytes(self) -> Amount:
        """All that is moved to and from memory."""
        return sum(part.times * part.bytes for part in self.parts)

    @property
    def flops(self) -> Amount:
        """All that is computed."""
        return sum(part.times * part.flops for part in self.parts)


def stack(works: Sequence[Work]) -> Work:
    """Steps that differ in amounts alone as one, whose amounts are arrays."""

    def column(amounts: Sequence[Amount]) -> Amount:
        return np.array(amounts, dtype=np.float64)

    parts = tuple(
        replace(
            column_of[0],
            bytes=column([each.bytes for each in column_of]),
            flops=column([each.flops for each in column_of]),
        )
        for column_of in zip(*(work.parts for work in works), strict=True)
    )
    return replace(
        works[0],
        parts=parts,
        reduced=column([work.reduced for work in works]),
        sequences=column([work.sequences for work in works]),
    )
