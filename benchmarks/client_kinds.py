"""What a load generator is asked in a comparison, and what it says."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Workload:
    """`streams` in flight, `tokens` each; times in seconds. A short and a long run of so many
    `generations` of streams, one after another."""

    streams: int
    tokens: int
    ttft: float
    itl: float
    generations: tuple[int, int]

    def requests(self, run: int) -> int:
        """Of the short (0) or the long (1) run."""
        return self.streams * self.generations[run]


@dataclass(frozen=True)
class Seen:
    """What a client reports, ms; None where it does not. `itl` over single gaps. `cpu`: its own
    processor ms for each 1,000 tokens while it measured."""

    ttft_p50: float | None
    ttft_p99: float | None
    itl_p99: float | None
    tokens_per_s: float | None
    cpu: float | None = None


# The workload, how many requests, the server's ports by wire, a folder for what it writes.
Runner = Callable[[Workload, int, dict[str, int], Path], Seen]
