"""Writes runs to folders as the benchmark does, from made-up requests."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from client_records import streamed

from client.results.metrics import figures
from client.results.records import Outcome, Record
from client.results.report import FORMAT
from client.results.rows import row


def requests(
    count: int = 40, factor: float = 1.0, seed: int = 0, failed: int = 0
) -> tuple[Record, ...]:
    """Requests a second apart, every latency times `factor`; the last ones fail."""
    random = np.random.default_rng(seed)
    found = []
    for index in range(count):
        waits = [0.1 + random.exponential(0.1), *random.gamma(4, 0.005, 15)]
        times = index + factor * np.cumsum(waits)
        arrivals = [(float(time), 1) for time in times]
        record = streamed(arrivals, scheduled=float(index), sent=float(index), index=index)
        if index >= count - failed:
            record = replace(record, outcome=Outcome.FAILED, cause="timeout", detail="too late")
        found.append(record)
    return tuple(found)


def record_json(records: Sequence[Record], **changes: Any) -> dict[str, Any]:
    """The record of a run, with what a comparison and vLLM's document look at."""
    level, price = changes.pop("level", None), changes.pop("price", None)
    duration = max(record.ended or 0.0 for record in records)
    return {
        "format": FORMAT,
        "date": "20260131-120000",
        "endpoint_type": "jetstream-grpc",
        "backend": "jetstream",
        "model_id": "org/tiny",
        "tokenizer_id": "tiny",
        "request_rate": "inf",
        "burstiness": 1.0,
        "max_concurrency": None,
        "seed": 0,
        "interrupted": False,
        **figures(records, duration, level=level, price=price),
        "metadata": {"chips": "4", "duration": "hidden?"},
        "settings": {"rules": {"max_output_length": 32}, "target": {"port": 9000}},
        "host": {"cpu": "a processor", "cores": 2},
        **changes,
    }


def write_run(
    path: Path, records: Sequence[Record], with_rows: bool = True, **changes: Any
) -> Path:
    """A record and the rows of its requests; returns the record's path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if with_rows:
        lines = [json.dumps(row(record, False)) + "\n" for record in records]
        path.with_suffix(".jsonl").write_text("".join(lines))
    path.write_text(json.dumps(record_json(records, **changes)))
    return path
