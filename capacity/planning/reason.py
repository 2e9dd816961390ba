"""Why a setting is not on the list."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from capacity.work.setting import Setting

_SHOWN = 4


@dataclass(frozen=True)
class Reason:
    """kind: what such reasons have in common. distance: how far it is from good, for the nearest to
    be shown first. text: with the numbers.
    """

    kind: str
    setting: Setting
    distance: float
    text: str

    def __str__(self) -> str:
        return f"{describe(self.setting)}: {self.text}"


def describe(setting: Setting) -> str:
    """A setting in a few words."""
    sharding = f", by {setting.sharding}" if setting.slice.count > 1 else ""
    return f"{setting.slice.name} {setting.weights}{sharding}"


def grouped(reasons: Iterable[Reason]) -> list[str]:
    """A line for each kind: how many, and the nearest of each slice."""
    kinds: dict[str, list[Reason]] = {}
    for each in reasons:
        kinds.setdefault(each.kind, []).append(each)
    return [_line(kind, found) for kind, found in kinds.items()]


def _line(kind: str, found: Sequence[Reason]) -> str:
    nearest: dict[str, Reason] = {}
    for each in sorted(found, key=lambda each: each.distance):
        nearest.setdefault(each.setting.slice.name, each)
    shown = list(nearest.values())[:_SHOWN]
    more = len(found) - len(shown)
    rest = f"; and {more:,} more" if more > 0 else ""
    return f"{kind} ({len(found):,}): {'; '.join(map(str, shown))}{rest}"
