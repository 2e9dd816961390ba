"""A service level, and whether anything could keep it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from capacity.serving.lengths import Lengths
from capacity.timing.efficiency import IDEAL
from capacity.timing.seconds import step_time
from capacity.work.decode import decode_work, prefill_work
from capacity.work.setting import Setting
from client.errors import UsageError
from client.results.goodput import parse_goodput

NAMES = ("ttft", "tpot")


@dataclass(frozen=True)
class Level:
    """Limits in milliseconds, of means; None where there is none."""

    ttft: float | None = None
    tpot: float | None = None

    def missed(self, found: Mapping[str, float]) -> list[str]:
        """Which limits the estimates, `ttft_ms` and `tpot_ms`, are above."""
        return [
            f"{name} {found[f'{name}_ms']:,.1f} ms, limit {limit:g}"
            for name in NAMES
            if (limit := getattr(self, name)) is not None and found.get(f"{name}_ms", 0.0) > limit
        ]


def parse_level(texts: Sequence[str]) -> Level:
    """`ttft:500 tpot:50`, as client.benchmark reads them. UsageError for anything else."""
    limits = parse_goodput(texts).limits
    unknown = sorted(set(limits) - set(NAMES))
    if unknown:
        raise UsageError(f"--goodput: {', '.join(NAMES)} are estimated; got {', '.join(unknown)}")
    return Level(**limits)


def require_possible(level: Level, setting: Setting, lengths: Lengths) -> None:
    """UsageError when not even a request alone, at every peak, would keep the level."""
    for name in NAMES:
        limit, least = getattr(level, name), least_ms(name, setting, lengths)
        if limit is not None and limit < least:
            raise UsageError(
                f"--goodput {name}:{limit:g} is impossible: {setting.model.name} on "
                f"{setting.slice.name} takes {least:.3g} ms for one request alone with every peak "
                "reached; more chips with --sharding model, fewer bits (--quantize int8) or faster "
                f"memory lower it, or allow {name}:{_ceiling(least)}"
            )


def least_ms(name: str, setting: Setting, lengths: Lengths, share: float | None = None) -> float:
    """The least TTFT or TPOT, in ms, of one request alone with every peak reached: of a mean one,
    or of the shortest prompt that a `share` of the requests do not go beyond.
    """
    inputs = lengths.inputs
    prompt = float(inputs.mean() if share is None else np.quantile(inputs, share, method="lower"))
    if name == "ttft":
        work = prefill_work(setting, prompt)
    else:
        answer = float(lengths.outputs.mean()) if share is None else 0.0
        # Not what this server reads, but what any server has to.
        work = decode_work(setting, 1.0, min(prompt + answer / 2, setting.kept_positions))
    return float(step_time(work, setting.slice, IDEAL).total) * 1e3


def _ceiling(milliseconds: float) -> str:
    """A round number that would be possible, twice the bound."""
    return f"{2 * milliseconds:.2g}"
