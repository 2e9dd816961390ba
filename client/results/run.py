"""A finished run, as everything that reports it sees it."""

import math
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from client.load.share import ShareResult
from client.options import Options
from client.results.metrics import figures
from client.results.notes import notes
from client.results.records import Outcome, Record
from client.results.verdict import health_figures, reasons_against
from client.targets.exchange import CLIENT_LIMIT
from client.workloads.workload import Workload


@dataclass(frozen=True)
class Warmup:
    """Requests sent before the run and kept out of its figures."""

    sent: int = 0
    failed: int = 0


@dataclass(frozen=True)
class Run:
    """What was asked and what came back.

    `results` are the workers'. `date`: when it started, local time. `model` and `tokenizer` are
    names. `calibration` is what this host keeps, if it does.
    """

    options: Options
    workload: Workload
    records: tuple[Record, ...]
    results: tuple[ShareResult, ...]
    warmup: Warmup
    date: datetime
    model: str
    tokenizer: str
    calibration: dict[str, Any] | None

    @property
    def rated(self) -> bool:
        """Whether requests were spread over time."""
        return not self.options.load.arrivals.at_once

    @property
    def timed(self) -> bool:
        """Whether requests had times of their own: a rate's, or those of the data."""
        return self.rated or any(session.due is not None for session in self.workload.sessions)

    @property
    def complete(self) -> bool:
        """Whether every request completed."""
        return all(record.outcome is Outcome.COMPLETED for record in self.records)

    @property
    def interrupted(self) -> bool:
        """Whether it was cut short."""
        return any(result.interrupted for result in self.results)

    @property
    def elapsed(self) -> float:
        """Seconds from the start to the end of the last stream, or the interrupt."""
        return max(result.elapsed for result in self.results)

    @cached_property
    def figures(self) -> dict[str, Any]:
        """Every figure; docs/measuring.md defines them."""
        wanted = self.options.results
        found = figures(
            self.records,
            self.elapsed,
            percentiles=wanted.percentiles,
            level=wanted.level,
            price=wanted.price,
        )
        return found | {
            "client_cpu_seconds": self.health["cpu_seconds"],
            "client_cpu_share": self.health["cpu_share"],
        }

    @cached_property
    def health(self) -> dict[str, Any]:
        """How the client itself did."""
        return health_figures([result.health for result in self.results])

    @cached_property
    def reasons(self) -> list[str]:
        """Why the run is INVALID; nothing when it is VALID."""
        arrivals = self.options.load.arrivals
        capped = self.options.load.max_concurrency is not None
        # A ramp or stages have no one rate, and turns of a conversation follow none.
        turns = len(self.records) > len(self.workload.sessions)
        steady = not math.isinf(arrivals.rate) and not turns and not capped
        return reasons_against(
            self.figures,
            [result.health for result in self.results],
            rate=arrivals.rate if steady else None,
            timed=self.timed and not capped,
            lost=sum(result.lost for result in self.results),
            own_failures=sum(record.cause == CLIENT_LIMIT for record in self.records),
        )

    @property
    def verdict(self) -> str:
        """VALID, or INVALID: the figures say more of the client than of the server."""
        return "INVALID" if self.reasons else "VALID"

    @cached_property
    def notes(self) -> list[str]:
        """What a reader must know to read the figures rightly."""
        found = self._workload_notes()
        return [*found, *notes(self.records, self.options.target.ignore_eos)]

    def _workload_notes(self) -> list[str]:
        found = []
        asked, had = self.options.prompts, len(self.workload.sessions)
        if had < asked:
            found.append(f"{asked} requests were asked for, but the data supply {had} prompts")
        load = self.options.load
        cut = self.interrupted or any(result.lost for result in self.results)
        if load.closed and load.duration is not None and self.elapsed < load.duration and not cut:
            found.append(f"the {had} prompts were used up before {load.duration:g} s were over")
        if self.workload.most_uses > 1:
            found.append("prompts are used more than once: a server's prefix cache may help it")
        if self.warmup.failed:
            found.append(f"{self.warmup.failed} of {self.warmup.sent} warm-up requests failed")
        return found
