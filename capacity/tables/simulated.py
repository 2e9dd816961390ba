"""What a simulation came to, as Markdown."""

from collections.abc import Sequence

from capacity.hardware.slice import Slice
from capacity.serving.cost import MILLION, datasheet_power
from capacity.simulation.outcome import PERCENTILES, Outcome
from capacity.simulation.target import Target
from capacity.tables.markdown import number, table

LABELS = {"ttft": "TTFT", "tpot": "TPOT", "queue": "Queue wait", "e2el": "End to end"}


def render_latencies(outcome: Outcome) -> list[str]:
    """Percentiles of one fleet, in ms."""
    rows = []
    figures = outcome.figures()
    for name, label in LABELS.items():
        cells = [number(figures[f"p{percent}_{name}_ms"]) for percent in PERCENTILES]
        rows.append([f"{label} (ms)", number(figures[f"mean_{name}_ms"]), *cells])
    return table(["", "mean", *(f"p{percent}" for percent in PERCENTILES)], rows)


def fleet_headers(target: Target) -> list[str]:
    """Of `fleet_row`."""
    headers = ["Replicas", "Chips", "TTFT p50", "TTFT p99", "TPOT p50", "TPOT p99", "Queue p99"]
    headers += ["Tokens/s", "Utilisation", "Slots in use", "Good"]
    return [*headers, "$/Mtok", "J/Mtok", *(["Level"] if target.asks else [])]


def fleet_row(replicas: int, where: Slice, outcome: Outcome, target: Target) -> list[str]:
    """One fleet; latencies in ms."""
    chips = replicas * where.count
    latencies = [("ttft", 50), ("ttft", 99), ("tpot", 50), ("tpot", 99), ("queue", 99)]
    dollars, joules = costs(replicas, where, outcome.tokens_per_s)
    missed = ["missed" if target.missed(outcome) else "kept"] if target.asks else []
    return [
        f"{replicas:,}",
        f"{chips:,}",
        *(number(outcome.percentile(name, percent)) for name, percent in latencies),
        number(outcome.tokens_per_s, 4),
        f"{outcome.utilisation:.0%}",
        f"{outcome.occupancy:.0%}",
        f"{outcome.good(target.level):.1%}" if target.asks else "-",
        number(dollars),
        number(joules),
        *missed,
    ]


def costs(replicas: int, where: Slice, tokens_per_s: float) -> tuple[float | None, float | None]:
    """Dollars and joules (datasheet power) for a million output tokens of a fleet."""
    if not tokens_per_s:
        return None, None
    price, power = where.price_per_hour, datasheet_power(where)
    dollars = None if price is None else replicas * price / 3600 / tokens_per_s * MILLION
    joules = None if power is None else replicas * power.joules_per_token(tokens_per_s) * MILLION
    return dollars, joules


def remarks(outcome: Outcome, target: Target) -> list[str]:
    """What a reader of the figures has to know."""
    found = []
    if outcome.interrupted:
        found.append(
            f"INTERRUPTED: figures are of the {outcome.completed:,} requests that had ended; "
            f"{outcome.unfinished:,} had not"
        )
    if outcome.refused:
        found.append(f"{outcome.refused:,} requests were refused for want of room in a queue")
    if outcome.most_queued > 100:
        found.append(f"up to {outcome.most_queued:,} requests waited at one replica")
    found += [f"service level missed: {each}" for each in target.missed(outcome)]
    return found


def as_lines(found: Sequence[str]) -> list[str]:
    """A list, after an empty line."""
    return ["", *(f"- {each}" for each in found)] if found else []
