"""Work on a large matrix a few rows at a time, on all cores: what is in between stays small.

NumPy makes an array for each step of a calculation: quantizing a matrix whole takes four times its
float32 size. A part at a time the result is the same and costs little beside it.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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
        # The last part first: it may be shorter, and with it the size of the whole is known.
        last = pool.submit(make, w[starts[-1] :])
        before = [pool.submit(make, w[start : start + rows]) for start in starts[:-1]]
        if not before:
            return last.result()
        whole = _joined(before, _columns(last.result()))
    return whole if isinstance(last.result(), tuple) else whole[0]


def _joined(before: list[Future], last: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """All parts in a row; each is let go as soon as it is in its place."""
    count = len(before)
    first = _columns(before[0].result())
    whole = tuple(
        aligned((count * len(a) + len(b), *a.shape[1:]), a.dtype)
        for a, b in zip(first, last, strict=True)
    )
    del first
    before.reverse()
    for index in range(count):
        for place, part in zip(whole, _columns(before.pop().result()), strict=True):
            place[index * len(part) : (index + 1) * len(part)] = part
    for place, part in zip(whole, last, strict=True):
        place[len(place) - len(part) :] = part
    return whole


def _columns(part: Any) -> tuple[np.ndarray, ...]:
    return part if isinstance(part, tuple) else (part,)


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array of no particular values, which begins where XLA wants it to."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = np.empty(size + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return room[start : start + size].view(dtype).reshape(shape)
