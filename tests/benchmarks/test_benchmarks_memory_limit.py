"""Processes under a limit: a hog is stopped at it, what stays below is left alone."""

import sys
import time

import pytest

from benchmarks.memory_limit import LIMITS, Limit, run_limited

MIB = 2**20
# Takes memory a MiB at a time, as many as it is told, and says how many it has.
HOG = """
import sys
taken = []
for count in range(int(sys.argv[1])):
    taken.append(bytearray(b"x") * 2**20)
    print(count + 1, flush=True)
"""


def hog(mebibytes: int, limit: Limit | None, seconds: float = 60.0) -> tuple:
    ended = run_limited([sys.executable, "-c", HOG, str(mebibytes)], limit, seconds)
    return ended, int(ended.lines[-1]) if ended.lines else 0


@pytest.mark.parametrize("kind", LIMITS)
def test_a_hog_is_stopped_at_the_limit(kind: str) -> None:
    ended, had = hog(4000, Limit(200 * MIB, kind))
    assert ended.status == "out of memory"
    # The interpreter itself takes some; what a hog touches between two looks comes on top.
    assert 150 < had < 400
    assert ended.peak > 180 * MIB


@pytest.mark.parametrize("kind", LIMITS)
def test_a_limit_that_is_not_reached_changes_nothing(kind: str) -> None:
    ended, had = hog(50, Limit(400 * MIB, kind))
    assert (ended.status, had) == ("ok", 50)


def test_memory_that_is_only_promised_is_data_and_not_resident() -> None:
    promised = "import mmap, time; m = mmap.mmap(-1, 600 * 2**20, flags=34); time.sleep(0.2)"
    command = [sys.executable, "-c", promised]
    assert run_limited(command, Limit(300 * MIB, "resident"), 60).status == "ok"
    refused = run_limited(command, Limit(300 * MIB, "data"), 60)
    assert refused.status == "out of memory", refused.error


def test_what_fails_for_another_reason_is_not_out_of_memory() -> None:
    ended = run_limited([sys.executable, "-c", "1 / 0"], Limit(400 * MIB), 60)
    assert ended.status == "failed"
    assert "ZeroDivisionError" in ended.error


def test_a_process_that_hangs_is_ended() -> None:
    started = time.monotonic()
    ended = run_limited([sys.executable, "-c", "import time; time.sleep(60)"], None, 0.5)
    assert ended.status == "timeout"
    assert time.monotonic() - started < 30


def test_a_kind_of_limit_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="resident, data"):
        Limit(1, "swap")
