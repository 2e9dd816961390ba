"""A calibration as a file: what was fitted, to what, and how far off it is."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from capacity.calibration.fit import Posterior
from capacity.calibration.held_out import HeldOut, summarise
from capacity.timing.efficiency import NAMES, Prior
from client.errors import UsageError
from client.results.files import write_whole

FORMAT = "loadstone-calibration-1"


@dataclass(frozen=True)
class Calibration:
    """`software` and `chip` it was made with; `data` are the measurements as they went in."""

    software: str
    chip: str
    posterior: Posterior
    priors: Mapping[str, Prior]
    data: tuple[Mapping[str, Any], ...]
    summary: Mapping[str, Any]
    created: str


def describe_data(held_out: Sequence[HeldOut]) -> tuple[dict[str, Any], ...]:
    """Each measurement with what the others said of it."""
    return tuple(
        {
            "name": each.observation.name,
            "measured": each.observation.measured,
            "held_out": each.predicted.value,
            "low": each.predicted.low,
            "high": each.predicted.high,
            "error": each.error,
        }
        for each in held_out
    )


def describe_summary(held_out: Sequence[HeldOut]) -> dict[str, Any]:
    """Errors of leaving one out."""
    return asdict(summarise(held_out)) if held_out else {}


def save(calibration: Calibration, path: Path) -> None:
    """Writes it, whole or not at all. UsageError when it cannot be written."""
    posterior = calibration.posterior
    document = {
        "format": FORMAT,
        "software": calibration.software,
        "chip": calibration.chip,
        "created": calibration.created,
        "values": dict(posterior.values),
        "free": list(posterior.free),
        "log_covariance": posterior.covariance.tolist(),
        "noise": posterior.noise,
        "freedom": posterior.freedom,
        "priors": {name: asdict(prior) for name, prior in calibration.priors.items()},
        "held_out": dict(calibration.summary),
        "data": list(calibration.data),
    }
    try:
        write_whole(path, json.dumps(document, indent=1, allow_nan=False) + "\n")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error


def load(path: Path) -> Calibration:
    """Reads one. UsageError when it is none, or of another version."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the calibration {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    form = document.get("format") if isinstance(document, dict) else None
    if form != FORMAT:
        raise UsageError(
            f"{path} has the format {form!r}; a calibration is {FORMAT}, as `python -m capacity "
            "calibrate --out FILE` writes it"
        )
    try:
        return _calibration(document)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path}: a damaged calibration: {error!r}") from error


def _calibration(document: Mapping[str, Any]) -> Calibration:
    values = {name: float(value) for name, value in document["values"].items()}
    unknown = sorted({name.partition("@")[0] for name in values} - set(NAMES))
    if unknown:
        raise ValueError(f"unknown parameters {unknown}; known: {', '.join(NAMES)}")
    free = tuple(document["free"])
    covariance = np.array(document["log_covariance"], dtype=np.float64).reshape(len(free), -1)
    return Calibration(
        software=document["software"],
        chip=document["chip"],
        posterior=Posterior(
            values, free, covariance, float(document["noise"]), float(document["freedom"])
        ),
        priors={name: Prior(**prior) for name, prior in document["priors"].items()},
        data=tuple(document["data"]),
        summary=document["held_out"],
        created=document["created"],
    )
