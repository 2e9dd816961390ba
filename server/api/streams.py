"""The bridge from the engine thread to the coroutines that answer."""

import asyncio
from collections.abc import Callable

from server.scheduler import Event, Request


class Stream:
    """Events of one request that wait for its coroutine. Used in the event loop only."""

    __slots__ = ("_events", "_waiter")

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._waiter: asyncio.Future[None] | None = None

    def put(self, event: Event) -> None:
        """Adds an event and wakes the coroutine."""
        self._events.append(event)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def take(self) -> list[Event]:
        """All events that came since the last call, at least one."""
        while not self._events:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        events, self._events = self._events, []
        return events


class Streams:
    """The open streams by request. `sink` may be called from the engine thread, the rest not.

    A step of the engine costs one wake-up of the event loop, however many streams it feeds.
    `watch` sees every batch of events, for the metrics.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, watch: Callable[[list[Event]], None]
    ) -> None:
        self._loop = loop
        self._watch = watch
        self._open: dict[Request, Stream] = {}

    def __len__(self) -> int:
        return len(self._open)

    def open(self, request: Request) -> Stream:
        """Starts to keep the events of a request."""
        stream = self._open[request] = Stream()
        return stream

    def close(self, request: Request) -> None:
        """Events of this request are dropped from now on."""
        del self._open[request]

    def sink(self, events: list[Event]) -> None:
        """Hands events over to the event loop."""
        self._loop.call_soon_threadsafe(self._deliver, events)

    def _deliver(self, events: list[Event]) -> None:
        for event in events:
            stream = self._open.get(event.request)
            if stream is not None:
                stream.put(event)
        self._watch(events)
