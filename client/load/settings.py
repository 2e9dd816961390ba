"""How hard a run presses."""

import math
from dataclasses import dataclass, field

from client.errors import UsageError
from client.load.arrivals import Arrivals, arrival_times
from client.load.share import Plan
from client.workloads.session import Session

WARMUP_MODES = ("none", "sampled", "full")
# Many servers and proxies allow 100 streams a connection; the rest would be queued or refused.
_STREAMS = 80
# Connections of one stream each: where requests are spread over time, and at most.
_SPREAD, _MOST = 256, 4096


@dataclass(frozen=True)
class LoadSettings:
    """When sessions start, and by whom they are sent.

    `max_concurrency`: sessions at one time; alone it is a closed loop, in which users come one
    after another over `ramp_up_seconds` and each asks again as soon as it has its answer. With a
    rate it is a limit on an open loop. `duration` in seconds. `workers` processes, or with `ray`
    (an address, or "auto") actors on its machines. Before the run comes the first prompt
    `num_warmups` times, or else what `warmup_mode` says. `real_history`: later turns carry what the
    model said, not what the data say.
    """

    arrivals: Arrivals = field(default_factory=Arrivals)
    num_prompts: int | None = None
    duration: float | None = None
    max_concurrency: int | None = None
    ramp_up_seconds: float = 0.0
    workers: int = 1
    ray: str | None = None
    seed: int = 0
    warmup_mode: str = "none"
    num_warmups: int = 0
    real_history: bool = False

    def __post_init__(self) -> None:
        rules = (
            ("--num-prompts", self.num_prompts, 1, "1 or more"),
            ("--max-concurrency", self.max_concurrency, 1, "1 or more"),
            ("--workers", self.workers, 1, "1 or more"),
            ("--seed", self.seed, 0, "0 or more"),
            ("--ramp-up-seconds", self.ramp_up_seconds, 0, "seconds, 0 or more"),
            ("--num-warmups", self.num_warmups, 0, "0 or more"),
        )
        for name, value, least, allowed in rules:
            if value is not None and not least <= value < math.inf:
                raise UsageError(f"{name}: {allowed}; got {value}")
        if self.warmup_mode not in WARMUP_MODES:
            allowed = ", ".join(WARMUP_MODES)
            raise UsageError(f"--warmup-mode: {allowed}; got {self.warmup_mode!r}")
        if self.num_warmups and self.warmup_mode != "none":
            raise UsageError("--num-warmups and --warmup-mode both say how to warm up; give one")
        if self.duration is not None and not 0 < self.duration < math.inf:
            raise UsageError(f"--duration: seconds above 0; got {self.duration}")
        if self.ramp_up_seconds and not self.closed:
            raise UsageError(
                "--ramp-up-seconds is for a closed loop: --max-concurrency without a rate"
            )

    @property
    def closed(self) -> bool:
        """Whether an answer brings the next request."""
        return self.arrivals.at_once and self.max_concurrency is not None

    def sessions_wanted(self, default: int) -> int:
        """How many sessions to prepare; `default` where the options do not say."""
        timed = self.duration is not None and not self.arrivals.at_once
        if self.arrivals.stages or timed:
            counted = self.arrivals.count_in(None if self.arrivals.stages else self.duration)
            if self.num_prompts is not None and self.num_prompts != counted:
                raise UsageError(
                    f"--num-prompts {self.num_prompts}, but the rate gives {counted} requests in "
                    "that time; leave one of them out"
                )
            return counted
        return self.num_prompts or default

    def plan(self, sessions: tuple[Session, ...]) -> Plan:
        """When each session starts. Times that the workload brings stand unless there is a rate.

        Raises `UsageError` for a duration where all are due at once.
        """
        own_end = self.closed or _timed(sessions) or not self.arrivals.at_once
        if self.duration is not None and not own_end:
            raise UsageError(
                "--duration needs --request-rate, --max-concurrency, or data with times of their "
                "own"
            )
        return Plan(self._due(sessions), self.max_concurrency, self._stop_after(sessions))

    def _due(self, sessions: tuple[Session, ...]) -> tuple[float | None, ...]:
        count = len(sessions)
        if _timed(sessions) and self.arrivals.at_once:
            return tuple(session.due for session in sessions)
        if not self.closed:
            timed = self.duration is not None and not self.arrivals.stages
            # As many as the data had: a shorter workload keeps its rate.
            whole = timed and count == self.arrivals.count_in(self.duration)
            if whole:
                times = arrival_times(self.arrivals, None, self.duration, self.seed)
            else:
                times = arrival_times(self.arrivals, count, None, self.seed)
            return tuple(float(time) for time in times)
        places = self.max_concurrency or 1
        gap = self.ramp_up_seconds / places
        return tuple(gap * number if number < places and gap else None for number in range(count))

    def _stop_after(self, sessions: tuple[Session, ...]) -> float | None:
        return self.duration if self.closed or _timed(sessions) else None

    def streams(self, sessions: tuple[Session, ...]) -> int:
        """How many requests of a worker may be under way at one time, as far as one can tell."""
        count = len(sessions)
        spread = not self.arrivals.at_once or _timed(sessions)
        at_once = min(self.max_concurrency or (_SPREAD if spread else count), count)
        return -(-at_once // self.workers)

    def connections(self, kind: str, transport: str, sessions: tuple[Session, ...]) -> int:
        """How many connections each worker opens before the clock starts."""
        each = self.streams(sessions)
        if kind == "jetstream" and transport != "grpcio":
            return 1  # and more where the server says that it allows fewer streams
        if kind == "jetstream":
            return max(-(-4 // self.workers), -(-each // _STREAMS))
        return min(each, _MOST)


def _timed(sessions: tuple[Session, ...]) -> bool:
    return bool(sessions) and all(session.due is not None for session in sessions)
