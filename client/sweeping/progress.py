"""The live line of a sweep."""

import shutil
import sys
import time
from pathlib import Path

from client.sweeping.log import last_line

_PERIOD_SECONDS = 0.5
_PERIOD_IN_A_LOG = 10.0  # where every drawing stays as a line of its own
_WIDTH_IN_A_LOG = 200


class Progress:
    """Says on the error stream how far a cell is: what runs, for how long, and its last words."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._live = sys.stderr.isatty()
        self._start = time.monotonic()
        self._drawn = self._start

    def tick(self, what: str, log: Path) -> None:
        """Draws the line when it is time to."""
        now = time.monotonic()
        if now - self._drawn < (_PERIOD_SECONDS if self._live else _PERIOD_IN_A_LOG):
            return
        self._drawn = now
        line = f"{self._label}: {what}, {now - self._start:.0f} s: {last_line(log)}"
        width = shutil.get_terminal_size().columns - 1 if self._live else _WIDTH_IN_A_LOG
        self._write(line if len(line) <= width else line[: width - 2] + " …", not self._live)

    def close(self, result: str) -> None:
        """The line that stays."""
        self._write(f"{self._label}: {result}", True)

    def _write(self, line: str, stays: bool) -> None:
        lead = "\r\033[K" if self._live else ""
        print(f"{lead}{line}", end="\n" if stays else "", file=sys.stderr, flush=True)
