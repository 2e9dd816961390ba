"""The scheduling policy, case by case."""

import pytest

from server.scheduler import Cause, Decode, Failure, Finish, Policy, Prefill, QueueFull, Request
from tests.scheduler.simulation import Simulation
from tests.scheduler.small_engine import SmallEngine


def shapes(simulation: Simulation) -> list[str]:
    """What each turn dispatched: P, D or -."""
    letters = {Prefill: "P", Decode: "D", type(None): "-"}
    return [letters[type(plan.dispatch)] for plan in simulation.plans]


def test_a_prompt_is_cut_into_chunks_and_its_first_token_comes_with_the_last():
    simulation = Simulation(SmallEngine(chunk=8))
    request = simulation.submit(Request(0, list(range(20)), max_tokens=3))
    simulation.run()
    assert shapes(simulation) == ["P", "P", "P", "D", "D", "-"]
    first = simulation.plans[0].dispatch.chunks[0]
    assert (list(first.tokens), first.start, first.last) == (list(range(8)), 0, False)
    last = simulation.plans[2].dispatch.chunks[0]
    assert (list(last.tokens), last.start, last.last) == ([16, 17, 18, 19], 16, True)
    assert simulation.ids(request) == simulation.engine.expected(request.prompt, 3)
    assert [len(event.tokens) for event in simulation.events[request]] == [1, 1, 1]


def test_no_step_is_dispatched_that_can_make_no_token():
    simulation = Simulation(SmallEngine())
    simulation.submit(Request(0, [1], max_tokens=1))
    simulation.run()
    assert shapes(simulation) == ["P", "-"]


@pytest.mark.parametrize(("ratio", "expected"), [(1, "PDPDPDPD"), (2, "PDPPDPPD"), (3, "PDPPPDPP")])
def test_decode_steps_come_between_the_chunks_of_a_long_prompt(ratio, expected):
    simulation = Simulation(SmallEngine(chunk=4), Policy(prefills_per_decode=ratio))
    simulation.submit(Request(0, [1], max_tokens=50))
    simulation.turn()
    simulation.turn()
    simulation.submit(Request(1, list(range(80)), max_tokens=1))
    while len(simulation.plans) < len(expected):
        simulation.turn()
    assert "".join(shapes(simulation)) == expected


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([1] * 8, [6, 2]),
        ([8] * 5, [3, 2]),
        ([1, 1, 8, 1], [3, 1]),
        ([1, 1, 1, 8, 1], [3, 2]),
        ([20, 2, 2, 2], [3, 2, 1]),
    ],
)
def test_as_many_prompts_are_read_together_as_the_longest_allows(lengths, expected):
    """Three chunks of 8 tokens or six of 4, in the order they came."""
    simulation = Simulation(SmallEngine(slots=8, chunk=8, prefill_batch=3))
    for number, length in enumerate(lengths):
        simulation.submit(Request(number, [number + 1] * length, max_tokens=1))
    simulation.run()
    reads = [plan.dispatch for plan in simulation.plans if isinstance(plan.dispatch, Prefill)]
    assert [len(read.chunks) for read in reads] == expected
    assert [request.id for request in simulation.starts] == list(range(len(lengths)))


def test_a_cancelled_request_frees_its_slot_for_the_next_within_two_steps():
    simulation = Simulation(SmallEngine(slots=1))
    first = simulation.submit(Request(0, [1], max_tokens=1000))
    second = simulation.submit(Request(1, [2], max_tokens=2))
    for _ in range(5):
        simulation.turn()
    simulation.scheduler.cancel(first, simulation.now)
    simulation.turn()
    simulation.turn()
    assert second in simulation.starts
    simulation.run()
    assert simulation.events[first][-1].end == Failure(Cause.CANCELLED, "cancelled by the client")
    assert simulation.ids(second) == simulation.engine.expected([2], 2)


def test_a_request_cancelled_halfway_through_its_prompt_leaves_no_trace():
    simulation = Simulation(SmallEngine(slots=1, chunk=4))
    first = simulation.submit(Request(0, list(range(50)), max_tokens=5))
    simulation.turn()
    simulation.scheduler.cancel(first, simulation.now)
    second = simulation.submit(Request(1, [9, 9, 9], max_tokens=5))
    simulation.run()
    assert simulation.ids(first) == []
    assert simulation.ids(second) == simulation.engine.expected([9, 9, 9], 5)


def test_tokens_under_way_never_reach_the_next_request_of_the_slot():
    simulation = Simulation(SmallEngine(slots=1))
    first = simulation.submit(Request(0, [1], max_tokens=1000))
    second = simulation.submit(Request(1, [2], max_tokens=4))
    for _ in range(4):
        simulation.turn()
    simulation.scheduler.cancel(first, simulation.now)
    before = simulation.ids(first)
    plan = simulation.turn()  # reads a step that still names the slot for the first request
    assert plan.release == [0]
    simulation.run()
    assert simulation.ids(first) == before
    assert simulation.ids(second) == simulation.engine.expected([2], 4)


def test_a_queued_request_past_its_deadline_never_touches_the_device():
    simulation = Simulation(SmallEngine(slots=1))
    simulation.submit(Request(0, [1], max_tokens=30))
    late = simulation.submit(Request(1, [2], max_tokens=5, deadline=10.0))
    simulation.run()
    assert [request.id for request in simulation.starts] == [0]
    (event,) = simulation.events[late]
    assert event.end == Failure(Cause.DEADLINE, "deadline passed while queued")
    assert late.ended_at == 10.0


def test_a_running_request_past_its_deadline_is_released():
    simulation = Simulation(SmallEngine(slots=1))
    late = simulation.submit(Request(0, [1], max_tokens=1000, deadline=10.0))
    simulation.run(turns=15)
    assert simulation.events[late][-1].end == Failure(
        Cause.DEADLINE, "deadline passed while running"
    )
    assert ("release", (0,)) in simulation.engine.calls


def test_requests_with_far_deadlines_do_not_pile_up():
    simulation = Simulation(SmallEngine())
    for number in range(1000):
        simulation.submit(Request(number, [1], max_tokens=1, deadline=1e9))
        simulation.run()
    assert len(simulation.scheduler._deadlines._heap) <= 128


def test_a_full_queue_refuses_and_takes_again_when_there_is_room():
    simulation = Simulation(SmallEngine(slots=1), Policy(queue_limit=2))
    waiting = [simulation.submit(Request(number, [1], max_tokens=1)) for number in range(2)]
    with pytest.raises(QueueFull, match="2 requests wait and the limit is 2"):
        simulation.submit(Request(2, [1], max_tokens=1))
    simulation.scheduler.cancel(waiting[0], simulation.now)
    simulation.submit(Request(3, [1], max_tokens=1))


def test_finish_ends_a_request_as_stopped():
    simulation = Simulation(SmallEngine())
    request = simulation.submit(Request(0, [1], max_tokens=1000))
    for _ in range(4):
        simulation.turn()
    simulation.scheduler.finish(request, simulation.now)
    simulation.run(turns=3)
    assert simulation.events[request][-1].end is Finish.STOP


def test_times_are_kept():
    simulation = Simulation(SmallEngine(slots=1, chunk=4))
    simulation.submit(Request(0, [1], max_tokens=3))
    second = simulation.submit(Request(1, list(range(12)), max_tokens=2))
    simulation.run()
    assert second.queued_at == 0
    assert second.queued_at < second.prefill_at < second.first_token_at < second.ended_at
    assert second.generated == 2


def test_a_token_for_a_slot_without_an_owner_is_an_error():
    simulation = Simulation(SmallEngine())
    simulation.submit(Request(0, [1], max_tokens=2))
    plan = simulation.scheduler.plan(1.0)
    stray = simulation.engine.prefill(plan.dispatch.chunks).tokens()[0]
    with pytest.raises(RuntimeError, match="slot 0, which was free"):
        simulation.scheduler.complete(Decode({}), [stray], 1.0)


@pytest.mark.parametrize("name", ["queue_limit", "prefills_per_decode"])
def test_a_policy_with_a_zero_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 0"):
        Policy(**{name: 0})


def test_a_request_must_ask_for_something():
    with pytest.raises(ValueError, match="empty prompt"):
        Request(7, [], max_tokens=1)
    with pytest.raises(ValueError, match="max_tokens 0"):
        Request(7, [1], max_tokens=0)
