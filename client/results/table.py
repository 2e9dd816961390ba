"""The table a run ends with."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from client.load.saturation import Search
from client.results.run import Run

_WIDTH = 78
_LATENCIES = {
    "TTFT": "ttft",
    "TPOT": "tpot",
    "ITL": "itl",
    "End to end": "e2el",
}
_FROM_SCHEDULED = {
    "TTFT from scheduled": "ttft_from_scheduled",
    "End to end from scheduled": "e2el_from_scheduled",
}
_STATISTICS = ("mean", "median", "p90", "p99")


def render_table(run: Run) -> str:
    """The run as text, with latency from the scheduled time where requests had one."""
    figures = run.figures
    latencies = _LATENCIES | (_FROM_SCHEDULED if run.timed else {})
    lines = [
        f"== {run.model} at {run.options.target.address} ".ljust(_WIDTH, "="),
        *_verdict(run),
        *textwrap.wrap(run.workload.description, _WIDTH),
        _rule("Requests"),
        *_requests(figures),
        _rule("Throughput"),
        *_throughput(figures),
        _rule("Latency of completed requests, ms"),
        _cells("", _STATISTICS),
        *(_latency(label, name, figures) for label, name in latencies.items()),
        *_stalls(figures),
        *_split(figures),
        *_goodput(figures),
        *_cost(figures),
        _rule("Client"),
        *_sent_rate(run),
        *_client(run),
        *([_rule("Notes")] if run.notes else []),
        *(line for note in run.notes for line in _bullet(note)),
        "=" * _WIDTH,
    ]
    return "\n".join(lines)


def render_curve(search: Search, runs: Sequence[Run]) -> str:
    """What a search found, rate by rate."""
    columns = ("requests/s", "good", "TTFT p99", "TPOT p99", "tokens/s", "verdict")
    lines = [_rule("Service level by rate"), "".join(f"{name:>13}" for name in columns)]
    for probe, run in sorted(zip(search.probes, runs, strict=True), key=lambda pair: pair[0].rate):
        figures = run.figures
        cells = (
            f"{probe.rate:.3g}", f"{figures['goodput_share'] or 0:.1%}",
            _number(figures["p99_ttft_ms"], 1), _number(figures["p99_tpot_ms"], 1),
            _number(figures["output_throughput"], 1),
            "INVALID" if probe.ours else "met" if probe.met else "missed",
        )  # fmt: skip
        lines.append("".join(f"{cell:>13}" for cell in cells))
    highest = "none" if search.highest is None else f"{search.highest:.3g} requests/s"
    knee = "not seen" if search.knee is None else f"{search.knee:.3g} requests/s"
    lines += [_pair("Highest rate that keeps the level", highest), _pair("Knee", knee)]
    if search.missed is not None and not search.settled:
        lines.append(_pair("Not found more closely; missed at", f"{search.missed:.3g} requests/s"))
    if any(probe.ours for probe in search.probes):
        lines.append("at the INVALID rates the client was the limit: give it more --workers")
    return "\n".join([*lines, "=" * _WIDTH])


def _verdict(run: Run) -> list[str]:
    lines = [run.verdict]
    for reason in run.reasons:
        lines += _bullet(reason)
    return lines


def _bullet(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="- ", subsequent_indent="  ")


def _stalls(figures: Mapping[str, Any]) -> list[str]:
    if figures["max_itl_ms"] is None:
        return []
    share = f"{figures['stall_share']:.2%}, {_number(figures['max_itl_ms'], 1)} ms"
    return [_pair("Gaps over 3x the median, largest gap", share)]


def _split(figures: Mapping[str, Any]) -> list[str]:
    if "mean_ttft_server_queue_ms" not in figures:
        return []
    parts = {
        "client queue": "ttft_client_queue",
        "server queue": "ttft_server_queue",
        "prefill": "ttft_server_prefill",
        "rest": "ttft_rest",
    }
    return [
        _rule("Where the time to the first token went, ms"),
        _cells("", _STATISTICS),
        *(_latency(label, name, figures) for label, name in parts.items()),
    ]


def _goodput(figures: Mapping[str, Any]) -> list[str]:
    if "goodput" not in figures:
        return []
    level = " ".join(f"{name}:{limit:g}" for name, limit in figures["goodput"].items())
    share = figures["goodput_share"]
    return [
        _rule(f"Goodput, {level} ms, from the scheduled time"),
        _pair("Good requests/s", _number(figures["request_goodput"], 2)),
        _pair("Good of all that were due", "-" if share is None else f"{share:.1%}"),
        *(
            _pair(f"  kept {name}", f"{figures[f'goodput_share_{name}'] or 0:.1%}")
            for name in figures["goodput"]
        ),
    ]


def _cost(figures: Mapping[str, Any]) -> list[str]:
    if "cost" not in figures:
        return []
    labels = {
        "Per million output tokens": "cost_per_million_output_tokens",
        "Per million tokens in and out": "cost_per_million_total_tokens",
        "Per million good output tokens": "cost_per_million_good_output_tokens",
        "Per 1,000 requests": "cost_per_1000_requests",
    }
    return [
        _rule(f"Cost, at {figures['chip_hour_price']:g} x {figures['chips']} an hour"),
        *(
            _pair(label, _number(figures[name], 4))
            for label, name in labels.items()
            if name in figures
        ),
    ]


def _client(run: Run) -> list[str]:
    figures, health = run.figures, run.health
    lag = f"{_number(health['loop_lag_p50_ms'], 2)} / {_number(health['loop_lag_p99_ms'], 2)}"
    lines = [
        _pair("Send lag p50 / p99, ms", _both("p50_send_lag_ms", "p99_send_lag_ms", figures)),
        _pair("Event loop lag p50 / p99, ms", lag),
        _pair("Processor seconds per second", _number(health["cpu_share"], 2)),
    ]
    if figures["coalesced_share"] is not None:
        lines.append(_pair("Tokens that came together", f"{figures['coalesced_share']:.1%}"))
    if health["workers"] > 1:
        balance = f"{health['workers']}, {_number(health['balance'], 2)}"
        lines.append(_pair("Workers, fewest / most tokens", balance))
    return [*lines, _pair("Error floor, TTFT p99 / ITL p99, ms", _floor(run))]


def _floor(run: Run) -> str:
    floors = (run.calibration or {}).get("floors", ())
    target = run.options.target
    ours = (target.kind, target.transport)
    found = [floor for floor in floors if (floor["kind"], floor["transport"]) == ours]
    if not found:
        return "not calibrated"
    worst = max(found, key=lambda floor: floor["streams"])
    return (
        f"{worst['ttft_error_p99_ms']:+.2f} / {worst['itl_error_p99_ms']:+.2f} "
        f"at {worst['offered_tokens_per_s']:,.0f} tok/s"
    )


def _sent_rate(run: Run) -> list[str]:
    if not run.rated:
        return []
    reached = _number(run.figures["sent_request_rate"], 2)
    asked = f"{run.options.load.arrivals.mean_rate:g}"
    return [_pair("Requests sent/s, reached / asked", f"{reached} / {asked}")]


def _requests(figures: Mapping[str, Any]) -> list[str]:
    lines = [
        _pair("Asked", figures["num_prompts"]),
        _pair("Completed", figures["completed"]),
        _pair("Failed", figures["failed"]),
        *(_pair(f"  {cause}", count) for cause, count in figures["failures"].items()),
    ]
    if figures["unfinished"] or figures["not_sent"]:
        lines += [
            _pair("Unfinished when interrupted", figures["unfinished"]),
            _pair("Not sent when interrupted", figures["not_sent"]),
        ]
    return [*lines, _pair("Most in flight at once", figures["max_concurrent_requests"])]


def _throughput(figures: Mapping[str, Any]) -> list[str]:
    return [
        _pair("Duration, s", _number(figures["duration"], 2)),
        _pair("Input tokens", f"{figures['total_input_tokens']:,}"),
        _pair("Output tokens", f"{figures['total_output_tokens']:,}"),
        _pair(
            "Total tokens", f"{figures['total_input_tokens'] + figures['total_output_tokens']:,}"
        ),
        _pair("Requests/s", _number(figures["request_throughput"], 2)),
        _pair("Input tokens/s", _number(figures["input_throughput"], 1)),
        _pair("Output tokens/s", _number(figures["output_throughput"], 1)),
        _pair("Total tokens/s", _number(figures["total_token_throughput"], 1)),
    ]


def _latency(label: str, name: str, figures: Mapping[str, Any]) -> str:
    values = [_number(figures[f"{statistic}_{name}_ms"], 2) for statistic in _STATISTICS]
    return _cells(label, values)


def _cells(label: str, values: Sequence[str]) -> str:
    return f"{label:<26}" + "".join(f"{value:>13}" for value in values)


def _pair(label: str, value: object) -> str:
    return f"{label:<40}{value!s:>{_WIDTH - 40}}"


def _both(first: str, second: str, figures: Mapping[str, Any]) -> str:
    return f"{_number(figures[first], 2)} / {_number(figures[second], 2)}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _rule(title: str) -> str:
    return f"-- {title} ".ljust(_WIDTH, "-")
