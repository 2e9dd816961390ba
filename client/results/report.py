"""A run as JSON documents."""

import math
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from client.results.host import describe_host
from client.results.metrics import jetstream_figures
from client.results.notes import counted_by
from client.results.run import Run

# Changes when a reader of older records would misread a newer one.
FORMAT = "loadstone-run-1"


def describe_run(run: Run) -> dict[str, Any]:
    """The record: what was run, on what, and what came out. vLLM's names where it has them."""
    return {
        "format": FORMAT,
        "date": _stamp(run),
        "endpoint_type": "jetstream-grpc",
        "backend": "jetstream",
        "model_id": run.model,
        "tokenizer_id": run.tokenizer,
        "request_rate": _json(run.options.request_rate),
        "burstiness": 1.0,
        "max_concurrency": None,
        "seed": run.options.seed,
        "interrupted": run.interrupted,
        "num_prompts_asked": run.options.num_prompts,
        **run.figures,
        "counted_by": counted_by(run.records),
        "finish_reasons": dict(Counter(record.finish or "not said" for record in run.records)),
        "distinct_prompts": run.selection.distinct,
        "most_uses_of_a_prompt": run.selection.most_uses,
        "warmup": asdict(run.warmup),
        "notes": run.notes,
        "metadata": run.options.metadata,
        "settings": _json(asdict(run.options)),
        "host": describe_host(),
        "jetstream": describe_as_jetstream(run),
    }


def describe_as_jetstream(run: Run) -> dict[str, Any]:
    """The document JetStream's benchmark_serving writes for --save-result, by its definitions."""
    rate = run.options.request_rate if run.rated else 0.0
    return {
        "metrics": {
            "num_prompts": len(run.records),
            "request_rate": rate,
            **jetstream_figures(run.records, run.figures),
        },
        "dimensions": {
            "date": _stamp(run),
            "model_id": run.model,
            "tokenizer_id": run.tokenizer,
            **run.options.metadata,
        },
    }


def _stamp(run: Run) -> str:
    return run.date.strftime("%Y%m%d-%H%M%S")


def _json(value: Any) -> Any:
    """A setting with JSON types only; infinity, which JSON lacks, as "inf"."""
    if isinstance(value, dict):
        return {name: _json(inner) for name, inner in value.items()}
    if isinstance(value, float) and math.isinf(value):
        return "inf"
    return str(value) if isinstance(value, Path) else value
