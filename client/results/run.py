"""A finished run, as everything that reports it sees it."""

import math
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from client.options import Options
from client.results.metrics import figures
from client.results.notes import notes
from client.results.records import Outcome, Record
from client.workloads.selection import Selection

# Of one core; above it, messages wait for the client (Python runs on one core at a time).
_BUSY = 0.85


@dataclass(frozen=True)
class Warmup:
    """Requests sent before the run and kept out of its figures."""

    sent: int = 0
    failed: int = 0


@dataclass(frozen=True)
class Run:
    """What was asked and what came back.

    `elapsed` seconds from the start to the end of the last stream (or the interrupt), in which the
    client used `cpu` seconds of processor time. `date`: when it started, local time. `model` and
    `tokenizer` are names.
    """

    options: Options
    selection: Selection
    records: tuple[Record, ...]
    warmup: Warmup
    interrupted: bool
    elapsed: float
    cpu: float
    date: datetime
    model: str
    tokenizer: str

    @property
    def rated(self) -> bool:
        """Whether requests were spread over time."""
        return not math.isinf(self.options.request_rate)

    @property
    def complete(self) -> bool:
        """Whether every request completed."""
        return all(record.outcome is Outcome.COMPLETED for record in self.records)

    @cached_property
    def figures(self) -> dict[str, Any]:
        """Every figure; docs/measuring.md defines them."""
        share = self.cpu / self.elapsed if self.elapsed > 0 else None
        return figures(self.records, self.elapsed) | {
            "client_cpu_seconds": self.cpu,
            "client_cpu_share": share,
        }

    @cached_property
    def notes(self) -> list[str]:
        """What a reader must know to read the figures rightly."""
        found = [*self._workload_notes(), *self._client_notes()]
        return [*found, *notes(self.records, self.options.target.ignore_eos)]

    def _client_notes(self) -> list[str]:
        if self.figures["client_cpu_share"] is None or self.figures["client_cpu_share"] < _BUSY:
            return []
        return [
            "the client was as busy as it can be: latencies and throughput may be its own limit"
        ]

    def _workload_notes(self) -> list[str]:
        found = []
        asked, sent = self.options.num_prompts, len(self.selection.prompts)
        if sent < asked:
            found.append(f"{asked} requests were asked for, but the data supply {sent} prompts")
        if self.selection.most_uses > 1:
            found.append("prompts are used more than once: a server's prefix cache may help it")
        if self.warmup.failed:
            found.append(f"{self.warmup.failed} of {self.warmup.sent} warm-up requests failed")
        return found
