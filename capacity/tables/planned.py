"""A plan as Markdown and as JSON."""

from typing import Any

from capacity.hardware.slice import Slice
from capacity.planning.confirm import Confirmed
from capacity.planning.order import cost, say
from capacity.planning.plan import Plan
from capacity.planning.reason import describe, grouped
from capacity.serving.cost import MILLION
from capacity.tables.markdown import number, table

HEADERS = (
    "", "Slice", "Weights", "Cache", "Sharding", "Batch", "Cache length", "Replicas", "Chips",
    "Utilisation", "Slots in use", "TTFT p50", "TTFT p99", "TPOT p50", "TPOT p99", "$/h", "$/Mtok",
    "J/Mtok", "Next with fewer",
)  # fmt: skip


def rows(plan: Plan, tokens_per_s: float) -> list[list[str]]:
    """Of the ranked fleets; `tokens_per_s`: that the traffic asks for."""
    return [
        _row(place, found, tokens_per_s) for place, (_, found) in enumerate(plan.ranked, start=1)
    ]


def render(plan: Plan, order: str, tokens_per_s: float) -> list[str]:
    """The table, what was interrupted, and why the others are not in it."""
    lines = [*table(HEADERS, rows(plan, tokens_per_s)), ""]
    if plan.interrupted:
        lines += [f"INTERRUPTED: {plan.interrupted}; the list is of what was known by then.", ""]
    if not plan.ranked:
        lines += ["No fleet keeps the service level.", ""]
        lines += [
            f"On average, not simulated: {describe(each.setting)}, batch {each.setting.slots}, "
            f"{each.replicas:,} replicas, {say(order, amount)}"
            for amount, each in (plan.screened[:5] if plan.interrupted else [])
        ]
    return [*lines, "Not on the list:", "", *(f"- {each}" for each in grouped(plan.reasons))]


def as_json(plan: Plan, order: str, tokens_per_s: float) -> dict[str, Any]:
    """The same for programs."""
    return {
        "order": order,
        "interrupted": plan.interrupted or None,
        "fleets": [_entry(order, amount, each, tokens_per_s) for amount, each in plan.ranked],
        "not_on_the_list": [
            {"kind": each.kind, "setting": describe(each.setting), "text": each.text}
            for each in plan.reasons
        ],
    }


def of_traffic(where: Slice, replicas: int, tokens_per_s: float) -> tuple[float | None, ...]:
    """Dollars and joules a million output tokens of the traffic: chips cost when idle too."""
    amounts = (where.price_per_hour, where.watts)
    hourly = (1 / 3600, 1.0)
    return tuple(
        None if each is None else replicas * each * factor / tokens_per_s * MILLION
        for each, factor in zip(amounts, hourly, strict=True)
    )


def _row(place: int, found: Confirmed, tokens_per_s: float) -> list[str]:
    setting, outcome = found.candidate.setting, found.outcome
    dollars, joules = of_traffic(setting.slice, found.replicas, tokens_per_s)
    fewer = [each for each in found.tried if each < found.replicas]
    return [
        f"{place}",
        setting.slice.name,
        setting.weights,
        setting.cache,
        setting.sharding if setting.slice.count > 1 else "-",
        f"{setting.slots:,}",
        f"{setting.kept_positions:,}",
        f"{found.replicas:,}",
        f"{found.replicas * setting.slice.count:,}",
        f"{outcome.utilisation:.0%}",
        f"{outcome.occupancy:.0%}",
        *(
            number(outcome.percentile(name, percent))
            for name in ("ttft", "tpot")
            for percent in (50, 99)
        ),
        number(cost("price", setting, found.replicas), 4),
        number(dollars),
        number(joules),
        f"{max(fewer):,} miss it" if fewer else "-",
    ]


def _entry(order: str, amount: float, found: Confirmed, tokens_per_s: float) -> dict[str, Any]:
    setting = found.candidate.setting
    dollars, joules = of_traffic(setting.slice, found.replicas, tokens_per_s)
    return {
        "slice": setting.slice.name,
        "chip": setting.slice.chip.name,
        "weights": setting.weights,
        "cache": setting.cache,
        "sharding": setting.sharding,
        "batch_size": setting.slots,
        "cache_length": setting.kept_positions,
        "replicas": found.replicas,
        "chips": found.replicas * setting.slice.count,
        order: amount,
        "dollars_per_hour": cost("price", setting, found.replicas),
        "dollars_per_million_tokens": dollars,
        "joules_per_million_tokens_datasheet": joules,
        "tried_replicas": sorted(found.tried),
        **{
            name: value
            for name, value in found.outcome.figures().items()
            if name.endswith("_ms") or name in ("utilisation", "slot_occupancy")
        },
    }
