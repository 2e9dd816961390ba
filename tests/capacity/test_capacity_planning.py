"""Planning: the curve against the closed form, what is ranked, and what is said of the rest."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from capacity_settings import setting

from capacity.hardware.chips import known_chips
from capacity.hardware.slice import Slice, find_slice, slices_of
from capacity.planning.candidate import DOES_NOT_FIT, TOO_SLOW, Choices
from capacity.planning.confirm import Demand, overload
from capacity.planning.curve import steady_curve
from capacity.planning.order import CHIPS, DOMINATED, ENERGY, ORDERS, PRICE, cost
from capacity.planning.plan import Plan, Wish, make_plan
from capacity.planning.reason import grouped
from capacity.serving.lengths import Lengths
from capacity.serving.steady import Server
from capacity.simulation.fleet import Fleet, simulate
from capacity.simulation.step_model import StepModel
from capacity.simulation.target import parse_target
from capacity.simulation.traffic import at_rate
from capacity.timing.efficiency import Efficiency
from client.errors import UsageError
from client.load.arrivals import Arrivals

VALUES = {"weights": 0.75, "cache": 0.5, "compute": 0.5, "link": 0.4, "step_s": 5e-4}
REAL = Efficiency(**VALUES)
LENGTHS = Lengths(np.array([100, 200, 400]), np.array([50, 200, 100]), "three")
TARGET = parse_target(["ttft:500", "tpot:40"], 0.95, ["p50_tpot:35"])


def plan(
    where: list[Slice] | None = None,
    *,
    rate: float = 20.0,
    order: str = PRICE,
    target=TARGET,
    report=lambda *_: None,
    **more,
) -> Plan:
    """Of Llama-2-7B."""
    chips = known_chips()
    slices = where or [find_slice(name, chips) for name in ("v5e-4", "v6e-1", "h100")]
    choices = Choices(
        setting(), slices, ("none", "int8"), ("model", "batch"), None, (1024,), (16, 64)
    )
    demand = Demand(rate, LENGTHS, Arrivals("poisson", rate), None, 0)
    wish = Wish(order, 2, 10_000, 0.95)
    return make_plan(choices, demand, target, VALUES, wish, Fleet, report, **more)


@cache
def ordered(order: str) -> Plan:
    """Of one wish, made once."""
    return plan(order=order)


def test_the_curve_is_the_closed_form_turned_around() -> None:
    base = setting(where="h100", slots=32, chunk=256)
    lengths = Lengths(np.array([256]), np.array([100]), "one dispatch each")
    curve = steady_curve(StepModel(base, REAL, REAL), lengths)
    server = Server(base, lengths, REAL)
    assert curve.most == pytest.approx(server.most_requests)
    for at in range(20, len(curve.rate) - 1, 5):
        steady = server.at_rate(float(curve.rate[at]))
        if steady.active >= 1:
            assert steady.active == pytest.approx(curve.active[at], rel=1e-6)
            assert steady.ttft == pytest.approx(curve.ttft[at], rel=1e-6)
            assert steady.tpot == pytest.approx(curve.tpot[at], rel=1e-6)
    assert (np.diff(curve.rate) > 0).all()


@pytest.mark.parametrize("order", ORDERS)
def test_ranked_fleets_keep_the_level_and_stand_in_order(order: str) -> None:
    found = ordered(order)
    assert found.ranked
    amounts = [amount for amount, _ in found.ranked]
    assert amounts == sorted(amounts)
    for amount, each in found.ranked:
        assert amount == cost(order, each.candidate.setting, each.replicas)
        assert not TARGET.missed(each.outcome)
        for fewer in (count for count in each.tried if count < each.replicas):
            outcome = each.tried[fewer]
            assert TARGET.missed(outcome) or overload(outcome)


def test_fewer_chips_and_less_money_are_different_wishes() -> None:
    price, chips = ordered(PRICE).ranked[0][1], ordered(CHIPS).ranked[0][1]
    by_chips = chips.replicas * chips.candidate.setting.slice.count
    assert by_chips <= price.replicas * price.candidate.setting.slice.count
    energy = ordered(ENERGY)
    assert any(each.kind == "no datasheet power" for each in energy.reasons)
    assert all(each.candidate.setting.slice.watts for _, each in energy.ranked)


def test_the_fleet_of_a_plan_keeps_the_level_when_it_is_simulated_whole() -> None:
    best = ordered(PRICE).ranked[0][1]
    traffic = at_rate(LENGTHS, Arrivals("poisson", 20.0), 5000, 9)
    whole = simulate(Fleet(best.replicas), best.candidate.model, traffic).after(0.15)
    assert whole.good(TARGET.level) > 0.93


def test_reasons_come_with_numbers() -> None:
    chips = known_chips()
    tight = parse_target(["tpot:9"], 0.9, None)
    slices = [find_slice(name, chips) for name in ("v5e-1", "v5e-4", "rtx4090", "v6e-4")]
    found = plan(slices, target=tight)
    kinds = {each.kind for each in found.reasons}
    assert {DOES_NOT_FIT, TOO_SLOW, "no list price"} <= kinds | {"no list price"}
    lines = "\n".join(grouped(found.reasons))
    assert "v5e-1 none: " in lines and "GiB of 15.0" in lines
    assert "> 9 ms" in lines or "limit 9" in lines
    dominated = [each for each in found.reasons if each.kind.startswith(DOMINATED)]
    assert all(each.distance >= 1 for each in dominated)


def test_what_fits_nowhere_and_what_nothing_can_keep_are_refused_with_the_bound() -> None:
    v5e = known_chips()["v5e"]
    with pytest.raises(UsageError, match=r"fits none of these; nearest is v5e-1 int8: .* GiB of"):
        huge = [each for each in slices_of(v5e) if each.count == 1]
        big = Choices(setting("llama2-70b"), huge, ("none", "int8"), ("model",), None, (1024,))
        demand = Demand(1.0, LENGTHS, Arrivals("poisson", 1.0), None, 0)
        make_plan(big, demand, TARGET, VALUES, Wish(PRICE, 3, 100, 0.9), Fleet)
    with pytest.raises(UsageError, match=r"impossible .* tpot is .* ms at the least"):
        plan(target=parse_target(["tpot:0.01"], 0.9, None))


def test_an_interrupt_keeps_what_is_ranked() -> None:
    def stop_screening(what: str, done: int, of: int) -> None:
        if what == "screened" and done == 5:
            raise KeyboardInterrupt

    early = plan(report=stop_screening)
    assert "5 of" in early.interrupted and not early.ranked and early.all

    def stop_simulating(what: str, done: int, of: int) -> None:
        if what == "simulated" and done == 1:
            raise KeyboardInterrupt

    late = plan(report=stop_simulating)
    assert len(late.ranked) == 1
    assert late.interrupted == "1 of 2 fleets were simulated"


def test_more_traffic_takes_more() -> None:
    small, large = ordered(PRICE).ranked[0], plan(rate=100.0).ranked[0]
    assert 2 * small[0] < large[0] < 15 * small[0]


def test_overload_is_seen_where_only_tokens_are_limited() -> None:
    """Without a limit of TTFT a fleet that falls behind would look good."""
    model = StepModel(replace(setting(), slots=4), REAL, REAL)
    asked = at_rate(LENGTHS, Arrivals("poisson", 30.0), 2000, 0)
    assert overload(simulate(Fleet(), model, asked))
    assert not overload(simulate(Fleet(40), model, asked))
