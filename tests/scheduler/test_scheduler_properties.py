"""Whatever comes in whatever order, the promises of the scheduler hold."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from server.scheduler import Cause, Decode, Failure, Finish, Policy, Prefill, Request, Sampling
from tests.scheduler.simulation import Simulation
from tests.scheduler.small_engine import SmallEngine

EOS = frozenset({5, 17, 40})


@dataclass(frozen=True)
class Arrival:
    prompt: list[int]
    max_tokens: int
    seed: int
    ignore_eos: bool
    patience: int | None


@dataclass(frozen=True)
class GiveUp:
    which: int
    finish: bool


arrivals = st.builds(
    Arrival,
    prompt=st.lists(st.integers(0, 96), min_size=1, max_size=30),
    max_tokens=st.integers(1, 12),
    seed=st.integers(0, 96),
    ignore_eos=st.booleans(),
    patience=st.none() | st.integers(0, 25),
)
give_ups = st.builds(GiveUp, which=st.integers(0, 30), finish=st.booleans())
turns = st.lists(st.lists(arrivals | give_ups, max_size=4), max_size=25)
engines = st.builds(
    SmallEngine,
    slots=st.integers(1, 5),
    chunk=st.integers(1, 9),
    prefill_batch=st.integers(1, 3),
    eos_ids=st.just(EOS),
    tokens_per_decode=st.integers(1, 3),
)
policies = st.builds(Policy, prefills_per_decode=st.integers(1, 3))


def play(simulation: Simulation, script: list[list[Arrival | GiveUp]]) -> list[Request]:
    """Plays the script turn by turn, then runs to the end. Returns the requests as they came."""
    requests: list[Request] = []
    for actions in script:
        for action in actions:
            if isinstance(action, Arrival):
                deadline = None if action.patience is None else simulation.now + action.patience
                request = Request(
                    id=len(requests),
                    prompt=action.prompt,
                    max_tokens=action.max_tokens,
                    sampling=Sampling(seed=action.seed),
                    ignore_eos=action.ignore_eos,
                    deadline=deadline,
                )
                requests.append(simulation.submit(request))
            elif requests:
                target = requests[action.which % len(requests)]
                give_up = (
                    simulation.scheduler.finish if action.finish else simulation.scheduler.cancel
                )
                give_up(target, simulation.now)
        simulation.turn()
    simulation.run()
    return requests


@settings(max_examples=150, deadline=None)
@given(engines, policies, turns)
def test_every_request_ends_once_with_its_own_tokens(engine, policy, script):
    simulation = Simulation(engine, policy)
    for request in play(simulation, script):
        events = simulation.events[request]
        ends = [event.end for event in events if event.end is not None]
        assert len(ends) == 1
        assert events[-1].end is not None, "something came after the end"
        expected = engine.expected(
            request.prompt, request.max_tokens, request.sampling, request.ignore_eos
        )
        ids = simulation.ids(request)
        assert ids == expected[: len(ids)]
        given_up = isinstance(ends[0], Failure) or not events[-1].tokens
        if not given_up:
            assert ids == expected
            stopped = ids[-1] in EOS and not request.ignore_eos
            assert ends[0] is (Finish.STOP if stopped else Finish.LENGTH)


@settings(max_examples=100, deadline=None)
@given(engines, policies, turns)
def test_no_slot_is_lost(engine, policy, script):
    simulation = Simulation(engine, policy)
    play(simulation, script)
    stats = simulation.scheduler.stats()
    assert (stats.queued, stats.prefilling, stats.decoding) == (0, 0, 0)
    assert engine.active_slots == set()
    fresh = [
        simulation.submit(Request(1000 + i, [i], 200, ignore_eos=True))
        for i in range(engine.shape.slots)
    ]
    while simulation.scheduler.stats().queued:
        simulation.turn()
    assert {request.slot for request in fresh} == set(range(engine.shape.slots))
    simulation.run()


@settings(max_examples=100, deadline=None)
@given(engines, policies, turns)
def test_requests_start_in_the_order_they_came(engine, policy, script):
    simulation = Simulation(engine, policy)
    requests = play(simulation, script)
    order = [request.id for request in simulation.starts]
    assert order == sorted(order)
    for request in requests:
        if request not in simulation.starts:
            end = simulation.events[request][-1].end
            dropped = isinstance(end, Failure) and end.cause in (Cause.CANCELLED, Cause.DEADLINE)
            assert dropped or end is Finish.STOP  # finished by its owner while queued


@settings(max_examples=100, deadline=None)
@given(engines, policies, turns)
def test_running_streams_never_wait_for_more_prefills_than_allowed(engine, policy, script):
    simulation = Simulation(engine, policy)
    play(simulation, script)
    promised: dict[Request, int] = {}
    prefills = 0
    for now, plan in enumerate(simulation.plans, start=1):
        hungry = any(
            count < request.max_tokens and request.ended_at > now
            for request, count in promised.items()
        )
        if isinstance(plan.dispatch, Prefill):
            prefills += 1
            assert not hungry or prefills <= policy.prefills_per_decode
            promised |= dict.fromkeys(plan.dispatch.owners.values(), 1)
        else:
            assert isinstance(plan.dispatch, Decode) or not hungry
            prefills = 0
            for request in plan.dispatch.owners.values() if plan.dispatch else ():
                promised[request] += 1
