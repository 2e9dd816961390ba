"""The record that a benchmark run left, as far as a sweep needs it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FORMAT = "loadstone-run-"
_COMPLETED = "completed"


@dataclass(frozen=True)
class RunRecord:
    """A run's figures, and its requests in tokens.

    `lengths`: prompt and answer of each completed request. `longest_prompt`, `most_asked`: over all
    requests, None without one. `failures`: how many failed, by cause.
    """

    path: Path
    figures: dict[str, float]
    failures: dict[str, int]
    lengths: tuple[tuple[int, int], ...]
    longest_prompt: int | None
    most_asked: int | None


def read_record(folder: Path) -> RunRecord | None:
    """The newest record in a folder; None when there is none. ValueError when it is damaged."""
    # A record is written after its rows, so where there is one the rest is there too.
    found = sorted(path for path in folder.glob("*.jsonl") if path.with_suffix(".json").exists())
    for rows in reversed(found):
        path = rows.with_suffix(".json")
        record = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(record, dict) and str(record.get("format", "")).startswith(_FORMAT):
            return _read(path, record, rows)
    return None


def _read(path: Path, record: dict[str, Any], rows: Path) -> RunRecord:
    requests = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    done = [request for request in requests if request["outcome"] == _COMPLETED]
    return RunRecord(
        path=path,
        figures={name: value for name, value in record.items() if _is_number(value)},
        failures=dict(record.get("failures") or {}),
        lengths=tuple((request["input_len"], request["output_len"]) for request in done),
        longest_prompt=max((request["input_len"] for request in requests), default=None),
        most_asked=max((request["max_tokens"] for request in requests), default=None),
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
