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
CURVE_FORMAT = "loadstone-curve-1"


def describe_run(run: Run) -> dict[str, Any]:
    """The record: what was run, on what, and what came out. vLLM's names where it has them."""
    load, target = run.options.load, run.options.target
    return {
        "format": FORMAT,
        "verdict": run.verdict,
        "verdict_reasons": run.reasons,
        "date": _stamp(run),
        "endpoint_type": target.kind,
        "backend": target.kind,
        "label": run.options.results.label,
        "model_id": run.model,
        "tokenizer_id": run.tokenizer,
        "request_rate": plain(load.arrivals.mean_rate),
        "burstiness": load.arrivals.burstiness,
        "max_concurrency": load.max_concurrency,
        "seed": load.seed,
        "interrupted": run.interrupted,
        "num_prompts_asked": run.options.prompts,
        **run.figures,
        "counted_by": counted_by(run.records),
        "finish_reasons": dict(Counter(record.finish or "not said" for record in run.records)),
        "workload": run.workload.description,
        "workload_digest": run.workload.digest(),
        "distinct_prompts": run.workload.distinct,
        "most_uses_of_a_prompt": run.workload.most_uses,
        "warmup": asdict(run.warmup),
        "health": run.health,
        "calibration": run.calibration,
        "notes": run.notes,
        "metadata": run.options.results.metadata,
        "settings": _settings(run),
        "host": describe_host(),
        "jetstream": describe_as_jetstream(run),
    }


def describe_as_jetstream(run: Run) -> dict[str, Any]:
    """The document JetStream's benchmark_serving writes for --save-result, by its definitions."""
    return {
        "metrics": {
            "num_prompts": len(run.records),
            "request_rate": run.options.load.arrivals.mean_rate if run.rated else 0.0,
            **jetstream_figures(run.records, run.figures),
        },
        "dimensions": {
            "date": _stamp(run),
            "model_id": run.model,
            "tokenizer_id": run.tokenizer,
            **run.options.results.metadata,
        },
    }


def _settings(run: Run) -> Any:
    settings = asdict(run.options)
    target = settings["target"]
    # Values may be secrets.
    target["api_key"] = None if target["api_key"] is None else "given"
    target["headers"] = sorted(target["headers"])
    return plain(settings)


def _stamp(run: Run) -> str:
    return run.date.strftime("%Y%m%d-%H%M%S")


def plain(value: Any) -> Any:
    """A setting with JSON types only; infinity, which JSON lacks, as "inf"."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and math.isinf(value):
        return "inf"
    return str(value) if isinstance(value, Path) else value
