"""Result documents of several clients under our own keys."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from client.errors import UsageError

READABLE = ("loadstone-run-1",)
OURS, VLLM, JETSTREAM = "loadstone", "vllm", "jetstream"

# What a reader must know of figures that are not ours.
FOREIGN_NOTES = {
    VLLM: "a result in vLLM's form: its own ITL is between chunks, not tokens; latency counts from "
    "sending; request_goodput is read as request_goodput_from_sent",
    JETSTREAM: "a result in JetStream's form: TPOT holds the wait for the first token, TTFT starts "
    "after its client's own queue, and failures are retried and not counted",
}


@dataclass(frozen=True)
class Document:
    """One run. `figures` has our keys; `source` says whose client wrote it."""

    source: str
    figures: Mapping[str, Any]


def read_document(value: Any, name: str) -> Document | None:
    """A result document as one of ours; None when it is no result of a run.

    Raises `UsageError` for a record of a version this cannot read; `name` says which it is.
    """
    if not isinstance(value, dict):
        return None
    form = value.get("format")
    if isinstance(form, str):
        if not form.startswith("loadstone-run-"):
            return None
        if form not in READABLE:
            raise UsageError(f"{name} has the format {form}; this reads {', '.join(READABLE)}")
        return Document(OURS, _ours(value))
    if isinstance(value.get("metrics"), dict) and isinstance(value.get("dimensions"), dict):
        return Document(JETSTREAM, _jetstream(value))
    if "mean_ttft_ms" in value and "request_throughput" in value:
        return Document(VLLM, _vllm(value))
    return None


def number(value: Any) -> float | None:
    """A finite number as float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _ours(value: Mapping[str, Any]) -> dict[str, Any]:
    theirs = value.get("jetstream")
    metrics = theirs.get("metrics", {}) if isinstance(theirs, dict) else {}
    # So that JetStream's TPOT, which is not ours, can be compared with JetStream's.
    tpot = {key: metrics[key] for key in metrics if key.endswith("_TPOT_ms")}
    return {**tpot, **value, "completed_share": _completed_share(value)}


def _vllm(value: Mapping[str, Any]) -> dict[str, Any]:
    figures = dict(value)
    # One of its versions wrote the key with a colon.
    older = figures.pop("request_goodput:", None)
    figures["request_goodput_from_sent"] = figures.pop("request_goodput", older)
    if not figures.get("completed"):
        # It writes 0 for a latency nobody had.
        figures |= {key: None for key in figures if key.endswith("_ms")}
    if "failed" not in figures and number(figures.get("num_prompts")) is not None:
        figures["failed"] = figures["num_prompts"] - figures["completed"]
    return figures | {"completed_share": _completed_share(figures)}


def _jetstream(value: Mapping[str, Any]) -> dict[str, Any]:
    figures = {**value["dimensions"], **value["metrics"]}
    rate = number(figures.get("request_rate"))
    return figures | {"request_rate": "inf" if rate == 0 else rate}


def _completed_share(figures: Mapping[str, Any]) -> float | None:
    completed, failed = number(figures.get("completed")), number(figures.get("failed"))
    if completed is None or failed is None or completed + failed == 0:
        return None
    return completed / (completed + failed)
