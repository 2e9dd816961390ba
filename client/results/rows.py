"""Per-request rows, one JSON object each."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from client.results.latency import e2el, tpot, ttft
from client.results.records import Outcome, Record
from client.workloads.prompt import Prompt


def row(record: Record, with_text: bool) -> dict[str, Any]:
    """One request as JSON. Times in seconds from the start of the run, latencies in seconds."""
    answered = record.sent is not None and bool(record.arrivals)
    values: dict[str, Any] = {
        "index": record.index,
        "prompt_id": record.prompt_id,
        "outcome": record.outcome.value,
        "cause": record.cause,
        "detail": record.detail,
        "input_len": record.prompt_tokens,
        "max_tokens": record.max_tokens,
        "output_len": record.tokens,
        "counted_by": record.counted_by.value,
        "scheduled": record.scheduled,
        "sent": record.sent,
        "ended": record.ended,
        "ttft": ttft(record, record.sent) if answered and record.sent is not None else None,
        "tpot": tpot(record),
        "e2el": e2el(record, record.sent) if answered and record.sent is not None else None,
        "itls": np.round(record.gaps, 7).tolist(),
        "finish": record.finish,
        "server_prompt_tokens": record.server_prompt_tokens,
        "server_completion_tokens": record.server_completion_tokens,
        "server_queue": record.server_queue,
        "server_prefill": record.server_prefill,
    }
    return values | ({"generated_text": record.text} if with_text else {})


def jetstream_outputs(records: Sequence[Record], prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    """Prompts with their answers, as JetStream's --save-request-outputs writes them."""
    return [
        {
            "prompt": prompt.text,
            "original_output": prompt.reference,
            "generated_text": record.text,
            "success": record.outcome is Outcome.COMPLETED,
            "latency": e2el(record, record.sent) if record.arrivals and record.sent else 0.0,
            "prompt_len": record.prompt_tokens,
        }
        for record, prompt in zip(records, prompts, strict=True)
    ]
