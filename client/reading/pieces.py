"""What came over a stream, in columns."""

from collections.abc import Callable, Iterator, Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray


class Pieces(Sequence[tuple[float, bytes]]):
    """(time, content) of each piece, all contents in one run of bytes.

    times [n] float64 in seconds; ends [n] where each content ends in `body`.
    """

    __slots__ = ("body", "ends", "times")

    def __init__(self, times: NDArray[np.float64], ends: NDArray[np.uint64], body: bytes) -> None:
        self.times, self.ends, self.body = times, ends, body

    def __len__(self) -> int:
        return len(self.times)

    def __iter__(self) -> Iterator[tuple[float, bytes]]:
        start = 0
        for time, end in zip(self.times.tolist(), self.ends.tolist(), strict=True):
            yield time, self.body[start:end]
            start = end

    def at(self, index: int) -> tuple[float, bytes]:
        """One piece; `index` counts from 0."""
        start = int(self.ends[index - 1]) if index else 0
        return float(self.times[index]), self.body[start : int(self.ends[index])]

    def between(self, first: int, last: int) -> "Pieces":
        """The pieces from `first` on, up to `last`."""
        start = int(self.ends[first - 1]) if first else 0
        end = int(self.ends[last - 1]) if last else 0
        ends = self.ends[first:last] - np.uint64(start)
        return Pieces(self.times[first:last], ends, self.body[start:end])

    @overload
    def __getitem__(self, index: int) -> tuple[float, bytes]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[float, bytes]]: ...
    def __getitem__(self, index: int | slice) -> tuple[float, bytes] | list[tuple[float, bytes]]:
        return list(self)[index]


class Coming(Sequence[tuple[float, bytes]]):
    """The pieces of a stream under way, of which only the number is known."""

    __slots__ = ("_count",)

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count()

    def __getitem__(self, index: int | slice) -> tuple[float, bytes]:  # type: ignore[override]
        raise IndexError("these pieces are still on their way")
