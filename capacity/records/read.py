"""Records of client.benchmark, client.sweep and client.offline as measured runs.

A record of a run says what was asked and what came out; what it ran on stands in the state of a
sweep (`plan`), in `ready.json` beside the record, in the record itself (client.offline), or is
given on the command line.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from capacity.hardware.chip import Chip, Figure
from capacity.hardware.slice import Slice, find_slice
from capacity.models import find_model
from capacity.records.own import OwnRun
from capacity.serving.cost import MEASURED, Power
from capacity.serving.lengths import Lengths
from capacity.serving.rows import completed_lengths
from capacity.work.setting import Setting
from capacity.work.software import Software, find_software
from client.errors import UsageError

RUN, SWEEP, OFFLINE = "loadstone-run-1", "loadstone-sweep-1", "loadstone-offline-1"
READABLE = (RUN, SWEEP, OFFLINE)
_MEASURED = ("ok", "invalid")
_PEAKS_SOURCE = "measured by client.sweep on the host of the sweep"


@dataclass(frozen=True)
class Given:
    """What the command line says of records that do not say it themselves. None: not given."""

    model: str | None = None
    slice: str | None = None
    weights: str | None = None
    cache: str | None = None
    sharding: str = "model"
    slots: int | None = None
    cache_length: int | None = None
    software: str = "loadstone"


@dataclass(frozen=True)
class Reader:
    """Reads records; `chips` by name, `host` measures this host's CPU when it is needed."""

    chips: Mapping[str, Chip]
    given: Given
    host: Callable[[], Chip]

    def read(self, paths: Sequence[Path]) -> tuple[list[OwnRun], list[str]]:
        """Every run, and notes on what was left out. UsageError for a file that is no record."""
        runs: list[OwnRun] = []
        notes: list[str] = []
        for path in paths:
            for record in _files(path):
                found = list(self._read(record, notes))
                runs += found
        if not runs:
            why = f": {'; '.join(notes)}" if notes else ""
            raise UsageError(f"no measured run in {', '.join(map(str, paths))}{why}")
        return runs, notes

    def _read(self, path: Path, notes: list[str]) -> Iterator[OwnRun]:
        document = _document(path)
        form = document["format"]
        try:
            if form == SWEEP:
                yield from self._sweep(path, document, notes)
            elif form == OFFLINE:
                yield from self._offline(path, document, notes)
            else:
                yield from self._run(path, document, notes)
        except (KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{path}: a damaged {form}: {error!r}") from error

    def _sweep(self, path: Path, document: dict[str, Any], notes: list[str]) -> Iterator[OwnRun]:
        cpu = _cpu_of(document["machine"])
        for cell in document["cells"]:
            name = f"{cell['batch_size']} slots, {cell['cache_length']}, {cell['quantize']}"
            if cell["status"] not in _MEASURED or not cell.get("record"):
                continue
            plan = cell.get("plan")
            if not plan:
                notes.append(f"{path.name}: {name}: the server did not say what it ran on")
                continue
            record = path.parent / cell["record"]
            where = self._slice(plan["device_kind"], plan["devices"], cpu)
            if where is None:
                notes.append(f"{path.name}: {name}: virtual devices of one CPU are not modelled")
                continue
            setting = _setting(
                plan, where, cell["quantize"], cell["sharding"], find_software("loadstone")
            )
            figures = cell["figures"]
            yield self._served(name, setting, record, figures, _document(record))

    def _run(self, path: Path, document: dict[str, Any], notes: list[str]) -> Iterator[OwnRun]:
        if document.get("verdict") == "INVALID":
            notes.append(f"{path.name}: INVALID: the client was the limit")
            return
        if document.get("endpoint_type") == "offline":
            yield from self._in_process(path, document, notes)
            return
        yield self._served(path.stem, self._described(path), path, document, document)

    def _offline(self, path: Path, document: dict[str, Any], notes: list[str]) -> Iterator[OwnRun]:
        for cell in document["cells"]:
            if cell["status"] not in _MEASURED or not cell.get("record"):
                continue
            record = path.parent / cell["record"]
            joules = cell.get("joules"), sum(run[0] for run in cell.get("runs") or [])
            for run in self._in_process(record, _document(record), notes):
                power = None
                if joules[0] and joules[1]:
                    source = f"{MEASURED}, {cell.get('energy_source')}"
                    power = Power(joules[0] / joules[1], source)
                yield replace(run, power=power)

    def _in_process(
        self, path: Path, document: dict[str, Any], notes: list[str]
    ) -> Iterator[OwnRun]:
        ask, facts = document["settings"]["ask"], document["engine"]
        if ask["task"] != "generate" or not document.get("mean_tpot_ms"):
            notes.append(f"{path.name}: {ask['task']}: only generation calibrates")
            return
        where = self._slice(facts["device"], facts["devices"], None)
        if where is None:
            notes.append(f"{path.name}: virtual devices of one CPU are not modelled")
            return
        software = find_software("loadstone" if ask["engine"] == "loadstone" else "torch")
        setting = Setting(
            find_model(document["model_id"]),
            where,
            weights=_scheme(ask["kind"]),
            cache="int8" if ask["kind"] == "int8" and software.name == "loadstone" else "none",
            compute=_compute(where.chip),
            slots=ask["batch"],
            cache_length=max(ask["prompts"]) + ask["new_tokens"],
            software=software,
        )
        prompts = np.array(
            [ask["prompts"][row % len(ask["prompts"])] for row in range(ask["batch"])]
        )
        lengths = Lengths(prompts, np.full(len(prompts), ask["new_tokens"]), path.name)
        name = f"{document['label']}, batch {ask['batch']}"
        yield OwnRun(
            name, setting, lengths, None, tpot_ms=document["mean_tpot_ms"], decode_only=True
        )

    def _served(
        self,
        name: str,
        setting: Setting,
        record: Path,
        figures: Mapping[str, Any],
        document: Mapping[str, Any],
    ) -> OwnRun:
        pairs = completed_lengths(record.with_suffix(".jsonl"))
        lengths = Lengths(
            np.array([pair[0] for pair in pairs]),
            np.array([pair[1] for pair in pairs]),
            record.name,
        )
        rate = document.get("request_rate")
        at_once = rate in (None, "inf", 0) and document.get("max_concurrency") is None
        return OwnRun(
            name,
            setting,
            lengths,
            None if at_once else float(figures.get("sent_request_rate") or 0) or None,
            tokens_per_s=figures.get("output_throughput"),
            tpot_ms=figures.get("mean_tpot_ms"),
        )

    def _described(self, path: Path) -> Setting:
        """From ready.json beside the record and the command line."""
        given, plan = self.given, _plan_beside(path)
        missing = [
            option
            for option, value in (
                ("--model", given.model or plan.get("model")),
                ("--slice", given.slice or plan.get("device_kind")),
                ("--batch-size", given.slots or plan.get("slots")),
                ("--cache-length", given.cache_length or plan.get("cache_length")),
                ("--quantize", given.weights),
            )
            if not value
        ]
        if missing:
            raise UsageError(
                f"{path}: the record does not say what it ran on, and there is no ready.json "
                f"beside it: give {', '.join(missing)}"
            )
        where = (
            self._named(given.slice)
            if given.slice
            else self._slice(plan["device_kind"], plan["devices"], None)
        )
        if where is None:
            raise UsageError(f"{path}: virtual devices of one CPU are not modelled")
        weights = given.weights or "none"
        return Setting(
            find_model(given.model or plan["model"]),
            where,
            weights=weights,
            cache=given.cache or ("int8" if weights == "int8" else "none"),
            compute=_compute(where.chip),
            sharding=given.sharding,
            slots=given.slots or plan["slots"],
            cache_length=given.cache_length or plan["cache_length"],
            software=find_software(given.software),
        )

    def _named(self, name: str) -> Slice:
        if name.lower() == "cpu" and "cpu" not in self.chips:
            return Slice(self.host(), 1)
        return find_slice(name, self.chips)

    def _slice(self, kind: str, devices: int, cpu: Chip | None) -> Slice | None:
        """None for several virtual devices on one CPU."""
        if kind.lower() == "cpu":
            chip = self.chips.get("cpu") or cpu or self.host()
            return Slice(chip, 1) if devices == 1 else None
        for chip in self.chips.values():
            if kind.lower() in (name.lower() for name in (chip.name, *chip.aliases)):
                if chip.kind == "tpu":
                    return find_slice(f"{chip.name}-{devices * chip.cores_in_name}", self.chips)
                return Slice(chip, devices)
        raise UsageError(
            f"device {kind!r} is no known chip; add it with --chips FILE, with that name among its "
            "aliases"
        )


def _setting(
    plan: Mapping[str, Any], where: Slice, weights: str, sharding: str, software: Software
) -> Setting:
    return Setting(
        find_model(plan["model"]),
        where,
        weights=weights,
        cache="int8" if weights == "int8" else "none",
        compute=_compute(where.chip),
        sharding=sharding,
        slots=plan["slots"],
        cache_length=plan["cache_length"],
        software=software,
    )


def _compute(chip: Chip) -> str:
    return "fp32" if chip.kind == "cpu" else "bf16"


def _scheme(kind: str) -> str:
    """An engine's word for how weights are kept, as a scheme."""
    words = {"bf16": "none", "fp16": "none", "float32": "none", "fp32": "none"}
    return words.get(kind, kind)


def _cpu_of(machine: Mapping[str, Any]) -> Chip:
    """The host of a sweep, with the peaks that it measured or was given."""
    figures = {
        "memory_gib": Figure(1.0, "not known", "", False),
        "bandwidth_gbps": Figure(machine["bandwidth_gbps"], _PEAKS_SOURCE, ""),
        "fp32_tops": Figure(machine["peak_tflops"], _PEAKS_SOURCE, ""),
    }
    return Chip("cpu", str(machine.get("cpu", "CPU")), "cpu", figures)


def _plan_beside(path: Path) -> Mapping[str, Any]:
    ready = path.parent / "ready.json"
    if not ready.exists():
        return {}
    try:
        plan = json.loads(ready.read_text(encoding="utf-8")).get("plan")
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f"cannot read {ready}: {error}") from error
    return plan if isinstance(plan, dict) else {}


def _files(path: Path) -> list[Path]:
    """The records that a path stands for: itself, or those of a folder (its sweep first)."""
    if not path.is_dir():
        return [path]
    for name in ("sweep.json", "offline.json"):
        if (path / name).exists():
            return [path / name]
    found = sorted(
        each for each in path.glob("loadstone-*.json") if not each.name.endswith(".outputs.json")
    )
    if not found:
        raise UsageError(f"{path}: no record (sweep.json, offline.json, loadstone-*.json) in it")
    return found


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    form = document.get("format") if isinstance(document, dict) else None
    if form not in READABLE:
        raise UsageError(f"{path} has the format {form!r}; this reads {', '.join(READABLE)}")
    return document
