"""The service level that a fleet is to keep, and what of it a simulation missed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from capacity.serving.lengths import Lengths
from capacity.serving.level import NAMES, Level, least_ms, parse_level
from capacity.simulation.outcome import Outcome
from capacity.work.setting import Setting
from client.errors import UsageError

_FORM = "such as p99_ttft:800 or p50_tpot:40, in ms"
_LIMIT = re.compile(r"p(?P<percent>\d+(\.\d+)?)_(?P<name>[a-z]+):(?P<limit>[\d.]+)$")


@dataclass(frozen=True)
class Limit:
    """A percentile of a latency, in ms, that is not to be exceeded."""

    name: str
    percent: float
    limit: float

    def __str__(self) -> str:
        return f"{self.name.upper()} p{self.percent:g} {self.limit:g} ms"


@dataclass(frozen=True)
class Target:
    """share: of the requests that are to keep every limit of `level`, each by itself. limits: of
    percentiles.
    """

    level: Level = field(default_factory=Level)
    share: float = 0.99
    limits: tuple[Limit, ...] = ()

    @property
    def asks(self) -> bool:
        """Whether there is anything to keep."""
        return bool(self.limits) or self.level != Level()

    @property
    def needs(self) -> tuple[tuple[str, float, float], ...]:
        """(latency, share of the requests, ms): so many have to be within."""
        each = ((name, self.share, getattr(self.level, name)) for name in NAMES)
        found = [(name, share, limit) for name, share, limit in each if limit is not None]
        return (*found, *((each.name, each.percent / 100, each.limit) for each in self.limits))

    def missed(self, outcome: Outcome) -> list[str]:
        """What a simulation did not keep, with the numbers."""
        found = []
        if self.level != Level():
            good = outcome.good(self.level)
            if not good >= self.share:
                found.append(f"{good:.1%} of the requests are good, {self.share:.1%} wanted")
        for each in self.limits:
            value = outcome.percentile(each.name, each.percent)
            if value > each.limit:
                found.append(
                    f"{each.name.upper()} p{each.percent:g} {value:,.1f} ms, limit {each.limit:g}"
                )
        if outcome.refused:
            found.append(f"{outcome.refused:,} requests were refused")
        return found

    def __str__(self) -> str:
        words = [f"{name} {ms:g} ms" for name in NAMES if (ms := getattr(self.level, name))]
        parts = [f"{self.share:.4g} of the requests within {' and '.join(words)}"] if words else []
        return "; ".join([*parts, *map(str, self.limits)]) or "none"


def parse_target(
    goodput: Sequence[str] | None, share: float, latency: Sequence[str] | None
) -> Target:
    """From `--goodput ttft:500 tpot:50`, `--good-share 0.99`, `--latency p99_ttft:800`."""
    if not 0 < share <= 1:
        raise UsageError(f"--good-share: above 0 and at most 1; got {share:g}")
    level = parse_level(goodput) if goodput else Level()
    return Target(level, share, tuple(_limit(text) for text in latency or ()))


def require_possible(target: Target, setting: Setting, lengths: Lengths) -> None:
    """UsageError with the bound when not even requests alone, at every peak, would keep it."""
    impossible = bounds_missed(target, setting, lengths)
    if impossible:
        raise UsageError(
            f"the service level is impossible: {setting.model.name} on {setting.slice.name} takes "
            f"{'; '.join(impossible)} for one request alone with every peak reached; more chips "
            "with --sharding model, fewer bits (--quantize int8) or faster memory lower it"
        )


def bounds_missed(target: Target, setting: Setting, lengths: Lengths) -> list[str]:
    """What cannot be kept, each with the least that is possible."""
    return [
        f"{name.upper()} {least:.3g} ms, limit {limit:g}"
        for name, share, limit in target.needs
        if limit < (least := least_ms(name, setting, lengths, share))
    ]


def _limit(text: str) -> Limit:
    found = _LIMIT.match(text)
    if not found or found["name"] not in NAMES:
        raise UsageError(f"--latency: {_FORM} ({', '.join(NAMES)}); got {text!r}")
    percent, limit = float(found["percent"]), float(found["limit"])
    if not (0 < percent < 100 and limit > 0):
        raise UsageError(f"--latency {text}: a percentile of 0 to 100 and a limit above 0 ms")
    return Limit(found["name"], percent, limit)
