"""How many replicas keep a service level, by simulation."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from capacity.planning.candidate import Candidate
from capacity.serving.lengths import Lengths
from capacity.simulation.fleet import Fleet, simulate
from capacity.simulation.outcome import Outcome
from capacity.simulation.target import Target
from capacity.simulation.traffic import Traffic, at_rate
from client.load.arrivals import Arrivals

# Of a fleet so large a part is simulated, with its part of the traffic.
_MOST_REPLICAS = 8
_REQUESTS = (3000, 40_000)
# Requests for each that is under way at a time: enough that the fleet is full for most of a run.
_TURNS = 12
_WARM_UP = 0.15
_STEPS = 14  # of the search
_GROWTH = 1.12
_MORE = (1.15, 1.35, 1.7)


@dataclass(frozen=True)
class Demand:
    """What a fleet is asked: `trace`, or a rate with arrivals and lengths."""

    rate: float
    lengths: Lengths
    arrivals: Arrivals
    trace: Traffic | None
    seed: int


@dataclass(frozen=True)
class Confirmed:
    """replicas: the fewest that were found to keep the level. tried: what others came to."""

    candidate: Candidate
    replicas: int
    outcome: Outcome
    tried: dict[int, Outcome]


def confirm(
    candidate: Candidate,
    demand: Demand,
    target: Target,
    fleet: Callable[[int], Fleet],
    most: int,
) -> Confirmed | str:
    """The fewest replicas that keep the level, or why none up to `most` do."""
    tried: dict[int, Outcome] = {}

    def missed(replicas: int) -> list[str]:
        if replicas not in tried:
            tried[replicas] = run(candidate, demand, fleet, replicas)
        return target.missed(tried[replicas]) + overload(tried[replicas])

    low, high = 0, candidate.replicas
    # Up until it is kept, then down between what missed and what kept.
    while found := missed(high):
        low, high = high, max(high + 1, math.ceil(high * _GROWTH ** (1 + len(tried) / 3)))
        if len(tried) >= _STEPS or high > most:
            return f"{'; '.join(found)} with {low:,} replicas"
    while high - low > max(1, high // 50) and len(tried) < _STEPS:
        middle = (low + high) // 2 if low else max(high - max(1, high // 8), 1)
        if middle == high:
            break
        low, high = (middle, high) if missed(middle) else (low, middle)
        if high == 1:
            break
    return Confirmed(candidate, high, tried[high], tried)


def spread(found: Confirmed, demand: Demand, fleet: Callable[[int], Fleet]) -> None:
    """Tries somewhat larger fleets too, to show what more replicas would bring."""
    for factor in _MORE:
        replicas = max(math.ceil(found.replicas * factor), found.replicas + 1)
        if replicas not in found.tried:
            found.tried[replicas] = run(found.candidate, demand, fleet, replicas)


def run(
    candidate: Candidate, demand: Demand, fleet: Callable[[int], Fleet], replicas: int
) -> Outcome:
    """A fleet of so many; of a large one a part under its part of the traffic."""
    if demand.trace is not None:
        return _whole(simulate(fleet(replicas), candidate.model, demand.trace))
    part = min(replicas, _MOST_REPLICAS)
    rate = demand.rate * part / replicas
    count = int(np.clip(_TURNS * candidate.active * part, *_REQUESTS))
    arrivals = Arrivals(demand.arrivals.process, rate, demand.arrivals.burstiness)
    traffic = at_rate(demand.lengths, arrivals, count, demand.seed)
    return _whole(simulate(fleet(part), candidate.model, traffic)).after(_WARM_UP)


def _whole(found: Outcome) -> Outcome:
    """Part of a run says nothing of the level. Raises KeyboardInterrupt after one."""
    if found.interrupted:
        raise KeyboardInterrupt
    return found


def overload(outcome: Outcome) -> list[str]:
    """Whether requests wait ever longer: more come than are served."""
    waits = outcome.queue[np.isfinite(outcome.queue)]
    if len(waits) < 100:
        return []
    early, late = (
        float(waits[int(len(waits) * a) : int(len(waits) * b)].mean())
        for a, b in ((0.3, 0.5), (0.8, 1.0))
    )
    # A steady growth makes it 2.25 times as long.
    if late > 1.6 * early + 0.5:
        return [f"the wait grows from {early:,.1f} to {late:,.1f} s: more come than are served"]
    return []
