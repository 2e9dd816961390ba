"""How a run is dealt out to workers, and what is left of one that died."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.load.crew import LOST, lost_share
from client.load.share import Plan, Share, Tally, divide
from client.targets.exchange import OK
from client.targets.settings import TargetSettings
from client.workloads.prompt import Prompt
from client.workloads.session import Session

TARGET = TargetSettings(request_timeout=10.0)


def sessions(turns: list[int]) -> list[Session]:
    """Sessions of so many turns each, all prompts different."""
    found = []
    for number, count in enumerate(turns):
        prompts = tuple(
            Prompt(f"{number}/{turn}", f"{number} {turn}", (number, turn), 4)
            for turn in range(count)
        )
        found.append(Session(str(number), prompts, (0.0,) + (1.5,) * (count - 1)))
    return found


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=30),
    st.integers(1, 8),
    st.one_of(st.none(), st.integers(1, 12)),
)
def test_every_session_and_place_is_dealt_out_once(turns, workers, places):
    asked = sessions(turns)
    due = tuple(0.1 * number for number in range(len(asked)))
    shares = divide(TARGET, asked, Plan(due, places), workers)
    assert len(shares) == max(1, min(workers, len(asked), places or len(asked)))
    numbers = [index for share in shares for row in share.indices for index in row]
    assert sorted(numbers) == list(range(sum(turns)))
    flat = [prompt for session in asked for prompt in session.turns]
    dealt = Counter()
    for share in shares:
        for session, row, when in zip(share.sessions, share.indices, share.plan.due, strict=True):
            dealt[session.id] += 1
            assert [flat[index] for index in row] == list(session.turns)
            assert when == pytest.approx(0.1 * int(session.id))
    assert set(dealt.values()) == {1}
    sizes = [len(share.sessions) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    if places is not None:
        each = [share.plan.concurrency for share in shares]
        assert sum(each) == max(places, len(shares)) == places
        assert max(each) - min(each) <= 1 and min(each) >= 1


def test_how_long_a_share_can_take():
    asked = sessions([1, 3, 1, 1])
    (share,) = divide(TARGET, asked, Plan((0.0, 1.0, 2.0, 5.0)), 1)
    # The last due at 5 s, then at most three turns of 10 s with 3 s of waits.
    assert share.seconds == 5 + 33
    (closed,) = divide(TARGET, asked, Plan((None,) * 4, 2), 1)
    assert closed.seconds == 2 * 33
    (timed,) = divide(TARGET, asked, Plan((None,) * 4, 2, stop_after=7.0), 1)
    assert timed.seconds == 7 + 33


@pytest.mark.parametrize(("stop_after", "begun"), [(None, 6), (9.0, 3)])
def test_a_worker_that_died_lost_what_it_had_begun(stop_after, begun):
    """By the clock no more than it had begun; otherwise all of its requests."""
    asked = sessions([1] * 6)
    share = Share(
        TARGET, tuple(asked), tuple((number,) for number in range(6)),
        Plan((None,) * 6, 2, stop_after),
    )  # fmt: skip
    left = lost_share(share, Tally(ended=2, in_flight=1))
    assert left.lost and not left.interrupted
    assert [each.status for each in left.exchanges] == [LOST] * begun + [None] * (6 - begun)
    assert all(each.status != OK and each.sent is None for each in left.exchanges)
    assert len(left.answers) == len(left.indices) == 6
