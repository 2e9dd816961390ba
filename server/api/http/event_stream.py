"""A response of server-sent events."""

import asyncio

from aiohttp import web

_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # proxies shall pass chunks on as they come
}


class EventStream:
    """Begins with its first event, so that what fails before has a status of its own.

    A client that takes nothing for `patience` seconds, while more than the socket holds waits for
    it, is hung up on: TimeoutError.
    """

    def __init__(self, request: web.Request, patience: float) -> None:
        self.response = web.StreamResponse(headers=_HEADERS)
        self._request = request
        self._patience = patience
        self._begin = asyncio.Lock()  # choices write side by side

    @property
    def begun(self) -> bool:
        """Whether anything was sent."""
        return self.response.prepared

    async def write(self, data: bytes) -> None:
        """Sends an event. Raises ConnectionError when the client went away."""
        if not self.response.prepared:
            async with self._begin:
                if not self.response.prepared:
                    await self.response.prepare(self._request)
        transport = self._request.transport
        if transport is None or not transport.get_write_buffer_size():
            await self.response.write(data)
            return
        try:
            async with asyncio.timeout(self._patience):
                await self.response.write(data)
        except TimeoutError:
            transport.abort()
            raise

    async def end(self, data: bytes) -> None:
        """Sends the last event."""
        await self.write(data)
        await self.response.write_eof()
