"""The search for the largest batch, over engines that are made up."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.largest_search import Tried, known, next_batch, step

LIMIT = 3 << 30


def search(base: int, each: int, first: int, guess: float, resolution: float = 0.0) -> tuple:
    """(works, fails, trials) where a batch takes `base + each * batch` bytes."""
    tried: dict[int, Tried] = {}
    for _ in range(64):
        batch = next_batch(tried, first, LIMIT, guess, resolution)
        if batch is None:
            found = known(tried)
            return found.works, found.fails, len(tried)
        assert batch >= 1 and batch not in tried
        taken = base + each * batch
        tried[batch] = Tried(taken <= LIMIT, min(taken, LIMIT))
    raise AssertionError(f"no end: {sorted(tried)}")


@given(
    base=st.integers(0, LIMIT * 2),
    each=st.integers(1 << 20, 1 << 30),
    first=st.integers(0, 4096),
    wrong=st.floats(0.25, 4.0),
)
@example(base=LIMIT, each=1 << 20, first=5, wrong=1.0)
def test_finds_the_largest(base: int, each: int, first: int, wrong: float) -> None:
    works, fails, _ = search(base, each, first, each * wrong)
    assert works == max((LIMIT - base) // each, 0)
    assert fails == works + 1


@given(first=st.integers(1, 4096), resolution=st.floats(0.0, 0.1))
def test_a_share_of_the_batch_is_near_enough(first: int, resolution: float) -> None:
    works, fails, _ = search(1 << 30, 5 << 20, first, 5 << 20, resolution)
    most = (2 << 30) // (5 << 20)
    assert works <= most < fails
    assert fails - works <= step(works, resolution)


def test_a_good_prediction_takes_few_trials() -> None:
    assert search(1 << 30, 5 << 20, 405, 5 << 20)[2] <= 4
    assert search(1 << 30, 5 << 20, 409, 5 << 20)[2] == 2


def test_trials_that_contradict_each_other_are_no_result() -> None:
    with pytest.raises(ValueError, match="12 works and 10 does not"):
        known({12: Tried(True, 1), 10: Tried(False, 2)})
