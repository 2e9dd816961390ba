"""Records as the benchmark writes them, made from seeded numbers, and pages made of them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from client.report import main
from client.results.arrivals import Arrivals
from client.results.metrics import figures
from client.results.records import Outcome, Record
from client.results.rows import row


def made_records(
    count: int = 80, tokens: int = 40, rate: float = 8.0, seed: int = 0, failing: float = 0.05
) -> list[Record]:
    """Poisson arrivals, a queue that grows, gaps around 20 ms, a stall now and then, failures."""
    draw = np.random.default_rng(seed)
    due = np.cumsum(draw.exponential(1 / rate, count)) - 1 / rate
    return [
        _record(index, max(float(at), 0.0), tokens, failing, draw) for index, at in enumerate(due)
    ]


def _record(
    index: int, due: float, tokens: int, failing: float, draw: np.random.Generator
) -> Record:
    sent = due + float(draw.exponential(0.001))
    wait = 0.05 + float(draw.lognormal(-2.5, 0.6)) * (1 + due / 10)
    gaps = draw.lognormal(
        np.log(0.02), 0.25, max(int(draw.integers(tokens // 2, tokens + 1)) - 1, 0)
    )
    gaps *= np.where(draw.random(gaps.size) < 0.01, 12, 1)
    times = sent + wait + np.concatenate([[0.0], np.cumsum(gaps)])
    failed = bool(draw.random() < failing)
    if failed:
        times = times[: int(draw.integers(0, 4))]
    return Record(
        index=index,
        prompt_id=f"prompt-{index}",
        prompt_tokens=int(draw.integers(10, 400)),
        max_tokens=tokens,
        scheduled=due,
        sent=sent,
        ended=float(times[-1] if times.size else sent + 0.03) + 0.002,
        arrivals=Arrivals.singles([float(time) for time in times]),
        outcome=Outcome.FAILED if failed else Outcome.COMPLETED,
        cause="RESOURCE_EXHAUSTED" if failed else "",
        detail="the queue is full" if failed else "",
        finish=None if failed else "length",
    )


def write_run(
    folder: Path, name: str, records: Sequence[Record], rate: float | str = 8.0, **more: Any
) -> Path:
    """Writes a record with its rows; `more` are fields of the record. Returns its path."""
    ends = [record.ended for record in records if record.ended is not None]
    document = {
        "format": "loadstone-run-1",
        "date": "20260131-120000",
        "backend": "jetstream",
        "model_id": "a-model",
        "tokenizer_id": "a-tokenizer",
        "request_rate": rate,
        "seed": 0,
        "interrupted": False,
        **figures(records, max(ends, default=0.0)),
        "finish_reasons": {"length": sum(record.finish == "length" for record in records)},
        "notes": [],
        "metadata": {"chips": "4"},
        "settings": {"num_prompts": len(records), "target": {"server": "0.0.0.0"}},
        "host": {"cpu": "a processor", "cores": 2},
        "client_cpu_share": 0.12,
    } | more
    path = folder / f"loadstone-{name}.json"
    path.write_text(json.dumps(document))
    lines = (json.dumps(row(record, with_text=False)) for record in records)
    path.with_suffix(".jsonl").write_text("".join(line + "\n" for line in lines))
    return path


def write_curve(folder: Path, name: str = "curve", **more: Any) -> Path:
    """A curve whose latency bends at 8 requests a second."""
    points = []
    for rate in (1.0, 2.0, 4.0, 6.5, 8.0, 10.0, 12.0):
        over = max(0.0, rate - 7.5)
        first = 80 + 10 * rate + 900 * over**1.5
        found = {
            "output_throughput": 60 * min(rate, 8.2),
            "p50_ttft_ms": first / 2,
            "p99_ttft_ms": first,
            "p99_itl_ms": 30 + 2 * rate,
            "p99_e2el_ms": first + 2500,
            "goodput_share": 1.0 if rate < 7 else max(0.0, 0.9 - 0.2 * over),
        }
        points.append(
            {"rate": rate, "met": rate < 7, "verdict": "INVALID" if rate == 12 else "VALID",
             "record": f"loadstone-{rate:g}qps.json", "figures": found}
        )  # fmt: skip
    document = {
        "format": "loadstone-curve-1",
        "service_level": {"ttft": 500, "itl": 60},
        "points": points,
        "knee": 8.0,
        "highest_rate": 6.5,
    } | more
    path = folder / f"loadstone-{name}.json"
    path.write_text(json.dumps(document))
    return path


def write_sweep(folder: Path, name: str = "sweep", **more: Any) -> Path:
    """A sweep over batch sizes and cache lengths, whose largest cells do not fit."""
    document = {
        "format": "loadstone-sweep-1",
        "machine": {"chip": "v5e", "chips": 8},
        "cells": [
            _cell(batch, length, quantize, sharding)
            for quantize in ("none", "int8")
            for sharding in ("model", "batch")
            for batch in (1, 8, 32, 64)
            for length in (256, 1024, 4096)
        ],
    } | more
    path = folder / f"loadstone-{name}.json"
    path.write_text(json.dumps(document))
    return path


def _cell(batch: int, length: int, quantize: str, sharding: str) -> dict[str, Any]:
    size = batch * length * (1 if quantize == "int8" else 2)
    status = "oom" if size > 200_000 else "refused" if size > 130_000 else "ok"
    speed = 40 * batch**0.8 * (1.6 if quantize == "int8" else 1) / (1 + length / 9000)
    ran = status == "ok"
    return {
        "batch_size": batch,
        "cache_length": length,
        "quantize": quantize,
        "sharding": sharding,
        "rolling": length < 1000 if ran else None,
        "status": status,
        "reason": "" if ran else f"{size:,} positions do not fit; 130,000 do",
        "roofline_fraction": 0.4 if ran else None,
        "figures": {"output_throughput": speed, "p99_ttft_ms": 9.0 * batch} if ran else {},
    }


def report(folder: Path, *records: Path, flags: tuple[str, ...] = ()) -> Path:
    """Makes a page by the command and returns its path."""
    page = folder / "page.html"
    assert main([*map(str, records), "-o", str(page), *flags]) == 0
    return page
