"""Work on a large matrix a few rows at a time, on all cores: what is in between stays small.

NumPy makes an array for each step of a calculation: quantizing a matrix whole takes four times its
float32 size. A part at a time the result is the same and costs a few MB a core.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

PART = 2**20  # values of a matrix
ROWS_AT_ONCE = 16  # the CPU kernel's blocks of outputs stay whole


def by_rows(w: np.ndarray, make: Callable[[np.ndarray], Any]) -> Any:
    """make(w), for a `make` whose array or tuple of arrays has its first axis from the rows of w.

    w [N, in] of any float type; `make` gets float32.
    """
    rows = max(ROWS_AT_ONCE, PART // max(1, w.shape[1]) // ROWS_AT_ONCE * ROWS_AT_ONCE)
    starts = range(0, w.shape[0], rows) or [0]

    def one(start: int) -> Any:
        return make(np.asarray(w[start : start + rows], np.float32))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = list(pool.map(one, starts))
    if isinstance(parts[0], tuple):
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))
    return np.concatenate(parts)
