"""Which batch to try next, until the largest that works is known."""

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Tried:
    """Whether a batch worked, and the most bytes it took."""

    works: bool
    peak: int


@dataclass(frozen=True)
class Known:
    """`works`: the largest batch that did, 0 if none. `fails`: the smallest that did not."""

    works: int
    fails: int | None

    def done(self, resolution: float) -> bool:
        """Whether nothing lies between the two but a share `resolution` of the batch."""
        return self.fails is not None and self.fails - self.works <= step(self.works, resolution)


def known(tried: Mapping[int, Tried]) -> Known:
    """ValueError where a batch works that is larger than one that does not: then no single number
    is the largest."""
    works = max((batch for batch, one in tried.items() if one.works), default=0)
    fails = min((batch for batch, one in tried.items() if not one.works), default=None)
    if fails is not None and works > fails:
        raise ValueError(f"batch {works} works and {fails} does not: trials are disturbed")
    return Known(works, fails)


def next_batch(
    tried: Mapping[int, Tried], first: int, limit: int, slot_bytes: float, resolution: float = 0.0
) -> int | None:
    """None when the largest batch that works is known, within a share `resolution` of it.

    `first` is tried first. From then on the peak of a batch that worked says, with `slot_bytes` for
    each slot more, where `limit` is reached; batches on either side of that are tried, or the
    middle of what is left where a batch below it has failed.
    """
    if not tried:
        return max(first, 1)
    found = known(tried)
    if found.done(resolution):
        return None
    if found.works == 0:
        assert found.fails is not None
        # Nothing is known but that it was too much: a little less, then much less.
        return max(1, found.fails - _widened(tried, found.fails, resolution))
    expected = _expected(tried, limit, slot_bytes)
    wide = step(found.works, resolution)
    if found.fails is None:
        return max(expected, found.works + wide)
    low, high = found.works + wide, found.fails - wide
    if low >= high or expected >= found.fails:
        return (found.works + found.fails) // 2
    return min(max(expected, low), high)


def step(batch: int, resolution: float) -> int:
    """The smallest difference that matters."""
    return max(1, math.floor(batch * resolution))


def _expected(tried: Mapping[int, Tried], limit: int, slot_bytes: float) -> int:
    works = max(batch for batch, one in tried.items() if one.works)
    return works + math.floor((limit - tried[works].peak) / slot_bytes)


def _widened(tried: Mapping[int, Tried], fails: int, resolution: float) -> int:
    """Twice as far after each failure."""
    return max(step(fails, resolution), math.ceil(fails * 0.02 * 2 ** (len(tried) - 1)))
