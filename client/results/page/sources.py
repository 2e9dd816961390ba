"""The files a page is made of: records of runs, rate curves, sweeps, engines and quality."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from client.errors import UsageError
from client.results.page.requests import Requests, read_requests
from client.results.page.values import as_list, as_mapping, finite, text
from client.results.report import FORMAT as RUN_FORMAT

CURVE_FORMAT = "loadstone-curve-1"
SWEEP_FORMAT = "loadstone-sweep-1"
OFFLINE_FORMAT = "loadstone-offline-1"
QUALITY_FORMAT = "loadstone-quality-1"
# One colour and dash each; with more lines nobody can tell them apart.
MOST_RUNS = 24
_ALIKE = ("sweep", "curve", "offline")
# What a folder is searched for.
_NAMES = ("loadstone-*.json", "sweep.json", "curve.json", "offline.json")
# Those that come without rows.
_OTHERS = (CURVE_FORMAT, SWEEP_FORMAT, OFFLINE_FORMAT, QUALITY_FORMAT)


@dataclass(frozen=True)
class RunSource:
    """A record with its rows; `requests` is None and `problem` says why where there are none."""

    path: Path
    record: Mapping[str, Any]
    requests: Requests | None
    problem: str
    label: str = ""

    def figure(self, name: str) -> float | None:
        """A figure of the record; None where it has none."""
        return finite(self.record.get(name))


@dataclass(frozen=True)
class RecordSource:
    """A record that comes without rows, such as a sweep."""

    path: Path
    record: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Its name, with that of its folder where all files of its kind are named alike."""
        stem = self.path.stem
        return (f"{self.path.resolve().parent.name}/{stem}" if stem in _ALIKE else stem)[:80]


@dataclass(frozen=True)
class Sources:
    """Everything that goes into one page."""

    runs: tuple[RunSource, ...]
    curves: tuple[RecordSource, ...]
    sweeps: tuple[RecordSource, ...]
    offlines: tuple[RecordSource, ...] = ()
    qualities: tuple[RecordSource, ...] = ()


def read_sources(paths: Sequence[Path]) -> Sources:
    """Reads records; a folder stands for all the records in it.

    Raises `UsageError` naming the file that is absent, no record, or one too many.
    """
    runs: list[RunSource] = []
    others: dict[str, list[RecordSource]] = {name: [] for name in _OTHERS}
    for path in _files(paths):
        record = _read_record(path)
        if record["format"] == RUN_FORMAT:
            runs.append(_run_source(path, record))
        else:
            others[record["format"]].append(RecordSource(path, record))
    if len(runs) > MOST_RUNS:
        raise UsageError(f"{len(runs)} runs; a page holds {MOST_RUNS} at most: name fewer")
    return Sources(_labelled(runs), *(tuple(others[name]) for name in _OTHERS))


def _files(paths: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = sorted(file for name in _NAMES for file in path.glob(name))
            found = [file for file in found if not file.name.endswith(".outputs.json")]
            if not found:
                raise UsageError(f"{path}: no record ({', '.join(_NAMES)}) in this folder")
            files += found
        else:
            files.append(path)
    # The same file twice is one run.
    return list({file.resolve(): file for file in files}.values())


def _read_record(path: Path) -> Mapping[str, Any]:
    if path.suffix == ".jsonl":
        raise UsageError(
            f"{path}: these are the rows; give the record, {path.with_suffix('.json')}"
        )
    try:
        content = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    try:
        record = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not JSON: {error}") from error
    known = (RUN_FORMAT, *_OTHERS)
    given = record.get("format") if isinstance(record, Mapping) else None
    if given not in known:
        said = "has no format" if given is None else f"has the format {text(given)[:60]!r}"
        raise UsageError(f"{path} {said}; a page is made of {', '.join(known)}")
    _check(path, record)
    return record


def _check(path: Path, record: Mapping[str, Any]) -> None:
    lists = ((CURVE_FORMAT, "points"), (SWEEP_FORMAT, "cells"), (OFFLINE_FORMAT, "cells"))
    for kind, name in lists:
        if record["format"] == kind and not all(map(as_mapping, as_list(record.get(name)))):
            raise UsageError(f"{path}: {name} is a list of objects in a {kind}")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _run_source(path: Path, record: Mapping[str, Any]) -> RunSource:
    rows = path.with_suffix(".jsonl")
    try:
        requests = read_requests(rows)
    except OSError as error:
        problem = (
            f"the rows of this run ({rows.name}) cannot be read: {error.strerror}. Charts over "
            "time and of single requests are left out; all figures are the record's"
        )
        return RunSource(path, record, None, problem)
    asked = finite(record.get("num_prompts"))
    problem = ""
    if asked is not None and asked != len(requests):
        problem = f"the record speaks of {asked:g} requests, {rows.name} has {len(requests)}"
    return RunSource(path, record, requests, problem)


def _labelled(runs: Sequence[RunSource]) -> tuple[RunSource, ...]:
    """Runs with the shortest labels that tell them apart."""
    ways: tuple[Callable[[RunSource], str], ...] = (_model, _model_and_rate, _dated, _named)
    for way in ways:
        labels = [way(run) for run in runs]
        if len(set(labels)) == len(labels):
            break
    else:
        labels = [f"{label} ({place})" for place, label in enumerate(labels, start=1)]
    return tuple(
        RunSource(run.path, run.record, run.requests, run.problem, label)
        for run, label in zip(runs, labels, strict=True)
    )


def _model(run: RunSource) -> str:
    return text(run.record.get("model_id"))[:60]


def _model_and_rate(run: RunSource) -> str:
    return f"{_model(run)}, {rate_text(run.record)}"


def _dated(run: RunSource) -> str:
    return f"{_model_and_rate(run)}, {text(run.record.get('date'))[:20]}"


def _named(run: RunSource) -> str:
    return run.path.stem[:80]


def rate_text(record: Mapping[str, Any]) -> str:
    """How fast requests were sent, in words."""
    rate = finite(record.get("request_rate"))
    return "all at once" if not rate else f"{rate:g} requests/s"
