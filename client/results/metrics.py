"""Figures of a run, as pure functions of its records; docs/measuring.md defines each of them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from client.results.records import Outcome, Record

PERCENTILES = (50, 90, 99)


def ttft(record: Record, since: float) -> float:
    """Seconds from `since` to the message that brought the first token."""
    return record.arrivals[0][0] - since


def e2el(record: Record, since: float) -> float:
    """Seconds from `since` to the message that brought the last token."""
    return record.arrivals[-1][0] - since


def tpot(record: Record) -> float | None:
    """Seconds per token after the first one; None for fewer than two tokens."""
    count = record.tokens
    if count < 2:
        return None
    return (record.arrivals[-1][0] - record.arrivals[0][0]) / (count - 1)


def ttst(record: Record, since: float) -> float | None:
    """Seconds from `since` to the second token; None for fewer than two tokens."""
    times = token_times([record])
    return float(times[1] - since) if len(times) > 1 else None


def itls(record: Record) -> np.ndarray:
    """[tokens - 1] seconds between each token and the one before it.

    Tokens of one message arrived together: 0 between them, and the whole wait before the first.
    """
    return np.diff(token_times([record]))


def token_times(records: Iterable[Record]) -> np.ndarray:
    """When each token arrived, seconds from the start of the run, in order of the records."""
    arrivals = [arrival for record in records for arrival in record.arrivals]
    times = np.array([time for time, _ in arrivals], dtype=np.float64)
    return np.repeat(times, np.array([count for _, count in arrivals], dtype=np.int64))


def spread(name: str, seconds: Iterable[float | None]) -> dict[str, float | None]:
    """mean, median, std and percentiles of a latency in ms, as `mean_{name}_ms` and so on.

    None among the values are left out; without values every figure is None. Percentiles are
    linear between the closest ranks; the standard deviation is that of the values themselves.
    """
    values = np.array([value for value in seconds if value is not None], dtype=np.float64) * 1e3
    figures: dict[str, float | None] = {
        f"mean_{name}_ms": float(values.mean()) if values.size else None,
        f"median_{name}_ms": float(np.median(values)) if values.size else None,
        f"std_{name}_ms": float(values.std()) if values.size else None,
    }
    for percent in PERCENTILES:
        value = float(np.percentile(values, percent)) if values.size else None
        figures[f"p{percent}_{name}_ms"] = value
    return figures


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


def figures(records: Sequence[Record], duration: float) -> dict[str, Any]:
    """Every figure of a run of `duration` seconds, under vLLM's names where it has one.

    Latencies and throughput are those of completed requests only.
    """
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
        **_latencies(done),
        **_send_lag(records),
        **_server_timings(done),
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
        **spread("ttft", (ttft(record, _sent(record)) for record in done)),
        **spread("ttst", (ttst(record, _sent(record)) for record in done)),
        **spread("TPOT", (e2el(record, _sent(record)) / record.tokens for record in done)),
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


def _latencies(done: Sequence[Record]) -> dict[str, float | None]:
    gaps = [itls(record) for record in done]
    return {
        **spread("ttft", (ttft(record, _sent(record)) for record in done)),
        **spread("ttst", (ttst(record, _sent(record)) for record in done)),
        **spread("tpot", (tpot(record) for record in done)),
        **spread("itl", np.concatenate(gaps) if gaps else ()),
        **spread("e2el", (e2el(record, _sent(record)) for record in done)),
        **spread("ttft_from_scheduled", (ttft(record, _scheduled(record)) for record in done)),
        **spread("e2el_from_scheduled", (e2el(record, _scheduled(record)) for record in done)),
    }


def _send_lag(records: Sequence[Record]) -> dict[str, float | None]:
    sent = [record for record in records if record.sent is not None]
    return spread("send_lag", (_sent(record) - _scheduled(record) for record in sent))


def _server_timings(done: Sequence[Record]) -> dict[str, float | None]:
    if all(record.server_prefill is None for record in done):
        return {}
    return {
        **spread("server_queue", (record.server_queue for record in done)),
        **spread("server_prefill", (record.server_prefill for record in done)),
    }


def _busiest_second(times: np.ndarray) -> int | None:
    return int(np.bincount(times.astype(np.int64)).max()) if times.size else None


def _sent_rate(records: Sequence[Record]) -> float | None:
    times = [record.sent for record in records if record.sent is not None]
    return _rate(len(times) - 1, max(times) - min(times)) if len(times) > 1 else None


def _rate(count: int, duration: float) -> float | None:
    return count / duration if duration > 0 else None


def _sent(record: Record) -> float:
    assert record.sent is not None, "a request that completed was sent"
    return record.sent


def _scheduled(record: Record) -> float:
    assert record.scheduled is not None, "a request that was sent was scheduled"
    return record.scheduled
