"""Goodput: the requests that met a service level, among all that were due."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

from client.errors import UsageError
from client.results.latency import due_at, e2el, itls, sent_at, tpot, ttft
from client.results.records import Outcome, Record

Since = Literal["scheduled", "sent"]

# One gap in a hundred may be longer than the limit.
_ITL_PERCENTILE = 99


@dataclass(frozen=True)
class ServiceLevel:
    """Limits in milliseconds that a good request keeps, each of them; None is no limit.

    `itl` is a limit on the 99th percentile of the gaps of one request.
    """

    ttft: float | None = None
    tpot: float | None = None
    itl: float | None = None
    e2el: float | None = None

    def __post_init__(self) -> None:
        for name, limit in self.limits.items():
            if not (math.isfinite(limit) and limit > 0):
                raise UsageError(f"--goodput: {name} is milliseconds above 0; got {limit:g}")
        if not self.limits:
            raise UsageError(f"--goodput: {_FORM}; got nothing")

    @property
    def limits(self) -> dict[str, float]:
        """The limits that were given, by name."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: limit for name, limit in given.items() if limit is not None}


OBJECTIVES = tuple(field.name for field in fields(ServiceLevel))
_FORM = f"NAME:MILLISECONDS with the names {', '.join(OBJECTIVES)}, such as ttft:500 tpot:50"


def parse_goodput(words: Sequence[str]) -> ServiceLevel:
    """`ttft:500 tpot:50`, one or more in each word with commas between them, as a service level.

    Raises `UsageError` for another form, an unknown name, a name given twice or a limit that is
    not above 0.
    """
    limits: dict[str, float] = {}
    for pair in (pair for word in words for pair in word.replace(",", " ").split()):
        name, colon, value = pair.partition(":")
        if not colon:
            raise UsageError(f"--goodput: {_FORM}; got {pair!r}")
        if name not in OBJECTIVES:
            raise UsageError(f"--goodput: no objective {name!r}; they are {', '.join(OBJECTIVES)}")
        if name in limits:
            raise UsageError(f"--goodput: {name} is given twice; give one limit for it")
        try:
            limits[name] = float(value)
        except ValueError as error:
            raise UsageError(f"--goodput: {_FORM}; got {pair!r}") from error
    return ServiceLevel(**limits)


def was_due(record: Record) -> bool:
    """Whether a request counts: not one that an interrupt kept from ending or from being sent."""
    return record.outcome in (Outcome.COMPLETED, Outcome.FAILED)


def good(record: Record, level: ServiceLevel, since: Since = "scheduled") -> bool:
    """Whether a request completed and kept every limit.

    TTFT and end-to-end latency count from the time it was due, or from when it was sent. A request
    of a single token has no TPOT and no gaps, and keeps their limits.
    """
    return all(met(record, name, limit, since) for name, limit in level.limits.items())


def met(record: Record, objective: str, limit: float, since: Since = "scheduled") -> bool:
    """Whether a request completed and kept one limit, in milliseconds."""
    if record.outcome is not Outcome.COMPLETED:
        return False
    start = due_at(record) if since == "scheduled" else sent_at(record)
    seconds = _LATENCY[objective](record, start)
    return seconds is None or seconds * 1e3 <= limit


def goodput_figures(
    records: Sequence[Record], duration: float, level: ServiceLevel
) -> dict[str, Any]:
    """Goodput of a run of `duration` seconds.

    `request_goodput`: good requests a second, with latency from the scheduled time, so neither a
    late client nor a server that makes it late is flattered; `request_goodput_from_sent` as vLLM
    counts it. `goodput_share`: good requests of all that were due; a failed one is a missed one.
    `goodput_share_{objective}`: those that kept this limit alone.
    """
    due = [record for record in records if was_due(record)]
    kept = [record for record in due if good(record, level)]
    from_sent = sum(good(record, level, "sent") for record in due)
    return {
        "goodput": level.limits,
        "good": len(kept),
        "good_output_tokens": sum(record.tokens for record in kept),
        "request_goodput": _over(len(kept), duration),
        "request_goodput_from_sent": _over(from_sent, duration),
        "goodput_share": _over(len(kept), len(due)),
        "goodput_share_from_sent": _over(from_sent, len(due)),
        **{
            f"goodput_share_{name}": _over(sum(met(each, name, limit) for each in due), len(due))
            for name, limit in level.limits.items()
        },
    }


def _tail_gap(record: Record) -> float | None:
    gaps = itls(record)
    return float(np.percentile(gaps, _ITL_PERCENTILE)) if gaps.size else None


_LATENCY: Mapping[str, Callable[[Record, float], float | None]] = {
    "ttft": ttft,
    "tpot": lambda record, start: tpot(record),
    "itl": lambda record, start: _tail_gap(record),
    "e2el": e2el,
}


def _over(count: int, whole: float) -> float | None:
    return count / whole if whole > 0 else None
