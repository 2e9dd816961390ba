"""The record of a point's generation, as the client keeps those of a server."""

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from client.engines.ask import Ask
from client.engines.point import Point
from client.results.arrivals import Arrivals
from client.results.files import write_whole
from client.results.host import describe_host
from client.results.metrics import figures
from client.results.records import Outcome, Record
from client.results.report import FORMAT
from client.results.rows import row


def save_record(
    point: Point, ask: Ask, result: dict[str, Any], folder: Path, date: datetime
) -> Path:
    """Writes the rows, then the record; returns the record's path.

    Every row of a batch is a request, sent when its run starts. All rows of a step come together,
    so they share its time. Runs lie end to end: what is between them is not in the duration.
    """
    records = _records(ask, result["timed"]["runs"])
    duration = sum(run["seconds"] for run in result["timed"]["runs"])
    found = figures(records, duration)
    path = folder / f"loadstone-{point.name}.json"
    rows = (json.dumps(row(record, with_text=False), allow_nan=False) for record in records)
    write_whole(path.with_suffix(".jsonl"), "".join(f"{line}\n" for line in rows))
    document = _describe(point, ask, result, date) | found
    write_whole(path, json.dumps(document, indent=2, allow_nan=False) + "\n")
    return path


def _records(ask: Ask, runs: Sequence[dict[str, Any]]) -> list[Record]:
    records: list[Record] = []
    start = 0.0
    for run in runs:
        arrivals = Arrivals.singles([start + stamp for stamp in run["stamps"]])
        for slot in range(ask.batch):
            length = ask.prompts[slot % len(ask.prompts)]
            records.append(
                Record(
                    index=len(records),
                    prompt_id=f"row-{slot}",
                    prompt_tokens=length,
                    max_tokens=ask.new_tokens,
                    scheduled=start,
                    sent=start,
                    ended=start + run["seconds"],
                    arrivals=arrivals,
                    outcome=Outcome.COMPLETED,
                    finish="length",
                )
            )
        start += run["seconds"]
    return records


def _describe(point: Point, ask: Ask, result: dict[str, Any], date: datetime) -> dict[str, Any]:
    facts = result["facts"]
    return {
        "format": FORMAT,
        # There is no client between the engine and the clock that could be the limit.
        "verdict": "VALID",
        "verdict_reasons": [],
        "date": date.strftime("%Y%m%d-%H%M%S"),
        "endpoint_type": "offline",
        "backend": f"offline {ask.engine}",
        "label": point.variant.label(with_attention=True),
        "model_id": point.model,
        "tokenizer_id": "none: random token ids",
        "request_rate": "inf",
        "burstiness": 1.0,
        "max_concurrency": ask.batch,
        "seed": ask.seed,
        "interrupted": False,
        "counted_by": "token_ids",
        "notes": ["requests of a batch start together, and the tokens of a step come together"],
        "settings": {"ask": json.loads(ask.as_json())},
        "cold_start_seconds": result["cold"],
        "memory": result["memory"],
        "engine": facts,
        "host": describe_host(),
    }
