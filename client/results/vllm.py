"""A run as the JSON document `vllm bench serve` writes."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from client.results.latency import percentile_name
from client.results.statistics import LATENCIES

_HEADER = (
    "date", "endpoint_type", "backend", "label", "model_id", "tokenizer_id", "num_prompts",
    "request_rate", "burstiness", "max_concurrency",
)  # fmt: skip
_TOTALS = (
    "duration", "completed", "failed", "total_input_tokens", "total_output_tokens",
    "request_throughput",
)  # fmt: skip
_AFTER_GOODPUT = (
    "output_throughput", "total_token_throughput", "max_output_tokens_per_s",
    "max_concurrent_requests",
)  # fmt: skip
_STATISTIC = re.compile(r"(mean|median|std|p[0-9.]+)_(\w+)_ms")


def describe_as_vllm(
    record_json: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    detailed: bool,
    *,
    latencies: Sequence[str] = LATENCIES,
    percentiles: Sequence[float] | None = None,
) -> dict[str, Any]:
    """vLLM's result document, with its keys and units, from a record and the rows of its requests.

    `latencies` and `percentiles` choose the statistics; None is every percentile of
    the record. `detailed` adds a list for each field of a request, in seconds. What we know more
    of stays out. By vLLM's definition `request_goodput` counts from when a request was sent. A
    statistic without values is null where vLLM writes 0.
    """
    # First, so that a metadata entry never hides a figure.
    document: dict[str, Any] = dict(record_json.get("metadata") or {})
    document |= {name: record_json.get(name) for name in _HEADER}
    document |= {name: record_json[name] for name in _TOTALS}
    document["request_goodput"] = record_json.get("request_goodput_from_sent")
    document |= {name: record_json[name] for name in _AFTER_GOODPUT}
    document |= _statistics(record_json, latencies, percentiles)
    return document | (_details(rows) if detailed else {})


def vllm_file_name(
    *,
    label: str,
    request_rate: float,
    max_concurrency: int | None,
    model: str,
    date: datetime,
    ramp_up: tuple[str, float, float] | None = None,
) -> str:
    """Such as `vllm-8.0qps-concurrency32-Llama-2-7b-20260131-120000.json`, as vLLM names it.

    Of a model with an owner the name alone is used. `ramp_up`: strategy and the rates it goes
    from and to, which then stand for the rate.
    """
    if ramp_up is None:
        rate = f"{float(request_rate)}qps"
    else:
        strategy, start, end = ramp_up
        rate = f"ramp-up-{strategy}-{start:g}qps-{end:g}qps"
    concurrency = "" if max_concurrency is None else f"-concurrency{max_concurrency}"
    stamp = f"{date:%Y%m%d-%H%M%S}"
    return f"{_plain(label)}-{rate}{concurrency}-{_plain(model.rpartition('/')[2])}-{stamp}.json"


def _statistics(
    record_json: Mapping[str, Any],
    latencies: Sequence[str],
    percentiles: Sequence[float] | None,
) -> dict[str, Any]:
    asked = None if percentiles is None else {percentile_name(each) for each in percentiles}
    found: dict[str, Any] = {}
    for latency in latencies:
        for key, value in record_json.items():
            match = _STATISTIC.fullmatch(key)
            if match is None or match[2] != latency:
                continue
            if asked is None or match[1] in asked or not match[1].startswith("p"):
                found[key] = value
    return found


def _details(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    completed = [row["outcome"] == "completed" for row in rows]
    # As vLLM does: a request that failed has no output and an error.
    paired = list(zip(rows, completed, strict=True))
    return {
        "input_lens": [row["input_len"] for row in rows],
        "output_lens": [row["output_len"] if done else 0 for row, done in paired],
        "ttfts": [row["ttft"] if done else 0.0 for row, done in paired],
        "itls": [row["itls"] if done else [] for row, done in paired],
        "start_times": [row["sent"] for row in rows],
        "generated_texts": [row.get("generated_text", "") for row in rows],
        "errors": ["" if done else _error(row) for row, done in paired],
    }


def _error(row: Mapping[str, Any]) -> str:
    return ": ".join(part for part in (row["cause"] or row["outcome"], row["detail"]) if part)


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name)
