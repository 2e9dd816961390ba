"""Writes a run to files, each of them whole or absent."""

import json
import os
from pathlib import Path
from typing import Any

from client.errors import UsageError
from client.results.files import write_whole
from client.results.report import describe_as_jetstream, describe_run
from client.results.rows import jetstream_outputs, row
from client.results.run import Run


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


def save(run: Run) -> Path:
    """Writes the rows, the record and whatever else was asked for; returns the record's path.

    The record comes last, so where there is one the rest is there too. Raises OSError.
    """
    options = run.options
    directory, name = options.result_dir, _name(run)
    path = directory / f"loadstone-{name}.json"
    rows = [row(record, options.save_request_outputs) for record in run.records]
    write_whole(path.with_suffix(".jsonl"), "".join(_line(value) for value in rows))
    if options.save_request_outputs:
        outputs = options.request_outputs_path or directory / f"loadstone-{name}.outputs.json"
        write_whole(outputs, _document(jetstream_outputs(run.records, run.selection.prompts)))
    if options.save_result:
        write_whole(directory / f"JetStream-{name}.json", _document(describe_as_jetstream(run)))
    write_whole(path, _document(describe_run(run)))
    return path


def _name(run: Run) -> str:
    """Such as infqps-SmolLM2-20260131-120000-125."""
    model = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in run.model)
    # Milliseconds keep apart clients that were started together.
    stamp = f"{run.date:%Y%m%d-%H%M%S}-{run.date.microsecond // 1000:03d}"
    return f"{run.options.request_rate:g}qps-{model}-{stamp}"


def _document(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"
