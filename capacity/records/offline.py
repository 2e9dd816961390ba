"""What client.offline measured in process: a batch decoded, or passes without a KV cache."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from capacity.hardware.slice import Slice
from capacity.models import find_model
from capacity.records.document import read_document
from capacity.records.own import FORWARD, STEP, OwnRun
from capacity.records.places import Places, VirtualDevices, host_of
from capacity.serving.cost import MEASURED, Power
from capacity.serving.lengths import Lengths
from capacity.work.forward import Forward
from capacity.work.setting import Setting
from capacity.work.software import SOFTWARE
from server.models.spec import ModelSpec

_GENERATE, _LOSS = "generate", "loss"
_OWN_ENGINE = "loadstone"
_OK = "ok"
# Other engines' words for weights that are kept as they are computed.
_PLAIN = {"float32": "fp32", "fp32": "fp32", "bfloat16": "bf16", "bf16": "bf16", "fp16": "bf16"}


def points(
    path: Path, document: Mapping[str, Any], places: Places, notes: list[str]
) -> Iterator[OwnRun]:
    """Every measured point of an offline.json."""
    settings, host = document["settings"], host_of(document["machine"])
    for cell in document["cells"]:
        if cell["status"] != _OK:
            continue
        name = (
            f"{cell['model']}, {cell['engine']} {cell['kind']} {cell['attention']}, batch "
            f"{cell['batch_size']}, {cell['context']:,} tokens"
        )
        facts = cell["facts"]
        try:
            where = places.devices(facts["device"], facts["devices"], host)
        except VirtualDevices:
            notes.append(f"{path.name}: {name}: virtual devices of one CPU are not modelled")
            continue
        spec = _model(path.parent, cell["model"])
        own = _own(name, spec, cell["engine"], cell["kind"], where, cell["batch_size"])
        own = replace(own, memory=(cell.get("memory") or {}).get("peak_bytes"), power=_power(cell))
        if settings["task"] == _GENERATE:
            ask = read_document(path.parent / cell["record"])["settings"]["ask"]
            yield _decoded(own, ask, cell["figures"])
        else:
            passes = 1 if settings["task"] == _LOSS else settings["new_tokens"]
            yield _passed(own, cell, passes, loss=settings["task"] == _LOSS)


def generation(path: Path, document: Mapping[str, Any], places: Places) -> OwnRun:
    """A batch decoded in process, from its own record. VirtualDevices where it ran on such."""
    ask, facts = document["settings"]["ask"], document["engine"]
    where = places.devices(facts["device"], facts["devices"])
    spec = _model(path.parents[2], document["model_id"])
    own = _own(path.stem, spec, ask["engine"], ask["kind"], where, ask["batch"])
    return _decoded(own, ask, document)


def _model(run: Path, name: str) -> ModelSpec:
    """By name; what `client.offline` knows and the catalogue does not lies in the run's folder."""
    there = run / "models" / name
    return find_model(str(there) if (there / "config.json").exists() else name)


def _own(name: str, model: ModelSpec, engine: str, kind: str, where: Slice, batch: int) -> OwnRun:
    software = SOFTWARE[_OWN_ENGINE if engine == _OWN_ENGINE else "torch"]
    weights, compute = kind, "fp32" if where.chip.kind == "cpu" else "bf16"
    if engine != _OWN_ENGINE and kind in _PLAIN:
        weights, compute = "none", _PLAIN[kind]
    setting = Setting(
        model,
        where,
        weights=weights,
        cache="int8" if weights == "int8" and engine == _OWN_ENGINE else "none",
        compute=compute,
        slots=batch,
        software=software,
    )
    return OwnRun(name, STEP, setting, Lengths(np.array([1]), np.array([1]), name))


def _decoded(own: OwnRun, ask: Mapping[str, Any], figures: Mapping[str, Any]) -> OwnRun:
    rows = [ask["prompts"][row % len(ask["prompts"])] for row in range(ask["batch"])]
    step = figures.get("mean_tpot_ms")
    return replace(
        own,
        setting=replace(own.setting, cache_length=max(rows) + ask["new_tokens"]),
        lengths=Lengths(np.array(rows), np.full(len(rows), ask["new_tokens"]), own.name),
        runtime_ms=step,
        tokens_per_s=ask["batch"] / step * 1e3 if step else None,
    )


def _passed(own: OwnRun, cell: Mapping[str, Any], passes: int, loss: bool) -> OwnRun:
    setting = own.setting
    ours = setting.software.name == _OWN_ENGINE
    forward = Forward(
        setting.model,
        cell["batch_size"],
        cell["context"],
        compute=setting.compute,
        weights=setting.weights,
        loss=loss,
        windowed=ours or "flash" in cell["attention"],
        fused=ours,
    )
    milliseconds = cell["figures"].get("mean_e2el_ms")
    return replace(
        own,
        kind=FORWARD,
        forward=forward,
        runtime_ms=milliseconds / passes if milliseconds else None,
        tokens_per_s=forward.count * passes / milliseconds * 1e3 if milliseconds else None,
    )


def _power(cell: Mapping[str, Any]) -> Power | None:
    """Joules of all runs of a point over their seconds."""
    seconds = sum(run[0] for run in cell.get("runs") or ())
    if not cell.get("joules") or not seconds:
        return None
    return Power(cell["joules"] / seconds, f"{MEASURED}: {cell.get('energy_source')}")
