"""Charts of a plan."""

from collections.abc import Sequence
from pathlib import Path

from capacity.pages.document import (
    Banner,
    list_of,
    page_table,
    section,
    tables_of,
    text_of,
    write_page,
)
from capacity.pages.simulated import DEFINITIONS, distribution_chart, percentiles_chart
from capacity.planning.candidate import Candidate
from capacity.planning.order import cost, say
from capacity.planning.plan import Plan
from capacity.planning.reason import describe
from capacity.simulation.target import Target
from capacity.tables.markdown import number
from client.results.page.chart import BLUE, Chart, axis, line_style, numbers, plain
from client.results.page.headline import Card
from client.results.page.page import Section
from client.results.page.tables import Cell, Table

_UNITS = {"price": "$ an hour", "energy": "watts (datasheet)", "chips": "chips"}
_LINES = 5


def write_planned(
    path: Path,
    plan: Plan,
    order: str,
    target: Target,
    lines: Sequence[str],
    assumptions: Section,
) -> None:
    """The page of a plan; `lines` are what was printed."""
    charts = [cost_chart(plan, order), batch_chart(plan, order)]
    for _, found in plan.ranked[:1]:
        what = f": {describe(found.candidate.setting)}"
        charts += [percentiles_chart(found.tried, target.needs, "tried", what)]
        last = found.outcome
        charts += [distribution_chart(last, "distribution", f"{found.replicas} replicas")]
    fleets = [each for whole in tables_of(lines, "Fleets") for each in _narrow(whole)]
    reasons = [line.partition("): ") for line in list_of(lines)]
    others = page_table(
        "Not on the list",
        ("Why", "How many", "The nearest, with the numbers"),
        [
            (kind.rpartition(" (")[0], kind.rpartition(" (")[2], rest)
            for kind, found, rest in reasons
            if found
        ],
    )
    write_page(
        path,
        lines[0].partition(",")[0] + ": plan",
        [
            section("fleets", "Fleets", charts, fleets),
            section("others", "Not on the list", [], [others]),
            assumptions,
        ],
        banners=[_banner(plan, lines)],
        cards=_cards(plan, order),
        definitions=DEFINITIONS,
    )


def _narrow(whole: Table) -> list[Table]:
    """What is bought, and what comes of it: side by side they would be wider than a page."""
    names = whole.head
    place, where = names.index(""), names.index("Slice")
    latency = [at for at, name in enumerate(names) if name[:4] in ("TTFT", "TPOT", "Util", "Slot")]
    bought = [at for at in range(len(names)) if at not in (place, where, *latency)]
    return [
        Table(
            title,
            ("Slice", *(names[at] for at in chosen)),
            tuple(
                (Cell(f"{row[place].shown}. {row[where].shown}"), *(row[at] for at in chosen))
                for row in whole.rows
            ),
        )
        for title, chosen in (("Fleets", bought), ("Latencies, ms", latency))
    ]


def _banner(plan: Plan, lines: Sequence[str]) -> Banner:
    remarks = text_of(lines)
    if plan.interrupted:
        return Banner("open", "Interrupted", plan.interrupted, remarks=remarks)
    if not plan.ranked:
        return Banner("invalid", "None", "keeps the service level", remarks=remarks)
    best = plan.ranked[0][1]
    label = (
        f"{best.replicas} x {describe(best.candidate.setting)}, batch "
        f"{best.candidate.setting.slots}, keep the service level in simulation"
    )
    return Banner("valid", "Planned", label, remarks=remarks)


def _cards(plan: Plan, order: str) -> list[Card]:
    if not plan.ranked:
        return []
    amount, best = plan.ranked[0]
    setting = best.candidate.setting
    return [
        Card("Chips", f"{best.replicas * setting.slice.count:,}", f"{setting.slice.chip.title}"),
        Card("Replicas", f"{best.replicas:,}", setting.slice.name),
        Card(order.capitalize(), say(order, amount), "of the first fleet"),
        Card("TTFT p99", f"{number(best.outcome.percentile('ttft', 99))} ms", "simulated"),
        Card("TPOT p99", f"{number(best.outcome.percentile('tpot', 99))} ms", "simulated"),
    ]


def cost_chart(plan: Plan, order: str) -> Chart | None:
    """Cost of the ranked fleets, the best at the top."""
    if not plan.ranked:
        return None
    names = [
        f"{place}. {describe(found.candidate.setting)}, batch {found.candidate.setting.slots} "
        f"x {found.replicas}"
        for place, (_, found) in enumerate(plan.ranked, start=1)
    ]
    return Chart(
        name="cost",
        title="Cost of the fleets",
        caption="Each with the fewest replicas that keep the service level in simulation.",
        traces=[
            {
                "type": "bar",
                "orientation": "h",
                "x": numbers(amount for amount, _ in plan.ranked),
                "y": [plain(name) for name in names],
                "marker": {"color": BLUE},
                "hovertemplate": f"%{{x:,.5~g}} {_UNITS[order]}<extra></extra>",
            }
        ],
        layout={
            "xaxis": axis(_UNITS[order], rangemode="tozero"),
            "yaxis": axis("", autorange="reversed"),
        },
        height=120 + 34 * len(names),
        wide=False,
    )


def batch_chart(plan: Plan, order: str) -> Chart | None:
    """Cost against batch, by the closed form, for the settings of the ranked fleets."""
    chosen = list(dict.fromkeys(found.candidate.key for _, found in plan.ranked))
    chosen += [each.key for _, each in plan.screened if each.key not in chosen]
    traces = []
    for place, key in enumerate(chosen[:_LINES]):
        points = sorted(
            (each for each in plan.all if each.key == key), key=lambda each: each.setting.slots
        )
        traces.append(_line(points, order, place))
    if not any(len(trace["x"]) > 1 for trace in traces):
        return None
    return Chart(
        name="batch",
        title="Cost against batch",
        caption="What fleets of each batch cost that keep the level on average, before the "
        "simulation: small batches need more replicas, large ones take longer steps.",
        traces=traces,
        layout={
            "xaxis": axis("slots of a replica (log scale)", type="log", dtick="D2"),
            "yaxis": axis(f"{_UNITS[order]} (log scale)", type="log", exponentformat="none"),
            "showlegend": True,
        },
        height=380,
        wide=False,
    )


def _line(points: Sequence[Candidate], order: str, place: int) -> dict:
    values = [cost(order, each.setting, each.replicas) for each in points]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": plain(describe(points[0].setting)) if points else "",
        "x": [each.setting.slots for each in points],
        "y": numbers(float("nan") if value is None else value for value in values),
        "text": [f"{each.replicas:,} replicas" for each in points],
        "line": line_style(place),
        "hovertemplate": f"%{{x}} slots: %{{y:,.5~g}} {_UNITS[order]}, %{{text}}",
    }
