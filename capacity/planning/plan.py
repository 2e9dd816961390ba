"""The whole of planning: screen all, simulate the best, say why not the others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from capacity.planning.candidate import IMPOSSIBLE, Candidate, Choices, screen
from capacity.planning.confirm import Confirmed, Demand, confirm, spread
from capacity.planning.order import cost, outranked, rank
from capacity.planning.reason import Reason
from capacity.serving.level import least_ms
from capacity.simulation.fleet import Fleet
from capacity.simulation.target import Target
from client.errors import UsageError

MISSED = "misses the level in simulation"
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Wish:
    """order: what to have least of. top: how many to simulate. most: replicas. load: the most that
    a replica is given of what it can take."""

    order: str
    top: int
    most: int
    load: float


@dataclass
class Plan:
    """Fleets in order of cost, each with it, and the reasons of those that are not among them.
    screened: candidates that keep the level on average."""

    ranked: list[tuple[float, Confirmed]] = field(default_factory=list)
    screened: list[tuple[float, Candidate]] = field(default_factory=list)
    all: list[Candidate] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)
    interrupted: str = ""


def make_plan(
    choices: Choices,
    demand: Demand,
    target: Target,
    values: dict[str, float],
    wish: Wish,
    fleet: Callable[[int], Fleet],
    report: Report = lambda what, done, of: None,
) -> Plan:
    """KeyboardInterrupt leaves what is ranked by then, and says where it was.

    UsageError when nothing fits, or not even a request alone could keep the level anywhere.
    """
    plan = Plan()
    groups = list(choices.groups())
    try:
        for done, group in enumerate(groups):
            report("screened", done, len(groups))
            found, reasons = screen(
                choices, group, demand.lengths, demand.rate, target, values, wish.load
            )
            plan.all += found
            plan.reasons += reasons
        report("screened", len(groups), len(groups))
    except KeyboardInterrupt:
        plan.interrupted = f"{done} of {len(groups)} settings were looked at"
    if not plan.all and not plan.interrupted:
        _require_any(plan.reasons, target, demand)
    plan.screened, reasons = rank(wish.order, plan.all)
    plan.reasons += reasons
    _simulate(plan, demand, target, wish, fleet, report)
    return plan


def _simulate(
    plan: Plan,
    demand: Demand,
    target: Target,
    wish: Wish,
    fleet: Callable[[int], Fleet],
    report: Report,
) -> None:
    waiting = list(plan.screened)
    try:
        while waiting and len(plan.ranked) < wish.top and not plan.interrupted:
            report("simulated", len(plan.ranked), min(wish.top, len(plan.screened)))
            _, candidate = waiting.pop(0)
            found = confirm(candidate, demand, target, fleet, wish.most)
            if isinstance(found, str):
                plan.reasons.append(Reason(MISSED, candidate.setting, candidate.chips, found))
                continue
            amount = cost(wish.order, candidate.setting, found.replicas)
            if amount is not None:
                plan.ranked.append((amount, found))
        if plan.ranked:
            spread(min(plan.ranked, key=_place)[1], demand, fleet)
        report("simulated", len(plan.ranked), len(plan.ranked))
    except KeyboardInterrupt:
        plan.interrupted = f"{len(plan.ranked)} of {wish.top} fleets were simulated"
    plan.ranked.sort(key=_place)
    if plan.ranked:
        amount, winner = plan.ranked[0]
        plan.reasons += outranked(wish.order, waiting, winner.candidate.setting, amount)


def _place(entry: tuple[float, Confirmed]) -> tuple[float, float]:
    """By cost; at one cost the faster first."""
    return entry[0], entry[1].outcome.percentile("tpot", 50)


def _require_any(reasons: Sequence[Reason], target: Target, demand: Demand) -> None:
    """UsageError with the nearest, where nothing is on the list."""
    slow = [each for each in reasons if each.kind == IMPOSSIBLE]
    others = [each for each in reasons if each.kind != IMPOSSIBLE]
    if slow and not any(each.text.startswith(("TTFT", "TPOT")) for each in others):
        bounds = []
        for name, share, limit in target.needs:
            least, where = min(
                (least_ms(name, each.setting, demand.lengths, share), each.setting.slice.name)
                for each in slow
            )
            if least > limit:
                bounds.append(f"{name} is {least:.3g} ms at the least ({where}), limit {limit:g}")
        raise UsageError(
            "the service level is impossible on all of these, even for one request alone with "
            f"every peak reached: {'; '.join(bounds) or 'its limits are kept by none together'}; "
            "allow more, or look at more chips (--slice), fewer bits (--quantize int8)"
        )
    if not slow and not any(each.text.startswith(("TTFT", "TPOT")) for each in others):
        nearest = min(reasons, key=lambda each: each.distance)
        raise UsageError(
            f"{nearest.setting.model.name} fits none of these; nearest is {nearest}: take more "
            "chips (--slice), fewer bits (--quantize int8) or --sharding model"
        )
