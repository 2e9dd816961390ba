"""Work by parts of a matrix: the same result, with little memory beside it."""

import os
import time
import tracemalloc
import weakref

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.quant.int8 import quantize
from server.quant.parts import ALIGNMENT, PART, ROWS_AT_ONCE, by_rows, in_parts
from server.quant.weight import random_bytes


@given(rows=st.integers(1, 200), columns=st.sampled_from([1, 7, PART // 32, PART // 16, PART]))
def test_parts_are_put_together_in_their_order(rows: int, columns: int) -> None:
    w = np.broadcast_to(np.arange(rows, dtype=np.int64)[:, None], (rows, columns))
    once, blocks = in_parts(w, lambda part: (part[:, 0] * 2, part[::ROWS_AT_ONCE, :1]))
    np.testing.assert_array_equal(once, np.arange(rows) * 2)
    np.testing.assert_array_equal(blocks[:, 0], np.arange(0, rows, ROWS_AT_ONCE))


def test_one_array_or_several_come_back_as_they_were_made() -> None:
    w = np.ones((3 * ROWS_AT_ONCE, PART // ROWS_AT_ONCE), np.float16)
    alone = by_rows(w, lambda part: part * 2)
    (first,) = by_rows(w, lambda part: (part * 2,))
    assert alone.dtype == np.float32
    np.testing.assert_array_equal(alone, first)


def test_what_a_part_raises_comes_out() -> None:
    with pytest.raises(ValueError, match="no such"):
        in_parts(np.ones((8, 8)), lambda part: (_ for _ in ()).throw(ValueError("no such")))


def test_little_is_taken_beside_the_result() -> None:
    w = np.ones((4096, 4096), np.float32)
    tracemalloc.start()
    try:
        codes, _ = by_rows(w, quantize)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # In one piece it takes four times the matrix, sixteen times the codes.
    assert peak < 1.5 * codes.nbytes + 16 * PART * 4


def test_parts_do_not_pile_up_while_others_are_made() -> None:
    """The second part takes long: what is made meanwhile goes to its place."""
    alive: weakref.WeakValueDictionary[int, np.ndarray] = weakref.WeakValueDictionary()
    counts = []

    def make(part: np.ndarray) -> np.ndarray:
        if part[0, 0] == ROWS_AT_ONCE:
            time.sleep(0.3)
        made = part.copy()
        alive[int(part[0, 0])] = made
        counts.append(len(alive))
        return made

    rows = 100 * ROWS_AT_ONCE
    w = np.broadcast_to(np.arange(rows)[:, None], (rows, PART // ROWS_AT_ONCE))
    np.testing.assert_array_equal(in_parts(w, make)[:, 0], np.arange(rows))
    # One a core, and the two ends.
    assert max(counts) <= (os.cpu_count() or 1) + 2


def test_a_large_result_is_taken_over_by_the_device_without_a_copy() -> None:
    whole = in_parts(np.ones((8 * ROWS_AT_ONCE, PART // ROWS_AT_ONCE), np.float32), np.negative)
    assert whole.ctypes.data % ALIGNMENT == 0
    assert jax.device_put(whole, jax.devices()[0]).unsafe_buffer_pointer() == whole.ctypes.data


@pytest.mark.parametrize("shape", [(5, 64), (3, 7), (2, 9, 16, 4), (1000, 1000)])
def test_random_bytes_are_even(shape: tuple[int, ...]) -> None:
    drawn = np.asarray(random_bytes(jax.random.key(1), shape))
    assert drawn.shape == shape and drawn.dtype == np.uint8
    if drawn.size > 10**5:
        counts = np.bincount(drawn.ravel(), minlength=256)
        assert abs(counts - drawn.size / 256).max() < 6 * (drawn.size / 256) ** 0.5


def test_drawing_bytes_takes_a_few_times_their_size() -> None:
    compiled = jax.jit(lambda key: random_bytes(key, (1024, 4096))).lower(jax.random.key(0))
    # Drawn one by one it is 16 times and more.
    assert compiled.compile().memory_analysis().temp_size_in_bytes <= 6 * 1024 * 4096
