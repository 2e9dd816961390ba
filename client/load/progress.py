"""The live line of a run."""

import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tqdm import tqdm

from client.targets.exchange import OK, Exchange

_PERIOD_SECONDS = 0.5
_PERIOD_IN_A_LOG = 10.0  # where every drawing stays as a line of its own


class Progress:
    """Draws a bar with tokens per second on the error stream, twice a second, off the hot path."""

    def __init__(self, label: str, enabled: bool) -> None:
        self._label = label
        self._enabled = enabled

    @contextmanager
    def shown(self, exchanges: Sequence[Exchange]) -> Iterator[None]:
        """Shows how far these exchanges are until the block ends."""
        if not self._enabled:
            yield
            return
        bar = tqdm(total=len(exchanges), desc=self._label, unit="req", dynamic_ncols=True)
        drawing = asyncio.create_task(_draw(bar, exchanges))
        try:
            yield
        finally:
            drawing.cancel()
            bar.update(sum(exchange.ended is not None for exchange in exchanges) - bar.n)
            bar.close()


async def _draw(bar: tqdm, exchanges: Sequence[Exchange]) -> None:
    tally, last, before = _Tally(exchanges), time.perf_counter(), 0
    period = _PERIOD_SECONDS if sys.stderr.isatty() else _PERIOD_IN_A_LOG
    while True:
        await asyncio.sleep(period)
        tokens, now = tally.tokens(), time.perf_counter()
        state = f"{(tokens - before) / (now - last):,.0f} tok/s, {tally.in_flight} in flight"
        if tally.failed:
            state += f", {tally.failed} failed"
        bar.set_postfix_str(state, refresh=False)
        bar.update(tally.ended - bar.n)
        bar.refresh()
        last, before = now, tokens


class _Tally:
    """Counts exchanges; the ones that ended are counted once and not looked at again."""

    def __init__(self, exchanges: Sequence[Exchange]) -> None:
        self._open = list(exchanges)
        self._tokens_ended = 0
        self.ended = 0
        self.failed = 0
        self.in_flight = 0

    def tokens(self) -> int:
        """Tokens so far; brings the other counts up to date."""
        still_open, tokens, in_flight = [], 0, 0
        for exchange in self._open:
            if exchange.ended is None:
                still_open.append(exchange)
                tokens += exchange.tokens
                in_flight += exchange.sent is not None
            else:
                self._tokens_ended += exchange.tokens
                self.ended += 1
                self.failed += exchange.status != OK
        self._open, self.in_flight = still_open, in_flight
        return self._tokens_ended + tokens
