"""Records of client.benchmark, client.sweep and client.offline as measured runs.

A record of a run says what was asked and what came out; what it ran on stands in the state of a
sweep (`plan`), in `ready.json` beside the record, in the record itself (client.offline), or is
given on the command line.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from capacity.hardware.chip import Chip
from capacity.hardware.slice import Slice
from capacity.models import find_model
from capacity.records.document import OFFLINE, SWEEP, read_document, record_files
from capacity.records.offline import generation, points
from capacity.records.own import RATED, SERVED, OwnRun
from capacity.records.places import Places, VirtualDevices, host_of, with_all_peaks
from capacity.serving.lengths import Lengths
from capacity.serving.rows import completed_lengths
from capacity.work.setting import Setting
from capacity.work.software import find_software
from client.errors import UsageError

_OK, _INVALID = "ok", "invalid"
_LIMIT = "the client was the limit"
_VIRTUAL = "virtual devices of one CPU are not modelled"


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
    """Reads records."""

    places: Places
    given: Given

    def read(self, paths: Sequence[Path]) -> tuple[list[OwnRun], list[str]]:
        """Every run, and notes on what was left out. UsageError for a file that is no record."""
        runs: list[OwnRun] = []
        notes: list[str] = []
        for path in paths:
            for record in record_files(path):
                runs += self._read(record, notes)
        if not runs:
            why = f": {'; '.join(notes)}" if notes else ""
            raise UsageError(f"no measured run in {', '.join(map(str, paths))}{why}")
        return _with_all_peaks(runs), notes

    def _read(self, path: Path, notes: list[str]) -> list[OwnRun]:
        document = read_document(path)
        form = document["format"]
        try:
            if form == SWEEP:
                return list(self._sweep(path, document, notes))
            if form == OFFLINE:
                return list(points(path, document, self.places, notes))
            return self._run(path, document, notes)
        except (KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{path}: a damaged {form}: {error!r}") from error

    def _sweep(self, path: Path, document: dict[str, Any], notes: list[str]) -> Iterator[OwnRun]:
        host = host_of(document["machine"])
        for cell in document["cells"]:
            name = _name_of(cell)
            if cell["status"] == _INVALID:
                notes.append(f"{path.name}: {name}: INVALID: {_LIMIT}")
            if cell["status"] != _OK or not cell.get("record"):
                continue
            try:
                yield self._cell(name, path, cell, host)
            except VirtualDevices:
                notes.append(f"{path.name}: {name}: {_VIRTUAL}")
            except _NoPlan:
                notes.append(f"{path.name}: {name}: the server did not say what it ran on")

    def _cell(self, name: str, path: Path, cell: Mapping[str, Any], host: Chip) -> OwnRun:
        plan, record = cell.get("plan"), path.parent / cell["record"]
        if not plan:
            raise _NoPlan
        where = self.places.devices(plan["device_kind"], plan["devices"], host)
        setting = _setting(
            plan["model"], where, cell["quantize"], None, cell["sharding"], plan["slots"],
            plan["cache_length"], "loadstone",
        )  # fmt: skip
        run = _served(name, setting, record, cell["figures"], read_document(record))
        return replace(run, memory=_held(plan, setting))

    def _run(self, path: Path, document: dict[str, Any], notes: list[str]) -> list[OwnRun]:
        if document.get("verdict") == "INVALID":
            notes.append(f"{path.name}: INVALID: {_LIMIT}")
            return []
        try:
            if document.get("endpoint_type") == "offline":
                return [generation(path, document, self.places)]
            plan = _plan_beside(path)
            run = _served(path.stem, self._described(path, plan), path, document, document)
            return [replace(run, memory=_held(plan, run.setting))]
        except VirtualDevices:
            notes.append(f"{path.name}: {_VIRTUAL}")
            return []

    def _described(self, path: Path, plan: Mapping[str, Any]) -> Setting:
        """From ready.json beside the record and the command line."""
        given = self.given
        model = given.model or plan.get("model")
        slots = given.slots or plan.get("slots")
        length = given.cache_length or plan.get("cache_length")
        if not (model and slots and length and given.weights and (given.slice or plan)):
            known = {
                "--model": model,
                "--slice": given.slice or plan,
                "--batch-size": slots,
                "--cache-length": length,
                "--quantize": given.weights,
            }
            missing = ", ".join(option for option, value in known.items() if not value)
            raise UsageError(
                f"{path}: the record does not say what it ran on, and there is no ready.json "
                f"beside it: give {missing}"
            )
        where = (
            self.places.named(given.slice)
            if given.slice
            else self.places.devices(plan["device_kind"], plan["devices"])
        )
        return _setting(
            model, where, given.weights, given.cache, given.sharding, slots, length, given.software
        )


def _with_all_peaks(runs: Sequence[OwnRun]) -> list[OwnRun]:
    hosts = with_all_peaks(run.setting.slice.chip for run in runs)
    found = []
    for run in runs:
        where = run.setting.slice
        chip = hosts.get(where.chip.title, where.chip)
        setting = replace(run.setting, slice=replace(where, chip=chip))
        found.append(replace(run, setting=setting))
    return found


def _name_of(cell: Mapping[str, Any]) -> str:
    """The same for repeats of a setting."""
    model = (cell.get("plan") or {}).get("model", "a model")
    slots = f"{cell['batch_size']} slots of {cell['cache_length']}"
    return f"{model}, {slots}, {cell['quantize']}, {cell['sharding']}"


class _NoPlan(Exception):
    pass


def _setting(
    model: str,
    where: Slice,
    weights: str,
    cache: str | None,
    sharding: str,
    slots: int,
    cache_length: int,
    software: str,
) -> Setting:
    return Setting(
        find_model(model),
        where,
        weights=weights,
        cache=cache or ("int8" if weights == "int8" else "none"),
        compute="fp32" if where.chip.kind == "cpu" else "bf16",
        sharding=sharding,
        slots=slots,
        cache_length=cache_length,
        software=find_software(software),
    )


def _served(
    name: str,
    setting: Setting,
    record: Path,
    figures: Mapping[str, Any],
    document: Mapping[str, Any],
) -> OwnRun:
    pairs = np.array(completed_lengths(record.with_suffix(".jsonl")))
    rate, sent = document.get("request_rate"), figures.get("sent_request_rate")
    at_once = rate in (None, "inf", 0) and document.get("max_concurrency") is None
    return OwnRun(
        name,
        SERVED if at_once or not sent else RATED,
        setting,
        Lengths(pairs[:, 0], pairs[:, 1], record.name),
        rate=None if at_once else sent,
        runtime_ms=figures.get("mean_tpot_ms"),
        tokens_per_s=figures.get("output_throughput"),
    )


def _held(plan: Mapping[str, Any], setting: Setting) -> float | None:
    """Bytes of weights and cache on a chip, as the server counted them when it started."""
    weights, position = plan.get("weight_bytes"), plan.get("cache_bytes_per_position")
    if not weights or not position:
        return None
    return (weights + setting.slots * setting.cache_length * position) / setting.slice.count


def _plan_beside(path: Path) -> Mapping[str, Any]:
    ready = path.parent / "ready.json"
    if not ready.exists():
        return {}
    try:
        plan = json.loads(ready.read_text(encoding="utf-8")).get("plan")
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f"cannot read {ready}: {error}") from error
    return plan if isinstance(plan, dict) else {}
