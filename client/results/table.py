"""The table a run ends with."""

from collections.abc import Mapping, Sequence
from typing import Any

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
_SERVER = {"Queue, by the server": "server_queue", "Prefill, by the server": "server_prefill"}
_STATISTICS = ("mean", "median", "p90", "p99")


def render_table(run: Run) -> str:
    """The run as text. Rated runs, with arrivals over time, also show latency from the scheduled
    time."""
    figures = run.figures
    latencies = _LATENCIES | (_FROM_SCHEDULED if run.rated else {})
    latencies |= {label: name for label, name in _SERVER.items() if f"mean_{name}_ms" in figures}
    lines = [
        f"== {run.model} at {run.options.target.address} ".ljust(_WIDTH, "="),
        run.selection.describe(),
        _rule("Requests"),
        *_requests(figures),
        _rule("Throughput"),
        *_throughput(figures),
        _rule("Latency of completed requests, ms"),
        _cells("", _STATISTICS),
        *(_latency(label, name, figures) for label, name in latencies.items()),
        _rule("Client"),
        *_sent_rate(run),
        _pair("Send lag p50 / p99, ms", _both("p50_send_lag_ms", "p99_send_lag_ms", figures)),
        _pair("Processor seconds per second", _number(figures["client_cpu_share"], 2)),
        *([_rule("Notes")] if run.notes else []),
        *(f"- {note}" for note in run.notes),
        "=" * _WIDTH,
    ]
    return "\n".join(lines)


def _sent_rate(run: Run) -> list[str]:
    if not run.rated:
        return []
    reached = _number(run.figures["sent_request_rate"], 2)
    return [_pair("Requests sent/s, reached / asked", f"{reached} / {run.options.request_rate:g}")]


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
