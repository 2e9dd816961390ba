"""Replicas behind a router, event by event."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

from capacity.simulation.log import Log
from capacity.simulation.outcome import Outcome, outcome_of
from capacity.simulation.replica import NEVER, Replica
from capacity.simulation.router import ROUND_ROBIN, Router, open_router
from capacity.simulation.scheduling import Scheduling
from capacity.simulation.step_model import StepModel
from capacity.simulation.traffic import Traffic
from client.errors import UsageError

_REPORT_EVERY = 1024  # arrivals

Report = Callable[[int], None]


@dataclass(frozen=True)
class Fleet:
    """`replicas` alike behind a router. ahead: dispatches planned before the one under way has come
    back; our server's loop has 1. prefills: (rows, tokens) of prefill dispatches, None: the
    engine's.
    """

    replicas: int = 1
    router: str = ROUND_ROBIN
    ahead: int = 1
    prefills_per_decode: int = 1
    queue_limit: int = 16_384
    prefills: tuple[tuple[int, int], ...] | None = None

    def __post_init__(self) -> None:
        for name in ("replicas", "prefills_per_decode", "queue_limit"):
            if getattr(self, name) < 1:
                option = f"--{name.replace('_', '-')}"
                raise UsageError(f"{option}: 1 or more; got {getattr(self, name)}")
        if self.ahead not in (0, 1):
            raise UsageError(f"a pipeline of {self.ahead} dispatches ahead; 0 or 1 are known")


def simulate(
    fleet: Fleet, model: StepModel, traffic: Traffic, report: Report = lambda ended: None
) -> Outcome:
    """Runs the traffic through the fleet until every request has ended.

    KeyboardInterrupt ends it early: the outcome then is of what had happened, and says so. `report`
    is told now and then how many requests have come.
    """
    log = Log(len(traffic))
    setting = model.setting
    scheduling = Scheduling(
        setting.slots,
        setting.cache_length,
        fleet.prefills or model.prefills,
        fleet.prefills_per_decode,
        fleet.queue_limit,
    )
    replicas = [Replica(scheduling, model, log, fleet.ahead) for _ in range(fleet.replicas)]
    interrupted = False
    try:
        _run(replicas, open_router(fleet.router, replicas), traffic, log, scheduling, report)
    except KeyboardInterrupt:
        interrupted = True
    return outcome_of(traffic, log, replicas, setting, interrupted)


def _run(
    replicas: Sequence[Replica],
    router: Router,
    traffic: Traffic,
    log: Log,
    scheduling: Scheduling,
    report: Report,
) -> None:
    # (when it decides, which): one that has been overtaken by another of its replica is dropped.
    due: list[tuple[float, int]] = []
    requests = zip(
        traffic.times.tolist(), traffic.inputs.tolist(), traffic.outputs.tolist(), strict=True
    )
    for index, (at, inputs, outputs) in enumerate(requests):
        _advance(replicas, router, due, at)
        place = router.choose()
        replica = replicas[place]
        before = replica.next_at
        try:
            replica.arrive(index, at, inputs, outputs)
        except scheduling.full:
            log.refused.append(index)
            continue
        router.changed(place)
        if replica.next_at != before:
            heappush(due, (replica.next_at, place))
        if index % _REPORT_EVERY == 0:
            report(index)
    _advance(replicas, router, due, NEVER)
    report(len(traffic))


def _advance(
    replicas: Sequence[Replica], router: Router, due: list[tuple[float, int]], until: float
) -> None:
    """All that is decided before `until`: whoever comes at that very moment is seen."""
    while due and due[0][0] < until:
        at, place = heappop(due)
        replica = replicas[place]
        if at != replica.next_at:
            continue
        load = replica.load
        replica.turn()
        if replica.load != load:
            router.changed(place)
        if replica.next_at != NEVER:
            heappush(due, (replica.next_at, place))
