"""The search for the highest rate that keeps a service level."""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from client.errors import UsageError

_FEWEST_REQUESTS = 20


@dataclass(frozen=True)
class SearchSettings:
    """`good_share` of the requests must be good. Rates in requests per second.

    The search starts at `start_rate`, doubles until the level is missed or `max_rate` is reached,
    then halves the interval between (in the logarithm) until its ends differ by `precision`, with
    at most `most_probes` runs of `probe_seconds` each.
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

    def requests(self, rate: float) -> int:
        """How many requests a probe at a rate sends."""
        return max(_FEWEST_REQUESTS, round(rate * self.probe_seconds))


@dataclass(frozen=True)
class Probe:
    """One run at one rate. `ours`: the client itself was the limit, so the level says nothing."""

    rate: float
    met: bool
    latency: float | None
    ours: bool = False


@dataclass
class Search:
    """The probes so far, and what they say."""

    settings: SearchSettings
    probes: list[Probe] = field(default_factory=list)

    @property
    def highest(self) -> float | None:
        """The highest rate that kept the level, below every rate that missed it."""
        missed = min((probe.rate for probe in self.probes if not probe.met), default=math.inf)
        return max(
            (each.rate for each in self.probes if each.met and each.rate < missed), default=None
        )

    @property
    def knee(self) -> float | None:
        """See `knee_of`."""
        points = [(each.rate, each.latency) for each in self.probes if each.latency is not None]
        return knee_of(points)

    def next_rate(self) -> float | None:
        """The rate of the next probe; None when the search is over."""
        settings, probes = self.settings, self.probes
        if not probes:
            return settings.start_rate
        if len(probes) >= settings.most_probes:
            return None
        missed = min((each.rate for each in probes if not each.met), default=None)
        highest = self.highest
        if missed is None:
            top = max(each.rate for each in probes)
            return min(2 * top, settings.max_rate) if top < settings.max_rate else None
        if highest is None:
            return missed / 2
        if missed / highest <= 1 + settings.precision:
            return None
        return math.sqrt(missed * highest)


def knee_of(points: Sequence[tuple[float, float]]) -> float | None:
    """The rate at which latency starts to grow faster than the rate.

    Both axes are scaled to 0..1; the knee is the point farthest below the line from the first
    point to the last (V. Satopaa et al., "Finding a Kneedle in a Haystack", 2011). None with fewer
    than three rates, or where latency does not grow.
    """
    ordered = sorted(dict(points).items())
    if len(ordered) < 3:
        return None
    (low, floor), (high, top) = ordered[0], ordered[-1]
    top = max(latency for _, latency in ordered)
    if not top > floor:
        return None
    below = {
        rate: (rate - low) / (high - low) - (latency - floor) / (top - floor)
        for rate, latency in ordered
    }
    best = max(below, key=lambda rate: below[rate])
    return best if below[best] > 0 else None


def add_search_options(group: argparse._ArgumentGroup) -> None:
    """Adds the search; `search_settings` reads it."""
    group.add_argument(
        "--saturation", action="store_true",
        help="find the highest rate that keeps --goodput, from --request-rate (default 1) on",
    )  # fmt: skip
    group.add_argument("--max-rate", type=float, metavar="R", help="of the search")
    group.add_argument(
        "--good-share", type=float, metavar="S", help="of the requests must be good (default: 0.99)"
    )
    group.add_argument(
        "--probe-seconds", type=float, metavar="S", help="of each run of the search (default: 30)"
    )
    group.add_argument(
        "--search-precision", type=float, metavar="P", help="of the rate found (default: 0.05)"
    )
    group.add_argument(
        "--most-probes", type=int, metavar="N", help="runs of the search (default: 12)"
    )


def search_settings(given: argparse.Namespace) -> SearchSettings | None:
    """The settings the options ask for. Raises `UsageError` for those that contradict."""
    asked = {
        "max_rate": given.max_rate,
        "good_share": given.good_share,
        "probe_seconds": given.probe_seconds,
        "precision": given.search_precision,
        "most_probes": given.most_probes,
    }
    kept = {name: value for name, value in asked.items() if value is not None}
    if not given.saturation:
        if kept:
            raise UsageError(f"{', '.join(sorted(kept))}: only with --saturation")
        return None
    if not given.goodput:
        raise UsageError("--saturation needs a service level: --goodput ttft:500 tpot:50")
    for name in ("duration", "stages", "ramp_up_strategy", "num_prompts"):
        if getattr(given, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option}: --saturation chooses rate and length itself; leave it out")
    rate = given.request_rate
    return SearchSettings(start_rate=rate if 0 < rate < math.inf else 1.0, **kept)
