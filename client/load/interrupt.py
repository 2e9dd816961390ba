"""Turns Ctrl-C into a request to stop, so that what was measured can still be written."""

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class LoopInterrupt:
    """While `cancels` is set, an interrupt cancels that; otherwise it asks to stop."""

    def __init__(self) -> None:
        self.cancels: asyncio.Future[Any] | None = None


@contextmanager
def interrupt_event(stop: Callable[[], None]) -> Iterator[LoopInterrupt]:
    """Calls `stop` in the running loop on the first SIGINT or SIGTERM; a second one acts as ever.

    Outside the main thread, where Python takes no signals, it is never called.
    """
    loop, interrupt = asyncio.get_running_loop(), LoopInterrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return

    def hear() -> None:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
        if interrupt.cancels is not None:
            interrupt.cancels.cancel()
        else:
            stop()

    for number in _SIGNALS:
        loop.add_signal_handler(number, hear)
    try:
        yield interrupt
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


@contextmanager
def kept_from_children() -> Iterator[None]:
    """Processes started inside never see SIGINT and SIGTERM: this one hears, and tells them.

    A terminal sends Ctrl-C to all of them, also while they still start. Here a signal waits until
    the block ends.
    """
    # When this first starts, Python lets these signals through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Interrupt:
    """Without a loop: `is_set` after the first SIGINT or SIGTERM; a second one acts as ever."""

    def __init__(self) -> None:
        self.is_set = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.is_set = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
