"""The search for the highest rate that keeps a service level."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from client.errors import UsageError

_FEWEST_REQUESTS = 20
# A rate so low that these take this many times longer than a probe should is not tried.
_LONGEST = 4


@dataclass(frozen=True)
class SearchSettings:
    """`good_share` of the requests must be good. Rates in requests per second.

    The search starts at `start_rate` and doubles until the level is missed or `max_rate` is
    reached (or halves until it is kept or `lowest_rate` is reached), then halves the interval
    between (in the logarithm) until its ends differ by `precision`, with at most `most_probes` runs
    of `probe_seconds` each.
    """

    start_rate: float = 1.0
    max_rate: float = math.inf
    good_share: float = 0.99
    precision: float = 0.05
    probe_seconds: float = 30.0
    most_probes: int = 12

    def __post_init__(self) -> None:
        rules = (
            ("--request-rate", 0 < self.start_rate < math.inf, "requests per second above 0"),
            ("--max-rate", self.max_rate >= self.start_rate, "the first rate or more"),
            ("--good-share", 0 < self.good_share <= 1, "above 0, up to 1"),
            ("--search-precision", 0 < self.precision < 1, "above 0, below 1"),
            ("--probe-seconds", 0 < self.probe_seconds < math.inf, "seconds above 0"),
            ("--most-probes", self.most_probes >= 3, "3 or more"),
        )
        values = (
            self.start_rate, self.max_rate, self.good_share, self.precision, self.probe_seconds,
            self.most_probes,
        )  # fmt: skip
        for (name, held, allowed), value in zip(rules, values, strict=True):
            if not held:
                raise UsageError(f"{name}: {allowed}; got {value}")

    @property
    def lowest_rate(self) -> float:
        """The lowest rate tried: at it a probe takes four times as long as it should."""
        return min(self.start_rate, _FEWEST_REQUESTS / (_LONGEST * self.probe_seconds))

    def requests(self, rate: float) -> int:
        """How many requests a probe at a rate sends."""
        return max(_FEWEST_REQUESTS, round(rate * self.probe_seconds))


@dataclass(frozen=True)
class Probe:
    """One run at one rate. `latency`: p99 end to end, ms.

    `ours`: the client itself was the limit, so the run says nothing of the server.
    """

    rate: float
    met: bool
    latency: float | None
    ours: bool = False


@dataclass
class Search:
    """The probes so far, and what they say. Of two at one rate the last one counts."""

    settings: SearchSettings
    probes: list[Probe] = field(default_factory=list)

    @property
    def highest(self) -> float | None:
        """The highest rate that kept the level, below every rate that missed it."""
        missed = self.missed or math.inf
        return max(
            (each.rate for each in self._last if each.met and each.rate < missed), default=None
        )

    @property
    def missed(self) -> float | None:
        """The lowest rate that did not keep the level, or where the client was the limit."""
        return min((each.rate for each in self._last if not each.met), default=None)

    @property
    def limited(self) -> bool:
        """Whether it was the client that did not let the search go higher."""
        return any(each.ours and each.rate == self.missed for each in self._last)

    @property
    def settled(self) -> bool:
        """Whether what was found is within the precision, or `max_rate` itself."""
        highest, missed = self.highest, self.missed
        if highest is None:
            return False
        if missed is None:
            return highest >= self.settings.max_rate
        return missed / highest <= 1 + self.settings.precision

    @property
    def knee(self) -> float | None:
        """See `knee_of`; of the runs that say something of the server."""
        return knee_of(
            [(each.rate, each.latency) for each in self._last if not each.ours and each.latency]
        )

    def next_rate(self) -> float | None:
        """The rate of the next probe; None when the search is over."""
        settings, probes = self.settings, self.probes
        if not probes:
            return settings.start_rate
        if len(probes) >= settings.most_probes:
            return None
        last = probes[-1]
        if last.ours and sum(each.rate == last.rate for each in probes) == 1:
            return last.rate  # once more: it may have been a hiccup of this machine
        if self.settled:
            return None
        if self.missed is None:
            return min(2 * max(each.rate for each in probes), settings.max_rate)
        if self.highest is None:
            lower = max(self.missed / 2, settings.lowest_rate)
            return lower if lower < self.missed else None
        return math.sqrt(self.missed * self.highest)

    @property
    def _last(self) -> list[Probe]:
        return list({probe.rate: probe for probe in self.probes}.values())


def knee_of(points: Sequence[tuple[float, float]]) -> float | None:
    """The rate at which latency starts to grow faster than the rate.

    Both axes are scaled to 0..1, latency from that at the lowest rate to the highest one there is;
    the knee is the point farthest below the diagonal (V. Satopaa et al., "Finding a Kneedle in a
    Haystack", 2011). None with fewer than three rates, or where latency does not grow.
    """
    ordered = sorted(dict(points).items())
    if len(ordered) < 3:
        return None
    (low, floor), (high, _) = ordered[0], ordered[-1]
    top = max(latency for _, latency in ordered)
    if not top > floor:
        return None
    below = {
        rate: (rate - low) / (high - low) - (latency - floor) / (top - floor)
        for rate, latency in ordered
    }
    best = max(below, key=lambda rate: below[rate])
    return best if below[best] > 0 else None
