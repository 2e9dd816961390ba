"""Writes a run to files, each of them whole or absent."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from client.errors import UsageError
from client.load.saturation import Search
from client.results.files import write_whole
from client.results.options import ResultSettings
from client.results.report import CURVE_FORMAT, describe_as_jetstream, describe_run
from client.results.rows import jetstream_outputs, row
from client.results.run import Run
from client.results.vllm import describe_as_vllm, vllm_file_name


def prepare(directory: Path) -> None:
    """Makes a directory for results, before anything is measured.

    Raises `UsageError` when it cannot be made or written to.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the directory {directory}: {error.strerror}") from error
    if not os.access(directory, os.W_OK):
        raise UsageError(f"cannot write to the directory {directory}; give another one")


def prepare_files(wanted: ResultSettings) -> None:
    """Makes the directories of everything that is to be written, before anything is measured.

    Raises `UsageError` where something cannot be written.
    """
    prepare(wanted.folder)
    if wanted.outputs_path is not None:
        prepare(wanted.outputs_path.parent)
    if wanted.vllm_name is None:
        return
    path = wanted.folder / wanted.vllm_name
    prepare(path.parent)
    if path.is_dir():
        raise UsageError(f"--result-filename: {path} is a directory; name a file")
    if wanted.vllm_append and path.exists():
        _check_text(path)


def _check_text(path: Path) -> None:
    try:
        path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--append-result: cannot add to {path}: {error}") from error


def save(run: Run) -> Path:
    """Writes the rows, the record and whatever else was asked for; returns the record's path.

    The record comes last, so where there is one the rest is there too. Raises OSError.
    """
    wanted = run.options.results
    directory, name = wanted.folder, _name(run)
    path = directory / f"loadstone-{name}.json"
    rows = [row(record, wanted.save_outputs) for record in run.records]
    write_whole(path.with_suffix(".jsonl"), "".join(_line(value) for value in rows))
    if wanted.save_outputs:
        outputs = wanted.outputs_path or directory / f"loadstone-{name}.outputs.json"
        prompts = run.workload.prompts
        asked = [prompts[record.index] for record in run.records]
        write_whole(outputs, _document(jetstream_outputs(run.records, asked)))
    if wanted.save_jetstream:
        write_whole(directory / f"JetStream-{name}.json", _document(describe_as_jetstream(run)))
    record = describe_run(run)
    if wanted.save_vllm:
        _save_vllm(run, record, rows)
    write_whole(path, _document(record))
    return path


def save_curve(search: Search, runs: Sequence[tuple[Run, Path]]) -> Path:
    """Writes what a search found so far, beside its records; returns the path, always the same.

    Raises OSError.
    """
    first, path = runs[0]
    level = first.options.results.level
    points = [
        {
            "rate": probe.rate,
            "met": probe.met,
            "verdict": run.verdict,
            "record": record.name,
            "figures": run.figures,
        }
        for probe, (run, record) in zip(search.probes, runs, strict=True)
    ]
    curve = {
        "format": CURVE_FORMAT,
        "model_id": first.model,
        "service_level": level.limits if level else {},
        "good_share": search.settings.good_share,
        "points": sorted(points, key=lambda point: float(str(point["rate"]))),
        "knee": search.knee,
        "highest_rate": search.highest,
        # Where it is the client's own limit, the server may do more.
        "limited_by_client": search.limited,
        "settled": search.settled,
    }
    target = path.with_name(path.name.replace("loadstone-", "loadstone-curve-", 1))
    write_whole(target, _document(curve))
    return target


def _save_vllm(run: Run, record: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    wanted, load = run.options.results, run.options.load
    ramp = load.arrivals.ramp
    name = wanted.vllm_name or vllm_file_name(
        label=wanted.label or run.options.target.kind,
        request_rate=load.arrivals.mean_rate if run.rated else math.inf,
        max_concurrency=load.max_concurrency,
        model=run.model,
        date=run.date,
        ramp_up=(ramp.strategy, ramp.start_rate, ramp.end_rate) if ramp else None,
    )
    percentiles = wanted.percentiles or None
    document = describe_as_vllm(
        record, rows, wanted.vllm_detailed, latencies=wanted.latencies, percentiles=percentiles
    )
    path = wanted.folder / name
    before = path.read_text(encoding="utf-8") if wanted.vllm_append and path.exists() else ""
    write_whole(path, before + (_line(document) if wanted.vllm_append else _document(document)))


def _name(run: Run) -> str:
    """Such as infqps-SmolLM2-20260131-120000-125."""
    model = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in run.model)
    # Milliseconds keep apart clients that were started together.
    stamp = f"{run.date:%Y%m%d-%H%M%S}-{run.date.microsecond // 1000:03d}"
    load = run.options.load
    places = f"-concurrency{load.max_concurrency}" if load.max_concurrency else ""
    return f"{load.arrivals.mean_rate:g}qps{places}-{model}-{stamp}"


def _document(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"
