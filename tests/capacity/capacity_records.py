"""Records as our clients write them, made from known efficiencies."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from capacity.hardware.chip import Chip, Figure
from capacity.hardware.slice import Slice
from capacity.serving.batch_run import batch_run, time_batch
from capacity.serving.lengths import Lengths
from capacity.timing.efficiency import Efficiency
from capacity.work.setting import Setting
from server.models.catalogue import catalogue

MODEL = "smollm2-135m"
MACHINE = {"cpu": "a processor", "cores": 2, "bandwidth_gbps": 30.0, "peak_tflops": 0.2}
TRUE = Efficiency(0.6, 0.7, 0.5, 0.7, 0.4, 0.5, step_s=1e-3, sequence_s=1e-4, request_s=5e-3)


def cpu() -> Chip:
    """The machine of the sweeps here."""
    return Chip(
        "cpu",
        "a processor",
        "cpu",
        {
            "memory_gib": Figure(16, "test", "2026"),
            "bandwidth_gbps": Figure(30.0, "test", "2026"),
            "fp32_tops": Figure(0.2, "test", "2026"),
        },
    )


def write_rows(path: Path, lengths: Lengths) -> None:
    """One line a request, and one that failed."""
    rows: list[dict[str, Any]] = [
        {"input_len": int(a), "output_len": int(b), "outcome": "completed", "max_tokens": int(b)}
        for a, b in zip(lengths.inputs, lengths.outputs, strict=True)
    ]
    rows.append({"input_len": 9, "output_len": 0, "outcome": "failed", "max_tokens": 9})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_sweep(
    folder: Path,
    batches: tuple[int, ...] = (2, 4, 8, 16),
    schemes: tuple[str, ...] = ("none",),
    noise: float = 0.0,
    **changes: Any,
) -> Path:
    """The folder of a sweep whose figures are what TRUE gives, with noise."""
    generator = np.random.default_rng(0)
    lengths = Lengths(generator.integers(20, 200, 24), generator.integers(10, 60, 24), "made")
    cells = []
    for scheme in schemes:
        for slots in batches:
            name = f"b{slots}-c256-{scheme}-model"
            setting = Setting(
                catalogue()[MODEL],
                Slice(cpu(), 1),
                weights=scheme,
                cache="int8" if scheme == "int8" else "none",
                compute="fp32",
                slots=slots,
                cache_length=256,
            )
            times = time_batch(batch_run(setting, lengths), TRUE)
            factor = float(np.exp(noise * generator.normal()))
            figures = {
                "output_throughput": times.throughput * factor,
                "mean_tpot_ms": float(np.nanmean(times.tpot)) * 1e3 / factor,
            }
            (folder / name).mkdir(parents=True)
            record = {"format": "loadstone-run-1", "verdict": "VALID", "request_rate": "inf"}
            (folder / name / "loadstone-run.json").write_text(json.dumps({**record, **figures}))
            write_rows(folder / name / "loadstone-run.jsonl", lengths)
            cells.append(
                {
                    "batch_size": slots,
                    "cache_length": 256,
                    "quantize": scheme,
                    "sharding": "model",
                    "status": "ok",
                    "record": f"{name}/loadstone-run.json",
                    "figures": figures,
                    "plan": {
                        "model": MODEL,
                        "device_kind": "cpu",
                        "devices": 1,
                        "slots": slots,
                        "cache_length": 256,
                    },
                    **changes,
                }
            )
    path = folder / "sweep.json"
    document = {"format": "loadstone-sweep-1", "machine": MACHINE, "cells": cells}
    path.write_text(json.dumps(document))
    return path
