"""When the messages of an answer came, and how many tokens each brought."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray


class Arrivals:
    """A row of (time, tokens), kept in columns.

    times [messages] float64, seconds; counts [messages] int64, above 0.
    """

    __slots__ = ("counts", "times")

    def __init__(self, times: NDArray[np.float64], counts: NDArray[np.int64]) -> None:
        self.times, self.counts = times, counts

    @classmethod
    def of(cls, pairs: Sequence[tuple[float, int]]) -> "Arrivals":
        """From (time, tokens) of each message."""
        times = np.array([time for time, _ in pairs], np.float64)
        return cls(times, np.array([count for _, count in pairs], np.int64))

    @classmethod
    def singles(cls, times: Sequence[float] | NDArray[np.float64]) -> "Arrivals":
        """One token a message."""
        return cls(np.asarray(times, np.float64), np.ones(len(times), np.int64))

    def since(self, start: float) -> "Arrivals":
        """The same on a clock that was 0 at `start`."""
        return Arrivals(self.times - start, self.counts)

    def __len__(self) -> int:
        return len(self.times)

    def __iter__(self) -> Iterator[tuple[float, int]]:
        return zip(self.times.tolist(), self.counts.tolist(), strict=True)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Arrivals):
            return NotImplemented
        return np.array_equal(self.times, other.times) and np.array_equal(self.counts, other.counts)

    def __repr__(self) -> str:
        return f"Arrivals.of({list(self)})"
