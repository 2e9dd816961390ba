"""Figures of a run, as pure functions of its records; docs/measuring.md defines each of them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from client.results.cost import ChipPrice, cost_figures
from client.results.goodput import ServiceLevel, goodput_figures
from client.results.latency import (
    PERCENTILES,
    due_at,
    e2el,
    itls,
    sent_at,
    spread,
    token_times,
    tpot,
    ttft,
    ttst,
)
from client.results.records import Outcome, Record
from client.results.stalls import stall_figures
from client.results.ttft_split import ttft_split


def failure_causes(records: Iterable[Record]) -> dict[str, int]:
    """How many requests failed for each cause, the commonest first."""
    failed = Counter(record.cause for record in records if record.outcome is Outcome.FAILED)
    return dict(sorted(failed.items(), key=lambda item: (-item[1], item[0])))


def peak_in_flight(records: Iterable[Record], until: float) -> int:
    """The most requests that were open at one time; those that never ended count up to `until`."""
    changes = []
    for record in records:
        if record.sent is not None:
            changes += [(record.sent, 1), (until if record.ended is None else record.ended, -1)]
    most = now = 0
    # At equal times an end comes before a start.
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most


def figures(
    records: Sequence[Record],
    duration: float,
    *,
    percentiles: Sequence[float] = (),
    level: ServiceLevel | None = None,
    price: ChipPrice | None = None,
) -> dict[str, Any]:
    """Every figure of a run of `duration` seconds, under vLLM's names where it has one.

    Latencies and throughput are those of completed requests only. `percentiles` are reported
    beside 50, 90 and 99. Goodput is there with a service `level`, costs are with a `price`.
    """
    wanted = sorted({*PERCENTILES, *percentiles})
    found = _figures(records, duration, wanted)
    if level is not None:
        found |= goodput_figures(records, duration, level)
    if price is not None:
        found |= cost_figures(found, price)
    return found


def _figures(
    records: Sequence[Record], duration: float, percentiles: Sequence[float]
) -> dict[str, Any]:
    done = [record for record in records if record.outcome is Outcome.COMPLETED]
    tokens_in = sum(record.prompt_tokens for record in done)
    tokens_out = sum(record.tokens for record in done)
    messages = sum(len(record.arrivals) for record in done)
    return {
        "duration": duration,
        **_outcomes(records),
        "total_input_tokens": tokens_in,
        "total_output_tokens": tokens_out,
        "incomplete_output_tokens": sum(record.tokens for record in records) - tokens_out,
        "request_throughput": _rate(len(done), duration),
        "input_throughput": _rate(tokens_in, duration),
        "output_throughput": _rate(tokens_out, duration),
        "total_token_throughput": _rate(tokens_in + tokens_out, duration),
        "max_output_tokens_per_s": _busiest_second(token_times(done)),
        "max_concurrent_requests": peak_in_flight(records, duration),
        "tokens_per_message": tokens_out / messages if messages else None,
        "sent_request_rate": _sent_rate(records),
        **_latencies(done, percentiles),
        **stall_figures(done, percentiles),
        **_send_lag(records, percentiles),
        **_server_timings(done, percentiles),
        **ttft_split(done, percentiles),
    }


def jetstream_figures(records: Sequence[Record], ours: Mapping[str, Any]) -> dict[str, Any]:
    """The same run under JetStream's names and by its definitions; `ours` is of `figures`.

    Its TPOT is end-to-end time over tokens, so the wait for the first token is in it.
    """
    done = [record for record in records if record.outcome is Outcome.COMPLETED]
    same = (
        "duration", "completed", "total_input_tokens", "total_output_tokens",
        "request_throughput", "input_throughput", "output_throughput",
    )  # fmt: skip
    spreads = {
        **spread("ttft", (ttft(record, sent_at(record)) for record in done)),
        **spread("ttst", (ttst(record, sent_at(record)) for record in done)),
        **spread("TPOT", (e2el(record, sent_at(record)) / record.tokens for record in done)),
    }
    kept = {name: spreads[name] for name in spreads if name.split("_")[0] in _JETSTREAM_STATISTICS}
    return {name: ours[name] for name in same} | kept


_JETSTREAM_STATISTICS = ("mean", "median", "p99")


def _outcomes(records: Sequence[Record]) -> dict[str, Any]:
    counts = Counter(record.outcome for record in records)
    return {
        "num_prompts": len(records),
        "completed": counts[Outcome.COMPLETED],
        "failed": counts[Outcome.FAILED],
        "unfinished": counts[Outcome.UNFINISHED],
        "not_sent": counts[Outcome.NOT_SENT],
        "failures": failure_causes(records),
    }


def _latencies(done: Sequence[Record], percentiles: Sequence[float]) -> dict[str, float | None]:
    gaps = [itls(record) for record in done]
    latencies: dict[str, Iterable[float | None]] = {
        "ttft": (ttft(record, sent_at(record)) for record in done),
        "ttst": (ttst(record, sent_at(record)) for record in done),
        "tpot": (tpot(record) for record in done),
        "itl": np.concatenate(gaps) if gaps else (),
        "e2el": (e2el(record, sent_at(record)) for record in done),
        "ttft_from_scheduled": (ttft(record, due_at(record)) for record in done),
        "e2el_from_scheduled": (e2el(record, due_at(record)) for record in done),
    }
    found: dict[str, float | None] = {}
    for name, seconds in latencies.items():
        found |= spread(name, seconds, percentiles)
    return found


def _send_lag(records: Sequence[Record], percentiles: Sequence[float]) -> dict[str, float | None]:
    sent = [record for record in records if record.sent is not None]
    lags = (sent_at(record) - due_at(record) for record in sent)
    return spread("send_lag", lags, percentiles)


def _server_timings(
    done: Sequence[Record], percentiles: Sequence[float]
) -> dict[str, float | None]:
    if all(record.server_prefill is None for record in done):
        return {}
    queue = (record.server_queue for record in done)
    prefill = (record.server_prefill for record in done)
    return {
        **spread("server_queue", queue, percentiles),
        **spread("server_prefill", prefill, percentiles),
    }


def _busiest_second(times: np.ndarray) -> int | None:
    return int(np.bincount(times.astype(np.int64)).max()) if times.size else None


def _sent_rate(records: Sequence[Record]) -> float | None:
    times = [record.sent for record in records if record.sent is not None]
    return _rate(len(times) - 1, max(times) - min(times)) if len(times) > 1 else None


def _rate(count: int, duration: float) -> float | None:
    return count / duration if duration > 0 else None
