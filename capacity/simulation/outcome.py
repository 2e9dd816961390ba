"""What came out of a simulation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from capacity.serving.level import Level
from capacity.simulation.log import Log
from capacity.simulation.replica import Replica
from capacity.simulation.traffic import Traffic
from capacity.work.setting import Setting

PERCENTILES = (50, 90, 95, 99)
LATENCIES = ("ttft", "tpot", "queue", "e2el")


@dataclass(frozen=True)
class Outcome:
    """Seconds of each request, NaN for one that had not come so far; a TPOT needs two tokens.

    ttft, queue, e2el: from its arrival to its first token, its slot, its end. duration: from the
    first arrival to the last end. utilisation: share of it that the devices worked; occupancy: of
    their slots that decoded. waiting: still queued when the last request came; unfinished: neither
    ended nor refused, after an interrupt.
    """

    ttft: np.ndarray
    tpot: np.ndarray
    queue: np.ndarray
    e2el: np.ndarray
    outputs: np.ndarray
    duration: float
    completed: int
    completed_tokens: int
    refused: int
    unfinished: int
    most_queued: int
    utilisation: float
    occupancy: float
    steps: int
    reads: int
    tokens: int
    rate: float
    interrupted: bool

    @property
    def ended(self) -> np.ndarray:
        """Which requests have an end, and count in latencies."""
        return np.isfinite(self.e2el)

    @property
    def tokens_per_s(self) -> float:
        """Of completed requests, over the duration."""
        return self.completed_tokens / self.duration if self.duration else 0.0

    def after(self, share: float) -> "Outcome":
        """Latencies without the first `share` of the requests, while the fleet fills up; everything
        else is of the whole."""
        values = {name: getattr(self, name).copy() for name in LATENCIES}
        for value in values.values():
            value[: int(len(value) * share)] = np.nan
        return Outcome(**{**self.__dict__, **values})

    def percentile(self, name: str, percent: float) -> float:
        """Of a latency, in ms; NaN when no request has it."""
        values = getattr(self, name)
        values = values[np.isfinite(values)]
        return float(np.percentile(values, percent)) * 1e3 if len(values) else float("nan")

    def good(self, level: Level) -> float:
        """Share of the requests that came (an interrupt leaves some out) that kept every limit; a
        refused one did not."""
        kept = self.ended.copy()
        for name, limit in (("ttft", level.ttft), ("tpot", level.tpot)):
            if limit is not None:
                # A single token has no TPOT and keeps its limit.
                kept &= ~(getattr(self, name) * 1e3 > limit)
        due = int(self.ended.sum()) + self.refused
        return float(kept.sum()) / due if due else float("nan")

    def figures(self) -> dict[str, Any]:
        """By the names that `client.benchmark` gives them."""
        found: dict[str, Any] = {
            "requests": len(self.outputs),
            "completed": self.completed,
            "refused": self.refused,
            "unfinished": self.unfinished,
            "interrupted": self.interrupted,
            "request_rate": self.rate if np.isfinite(self.rate) else "inf",
            "duration": self.duration,
            "output_throughput": self.tokens_per_s,
            "request_throughput": self.completed / self.duration if self.duration else 0.0,
            "utilisation": self.utilisation,
            "slot_occupancy": self.occupancy,
            "most_queued": self.most_queued,
            "decode_steps": self.steps,
            "prefill_dispatches": self.reads,
        }
        for name in LATENCIES:
            values = getattr(self, name)
            values = values[np.isfinite(values)]
            found[f"mean_{name}_ms"] = float(values.mean()) * 1e3 if len(values) else None
            for percent in PERCENTILES:
                value = self.percentile(name, percent)
                found[f"p{percent}_{name}_ms"] = value if np.isfinite(value) else None
        return found


def outcome_of(
    traffic: Traffic, log: Log, replicas: Sequence[Replica], setting: Setting, interrupted: bool
) -> Outcome:
    """From what each request and each replica went through."""
    admitted, first, ended = (np.array(each) for each in (log.admitted, log.first, log.ended))
    outputs = traffic.outputs
    with np.errstate(invalid="ignore"):
        tpot = np.where(outputs > 1, (ended - first) / np.maximum(outputs - 1, 1), np.nan)
    duration = float(np.nanmax(ended) - traffic.times[0]) if np.isfinite(ended).any() else 0.0
    whole = duration * len(replicas)
    return Outcome(
        ttft=first - traffic.times,
        tpot=tpot,
        queue=admitted - traffic.times,
        e2el=ended - traffic.times,
        outputs=outputs,
        duration=duration,
        completed=int(np.isfinite(ended).sum()),
        completed_tokens=int(outputs[np.isfinite(ended)].sum()),
        refused=len(log.refused),
        unfinished=int((~np.isfinite(ended)).sum()) - len(log.refused),
        most_queued=max(replica.most_queued for replica in replicas),
        utilisation=sum(each.busy for each in replicas) / whole if whole else 0.0,
        occupancy=sum(each.slot_seconds for each in replicas) / (whole * setting.slots)
        if whole
        else 0.0,
        steps=sum(each.steps for each in replicas),
        reads=sum(each.reads for each in replicas),
        tokens=sum(each.tokens for each in replicas),
        rate=traffic.rate,
        interrupted=interrupted,
    )
