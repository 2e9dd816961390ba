"""The sides of a comparison, read from files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from client.errors import UsageError
from client.results.comparison_formats import OURS, VLLM, read_document
from client.results.comparison_rows import read_rows, records_from_vllm
from client.results.goodput import ServiceLevel, goodput_figures
from client.results.records import Record


@dataclass(frozen=True)
class Measured:
    """One run: its figures under our keys, and who wrote them."""

    path: Path
    source: str
    figures: Mapping[str, Any]

    def records(self) -> tuple[Record, ...]:
        """Its requests, in order; none where they were not kept. Raises `UsageError`."""
        if self.source == OURS:
            return read_rows(self.path.with_suffix(".jsonl"))
        return records_from_vllm(self.figures) if self.source == VLLM else ()


@dataclass(frozen=True)
class Side:
    """What is compared: one run, or repeats of one."""

    label: str
    runs: tuple[Measured, ...]


def read_side(argument: str) -> Side:
    """A side from a file, a folder or a pattern; several runs are repeats.

    Of a folder, all loadstone-*.json records; where it has none, every result of a run. Raises
    `UsageError` when nothing is found or what is found cannot be read.
    """
    path = Path(argument)
    if path.is_dir():
        runs = _in_folder(path)
    elif path.exists():
        runs = _in_file(path)
    else:
        # A pattern is relative to where it starts: the root or the working directory.
        pattern = str(path.relative_to(path.anchor))
        found = [each for each in sorted(Path(path.anchor).glob(pattern)) if each.is_file()]
        if not found:
            raise UsageError(f"{argument}: no such file or folder, and a pattern of no file")
        runs = [run for each in found for run in _in_file(each)]
    if not runs:
        raise UsageError(
            f"{argument}: no result of a run in it; give a loadstone-*.json record, or a result of "
            "vllm bench serve or of JetStream's benchmark"
        )
    return Side(argument.rstrip("/"), tuple(runs))


def with_goodput(side: Side, level: ServiceLevel) -> Side:
    """The side with its goodput counted anew at a service level, from its requests.

    Raises `UsageError` when a run kept none.
    """
    return replace(side, runs=tuple(_counted(run, level) for run in side.runs))


def _counted(run: Measured, level: ServiceLevel) -> Measured:
    records = run.records()
    if not records:
        raise UsageError(f"--goodput needs the requests of {run.path}, and they were not kept")
    found = goodput_figures(records, run.figures["duration"], level)
    return replace(run, figures={**run.figures, **found})


def _in_folder(folder: Path) -> list[Measured]:
    ours = [path for path in sorted(folder.glob("loadstone-*.json")) if not _is_outputs(path)]
    runs = [run for path in ours for run in _read(path)]
    if runs:
        return runs
    others = [path for path in sorted(folder.glob("*.json")) if not _is_outputs(path)]
    return [run for path in others for run in _read(path)]


def _in_file(path: Path) -> list[Measured]:
    if path.suffix == ".jsonl" and path.with_suffix(".json").exists():
        raise UsageError(f"{path} holds the requests of a run; give {path.with_suffix('.json')}")
    runs = _read(path)
    if not runs:
        raise UsageError(
            f"{path} is no result of a run: neither a loadstone-*.json record nor a result of "
            "vllm bench serve or of JetStream's benchmark"
        )
    return runs


def _is_outputs(path: Path) -> bool:
    """Whether a file holds the texts of a run."""
    return path.name.endswith(".outputs.json")


def _read(path: Path) -> list[Measured]:
    documents = [read_document(value, str(path)) for value in _values(path)]
    return [Measured(path, each.source, each.figures) for each in documents if each is not None]


def _values(path: Path) -> Sequence[Any]:
    """The JSON values of a file: one, or one a line as vLLM's --append-result leaves them."""
    try:
        text = path.read_text(encoding="utf-8", errors="surrogatepass")
    except (OSError, UnicodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    try:
        return [json.loads(text)]
    except ValueError as error:
        try:
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError:
            raise UsageError(f"{path} is not JSON: {error}") from error
