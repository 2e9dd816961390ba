"""The live line of a run: how many points are done, the time left, and what goes on."""

import sys
import time
from pathlib import Path

from tqdm import tqdm

from client.sweeping.log import last_line

_PERIOD_SECONDS = 0.5
_PERIOD_IN_A_LOG = 10.0  # where every drawing stays as a line of its own
_WORDS = 60  # letters of the log's last line


class Progress:
    """A bar over points on the error stream."""

    def __init__(self, total: int, done: int) -> None:
        self._bar = tqdm(
            total=total, initial=done, unit="point", dynamic_ncols=True, file=sys.stderr
        )
        self._period = _PERIOD_SECONDS if sys.stderr.isatty() else _PERIOD_IN_A_LOG
        self._label = ""
        self._began = self._drawn = time.monotonic()

    def start(self, label: str) -> None:
        """The next point."""
        self._label = label
        self._began = time.monotonic()

    def tick(self, log: Path) -> None:
        """Draws the line when it is time to."""
        now = time.monotonic()
        if now - self._drawn < self._period:
            return
        self._drawn = now
        words = last_line(log)[:_WORDS]
        self._bar.set_postfix_str(f"{self._label}, {now - self._began:.0f} s: {words}")

    def end(self, result: str) -> None:
        """A line that stays, above the bar."""
        self._bar.write(f"{self._label}: {result}", file=sys.stderr)
        self._bar.set_postfix_str("", refresh=False)
        self._bar.update()

    def close(self) -> None:
        """Takes the bar off."""
        self._bar.close()
