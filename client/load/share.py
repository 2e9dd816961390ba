"""The part of a run that one worker does."""

from collections.abc import Sequence
from dataclasses import dataclass

from client.load.health import WorkerHealth
from client.targets.exchange import Answer, Exchange
from client.targets.settings import TargetSettings
from client.workloads.session import Session


@dataclass(frozen=True)
class Plan:
    """When the sessions of a run start, in order.

    `due` in seconds from the start; `concurrency` limits how many sessions run at one time. With a
    None among the times it is a closed loop of `concurrency` users (None: one a session): the first
    times say when they come (None: at the start), and each takes the next session when his last
    one is over. Nothing starts after `stop_after` seconds, later turns of a session neither.
    """

    due: tuple[float | None, ...]
    concurrency: int | None = None
    stop_after: float | None = None


@dataclass(frozen=True)
class Share:
    """Sessions for one worker. `indices[i]` numbers the turns of session i in the whole run.

    `keep_text`: the answers' text is wanted, not only how many tokens came when.
    """

    target: TargetSettings
    sessions: tuple[Session, ...]
    indices: tuple[tuple[int, ...], ...]
    plan: Plan
    real_history: bool = False
    keep_text: bool = True

    @property
    def seconds(self) -> float:
        """An upper bound of how long this can take, each request within its time limit."""
        turns = max((len(session.turns) for session in self.sessions), default=0)
        waits = max((sum(session.delays) for session in self.sessions), default=0.0)
        last = max((due or 0.0 for due in self.plan.due), default=0.0)
        one = turns * self.target.request_timeout + waits
        if self.plan.concurrency is None:
            return last + one
        if self.plan.stop_after is not None:
            return self.plan.stop_after + one
        return last + one * -(-len(self.sessions) // self.plan.concurrency)


@dataclass(frozen=True)
class Tally:
    """How far a worker is."""

    ended: int = 0
    failed: int = 0
    in_flight: int = 0
    tokens: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.ended + other.ended,
            self.failed + other.failed,
            self.in_flight + other.in_flight,
            self.tokens + other.tokens,
        )


@dataclass
class ShareResult:
    """What a worker brings back. Times of the exchanges in seconds from the start of the run.

    `exchanges` and `answers` run along `indices`; the exchanges hold no arrivals any more, the
    answers have them, on the worker's own clock, on which the run `started`. `elapsed` is when the
    last stream ended, or the interrupt. A worker that died is `lost`.
    """

    indices: list[int]
    exchanges: list[Exchange]
    answers: list[Answer]
    elapsed: float
    interrupted: bool
    health: WorkerHealth
    started: float = 0.0
    lost: bool = False


def divide(
    target: TargetSettings,
    sessions: Sequence[Session],
    plan: Plan,
    workers: int,
    real_history: bool = False,
    keep_text: bool = True,
) -> list[Share]:
    """Deals the sessions out to workers, one after another, so that all start evenly.

    The same sessions start at the same times whatever the number of workers. Places are dealt out
    too; there are no more workers than sessions or places.
    """
    workers = max(1, min(workers, len(sessions), plan.concurrency or len(sessions)))
    numbered: list[tuple[int, ...]] = []
    first = 0
    for session in sessions:
        numbered.append(tuple(range(first, first + len(session.turns))))
        first += len(session.turns)
    shares = []
    for worker in range(workers):
        places = plan.concurrency
        if places is not None:
            places = places // workers + (worker < places % workers)
        shares.append(
            Share(
                target=target,
                sessions=tuple(sessions[worker::workers]),
                indices=tuple(numbered[worker::workers]),
                plan=Plan(plan.due[worker::workers], places, plan.stop_after),
                real_history=real_history,
                keep_text=keep_text,
            )
        )
    return shares
