"""Work on a large matrix a few rows at a time, on all cores: what is in between stays small.

NumPy makes an array for each step of a calculation: quantizing a matrix whole takes four times its
float32 size. A part at a time the result is the same and costs little beside it.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

# Values of a matrix. glibc keeps several parts for each of its arenas, of which it has eight a
# core: 140 MiB at 2**20 and 2 cores.
PART = 2**17
ROWS_AT_ONCE = 16  # the CPU kernel's blocks of outputs stay whole
# XLA takes an array over as it is where it begins at a multiple of so many bytes, else it copies.
ALIGNMENT = 64


def by_rows(w: np.ndarray, make: Callable[[np.ndarray], Any]) -> Any:
    """make(w), for a `make` whose array or tuple of arrays has its first axis from the rows of w.

    w [N, in] of any float type; `make` gets float32.
    """
    return in_parts(w, lambda part: make(np.asarray(part, np.float32)))


def in_parts(w: np.ndarray, make: Callable[[np.ndarray], Any]) -> Any:
    """The same for w [N, in] of any type, which `make` gets as it is.

    Of the result's size nothing else is made, and a large result is one that XLA takes over.
    """
    rows = max(ROWS_AT_ONCE, PART // max(1, w.shape[1]) // ROWS_AT_ONCE * ROWS_AT_ONCE)
    starts = range(0, w.shape[0], rows) or range(1)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # The last part may be shorter; with it and the first the size of the whole is known.
        ends = [pool.submit(make, w[starts[-1] :])]
        if len(starts) > 1:
            ends.append(pool.submit(make, w[:rows]))
        last, *first = (end.result() for end in ends)
        if not first:
            return last
        whole = _joined(len(starts), _columns(first[0]), _columns(last))
        size = [len(part) for part in _columns(first[0])]
        del ends, first

        def put(index: int) -> None:
            # In its place by who made it: parts do not pile up where cores are short.
            part = _columns(make(w[index * rows : (index + 1) * rows]))
            for place, values, count in zip(whole, part, size, strict=True):
                place[index * count : (index + 1) * count] = values

        for _ in pool.map(put, range(1, len(starts) - 1)):
            pass
    return whole if isinstance(last, tuple) else whole[0]


def _joined(
    count: int, first: Sequence[np.ndarray], last: Sequence[np.ndarray]
) -> tuple[np.ndarray, ...]:
    """Arrays for so many parts, with the first and the last in them."""
    whole = tuple(
        aligned(((count - 1) * len(a) + len(b), *a.shape[1:]), a.dtype)
        for a, b in zip(first, last, strict=True)
    )
    for place, start, end in zip(whole, first, last, strict=True):
        place[: len(start)] = start
        place[len(place) - len(end) :] = end
    return whole


def _columns(part: Any) -> tuple[np.ndarray, ...]:
    return part if isinstance(part, tuple) else (part,)


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array of no particular values, which begins where XLA wants it to."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = np.empty(size + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return room[start : start + size].view(dtype).reshape(shape)
