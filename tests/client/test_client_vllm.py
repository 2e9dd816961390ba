"""vLLM's result document, and the choice of statistics."""

import json
from datetime import datetime

import numpy as np
import pytest
from client_runs import record_json, requests

from client.errors import UsageError
from client.results.goodput import ServiceLevel
from client.results.rows import row
from client.results.statistics import parse_latencies, parse_percentiles
from client.results.vllm import describe_as_vllm, vllm_file_name

HEADER = {
    "date", "endpoint_type", "backend", "label", "model_id", "tokenizer_id", "num_prompts",
    "request_rate", "burstiness", "max_concurrency",
}  # fmt: skip
TOTALS = {
    "duration", "completed", "failed", "total_input_tokens", "total_output_tokens",
    "request_throughput", "request_goodput", "output_throughput", "total_token_throughput",
    "max_output_tokens_per_s", "max_concurrent_requests",
}  # fmt: skip
DETAILS = {
    "input_lens", "output_lens", "ttfts", "itls", "start_times", "generated_texts", "errors",
}  # fmt: skip


def statistics(latencies, names):
    return {f"{name}_{latency}_ms" for name in names for latency in latencies}


def test_it_has_vllms_keys_and_no_others():
    records = requests(10)
    found = describe_as_vllm(record_json(records, label="mine"), [], detailed=False)
    every = statistics(
        ("ttft", "tpot", "itl", "e2el"), ("mean", "median", "std", "p50", "p90", "p99")
    )
    assert set(found) == HEADER | TOTALS | every | {"chips"}
    assert found["label"] == "mine"
    assert found["request_goodput"] is None
    # Metadata stands beside the figures and hides none.
    assert found["chips"] == "4"
    assert found["duration"] == record_json(records)["duration"]
    json.dumps(found, allow_nan=False)


def test_units_are_milliseconds_in_statistics_and_seconds_in_details():
    records = requests(10)
    rows = [row(record, True) for record in records]
    found = describe_as_vllm(record_json(records), rows, detailed=True)
    assert set(found) >= DETAILS
    assert found["median_ttft_ms"] == pytest.approx(np.median(found["ttfts"]) * 1e3)
    gaps = np.concatenate(found["itls"])
    assert found["p99_itl_ms"] == pytest.approx(np.quantile(gaps, 0.99) * 1e3, abs=1e-3)
    assert found["start_times"] == [record.sent for record in records]
    assert sum(found["output_lens"]) == found["total_output_tokens"]
    assert sum(found["input_lens"]) == found["total_input_tokens"]


def test_what_failed_has_no_output_and_an_error():
    records = requests(6, failed=2)
    rows = [row(record, False) for record in records]
    found = describe_as_vllm(record_json(records), rows, detailed=True)
    assert (found["completed"], found["failed"]) == (4, 2)
    assert found["errors"] == ["", "", "", "", "timeout: too late", "timeout: too late"]
    assert found["output_lens"][4:] == [0, 0]
    assert found["ttfts"][4:] == [0.0, 0.0]
    assert found["itls"][4:] == [[], []]


def test_goodput_is_by_its_definition():
    record = record_json(requests(10), level=ServiceLevel(ttft=150))
    record["request_goodput"] = 1e9
    found = describe_as_vllm(record, [], detailed=False)
    assert found["request_goodput"] == record["request_goodput_from_sent"] > 0


def test_statistics_are_those_asked_for():
    found = describe_as_vllm(
        record_json(requests(5)), [], False, latencies=("ttft", "e2el"), percentiles=(90,)
    )
    names = {key for key in found if key.endswith("_ms")}
    assert names == statistics(("ttft", "e2el"), ("mean", "median", "std", "p90"))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "vllm-infqps-Llama-2-7b-20260131-120005.json"),
        ({"request_rate": 8}, "vllm-8.0qps-Llama-2-7b-20260131-120005.json"),
        (
            {"request_rate": 0.5, "max_concurrency": 32, "label": "a/b"},
            "a-b-0.5qps-concurrency32-Llama-2-7b-20260131-120005.json",
        ),
        ({"model": "plain"}, "vllm-infqps-plain-20260131-120005.json"),
        (
            {"ramp_up": ("linear", 1.0, 20.0)},
            "vllm-ramp-up-linear-1qps-20qps-Llama-2-7b-20260131-120005.json",
        ),
    ],
)
def test_file_names_are_vllms(changes, expected):
    given = {
        "label": "vllm",
        "request_rate": float("inf"),
        "max_concurrency": None,
        "model": "meta-llama/Llama-2-7b",
        "date": datetime(2026, 1, 31, 12, 0, 5),
    }
    assert vllm_file_name(**(given | changes)) == expected


def test_choices_are_read():
    assert parse_percentiles("99,50, 99.9,50") == (50, 99, 99.9)
    assert parse_latencies("e2el,ttft") == ("ttft", "e2el")


@pytest.mark.parametrize("text", ["", "101", "-1", "p99", "nan", "50;90"])
def test_wrong_percentiles_are_told_so(text):
    with pytest.raises(UsageError, match="--metric-percentiles"):
        parse_percentiles(text)


@pytest.mark.parametrize("text", ["", ",", "ttft,latency", "TTFT"])
def test_wrong_latencies_are_told_so(text):
    with pytest.raises(UsageError, match="--percentile-metrics"):
        parse_latencies(text)
