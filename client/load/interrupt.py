"""Turns Ctrl-C into an event, so that what was measured can still be written."""

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupt_event() -> Iterator[asyncio.Event]:
    """An event that is set by the first SIGINT or SIGTERM; a second one acts as ever.

    Outside the main thread, where Python takes no signals, it is never set.
    """
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    signals = (signal.SIGINT, signal.SIGTERM)

    def stop() -> None:
        event.set()
        for number in signals:
            loop.remove_signal_handler(number)

    for number in signals:
        loop.add_signal_handler(number, stop)
    try:
        yield event
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
