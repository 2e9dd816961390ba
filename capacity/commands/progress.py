"""How far a long command is, on the error stream."""

import sys
from types import TracebackType
from typing import Self

from tqdm import tqdm


class Progress:
    """A bar with the time left; in a log a line now and then. Quiet where it takes no time."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        interval = 0.5 if sys.stderr.isatty() else 10.0
        # `delay`: what is done within a second shows nothing.
        self._bar = tqdm(
            total=total, desc=label, unit=unit, dynamic_ncols=True, delay=1.0, mininterval=interval,
            leave=False,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def stage(self, what: str, done: int, of: int) -> None:
        """As `show`, of a stage with its own total."""
        if self._bar.desc.strip(": ") != what:
            self._bar.reset(of)
            self._bar.set_description(what, refresh=False)
        self.show(done)

    def show(self, done: int) -> None:
        """So much of the total is done."""
        self._bar.update(done - self._bar.n)
