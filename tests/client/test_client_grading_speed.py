"""Decode speed counts only while every request is being answered."""

import pytest

from client.errors import NotReadyError, UsageError
from client.grading.speed import SpeedSettings, decode_rate


def test_beginnings_and_ends_do_not_count() -> None:
    early = [(0.0, 1), (0.5, 1), (1.0, 1), (2.0, 1), (3.0, 1)]
    late = [(1.0, 1), (2.0, 2), (3.0, 2), (9.0, 1)]
    # From 1 to 3 seconds: 2 tokens of the one and 4 of the other.
    assert decode_rate([early, late]) == pytest.approx(3.0)


def test_one_after_another_is_no_batch() -> None:
    with pytest.raises(UsageError, match="--speed-tokens"):
        decode_rate([[(0.0, 1), (1.0, 1)], [(2.0, 1), (3.0, 1)]])
    with pytest.raises(NotReadyError, match="without tokens"):
        decode_rate([[(0.0, 1)], []])


@pytest.mark.parametrize("values", [{"batch": 0}, {"prompt": 0}, {"tokens": 7}, {"rounds": 0}])
def test_settings_that_measure_nothing_are_refused(values: dict) -> None:
    with pytest.raises(UsageError, match="speed, "):
        SpeedSettings(**values)
