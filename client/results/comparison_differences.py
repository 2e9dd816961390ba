"""Why two sides, or the repeats of one, should not be compared as they are."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from client.results.comparison_formats import FOREIGN_NOTES, OURS
from client.results.comparison_sides import Measured, Side

# What was asked for and of what, whoever measured it.
_ASKED = (
    "model_id", "request_rate", "burstiness", "max_concurrency", "num_prompts", "workload_digest",
    "seed", "counted_by", "goodput", "chip_hour_price", "chips",
)  # fmt: skip
_HOST = ("cpu", "cores", "platform", "python", "loadstone")
# Repeats may ask other prompts.
_MAY_VARY = ("workload_digest", "seed")
# Where a server was and where results went do not change what was measured; the others are above.
_BESIDE = (
    "server", "port", "host", "base_url", "result_dir", "result_filename", "label", "metadata",
    "show_progress", "save_result", "save_request_outputs", "request_outputs_path", "results",
    "connect_timeout", "model", "num_prompts", "prompts", "request_rate", "rate", "seed",
    "burstiness", "max_concurrency",
)  # fmt: skip
_MOST_SETTINGS = 12


def differences(baseline: Side, other: Side) -> list[str]:
    """One sentence for each thing that makes the sides unlike, or one of them doubtful."""
    sides = (baseline,) if baseline is other else (baseline, other)
    return [
        *(warning for side in sides for warning in _doubts(side)),
        *_unlike(baseline, other),
    ]


def check_repeats(side: Side) -> list[str]:
    """What differs between the runs of a side that are meant to be repeats of one setting."""
    first = side.runs[0]
    found: dict[str, str] = {}
    for run in side.runs[1:]:
        for name, one, another in _differing(first, run):
            if name not in _MAY_VARY:
                found.setdefault(name, f"{name} {one} and {another}")
    return list(found.values())


def _doubts(side: Side) -> Iterator[str]:
    for run in side.runs:
        if run.figures.get("verdict") == "INVALID":
            reasons = run.figures.get("verdict_reasons") or ["no reason given"]
            yield f"{run.path} is INVALID: {'; '.join(map(str, reasons))}"
        if run.figures.get("interrupted"):
            yield f"{run.path} was interrupted"
        if failed := run.figures.get("failed"):
            yield f"{run.path}: {failed} requests failed; latencies are those of the others"
    for source in sorted({run.source for run in side.runs} - {OURS}):
        yield f"{side.label} is {FOREIGN_NOTES[source]}"


def _unlike(baseline: Side, other: Side) -> Iterator[str]:
    found: dict[str, tuple[list[str], list[str]]] = {}
    for run in baseline.runs:
        for against in other.runs:
            for name, one, another in _differing(run, against):
                sides = found.setdefault(name, ([], []))
                for values, value in zip(sides, (one, another), strict=True):
                    if value not in values:
                        values.append(value)
    told = list(found.items())
    for name, (ones, others) in told[:_MOST_SETTINGS]:
        if set(ones) != set(others):
            yield f"{name} differs: {', '.join(ones)} against {', '.join(others)}"
    if len(told) > _MOST_SETTINGS:
        yield f"{len(told) - _MOST_SETTINGS} more settings differ"


def _differing(one: Measured, another: Measured) -> Iterator[tuple[str, str, str]]:
    """(name, value, value) of what both records tell and tell differently."""
    first, second = _told(one), _told(another)
    digest = first.get("workload_digest")
    same_workload = digest is not None and digest == second.get("workload_digest")
    for name in first:
        if same_workload and name.startswith("settings.workload."):
            # What was asked is the same, whatever file it was read from.
            continue
        if name in second and first[name] != second[name]:
            yield name, _short(first[name]), _short(second[name])


def _told(run: Measured) -> dict[str, Any]:
    figures = run.figures
    told = {name: figures[name] for name in _ASKED if figures.get(name) is not None}
    # A run of a fixed time sends more where the server is faster.
    if "num_prompts_asked" in figures:
        told["num_prompts"] = figures["num_prompts_asked"]
    # Two ways to write the same rate.
    if isinstance(told.get("request_rate"), int | float):
        told["request_rate"] = float(told["request_rate"])
    if isinstance(host := figures.get("host"), dict):
        told |= {f"host.{name}": host[name] for name in _HOST if host.get(name) is not None}
    if isinstance(settings := figures.get("settings"), dict):
        told |= _flat(settings, "settings")
    return told


def _flat(settings: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if name in _BESIDE:
            continue
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}.{name}")
        else:
            found[f"{prefix}.{name}"] = value
    return found


def _short(value: Any, most: int = 60) -> str:
    text = value if isinstance(value, str) else _plain(value)
    return text if len(text) <= most else text[: most - 3] + "..."


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}:{inner:g}" for name, inner in value.items()) or "none"
    if isinstance(value, Sequence):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
