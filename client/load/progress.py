"""The live line of a run."""

import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

from client.load.share import Tally

_PERIOD_SECONDS = 0.5
_PERIOD_IN_A_LOG = 10.0  # where every drawing stays as a line of its own


class Progress:
    """Draws a bar with tokens per second on the error stream, off the hot path."""

    def __init__(self, label: str, total: int, enabled: bool) -> None:
        self._bar = tqdm(
            total=total, desc=label, unit="req", dynamic_ncols=True, disable=not enabled
        )
        self._last, self._before = time.perf_counter(), Tally()
        self.period = _PERIOD_SECONDS if sys.stderr.isatty() else _PERIOD_IN_A_LOG

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def show(self, tally: Tally) -> None:
        """Draws how far the run is, if it is time."""
        now = time.perf_counter()
        ended = tally.ended == self._bar.total
        if self._bar.disable or (now - self._last < 0.9 * self.period and not ended):
            return
        rate = (tally.tokens - self._before.tokens) / (now - self._last)
        state = f"{rate:,.0f} tok/s, {tally.in_flight} in flight"
        if tally.failed:
            state += f", {tally.failed} failed"
        self._bar.set_postfix_str(state, refresh=False)
        self._bar.update(tally.ended - self._bar.n)
        self._bar.refresh()
        self._last, self._before = now, tally
