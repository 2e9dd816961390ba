"""What a load plan needs of a system under test."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from client.errors import NotReadyError
from client.targets.exchange import Answer, Exchange
from client.workloads.prompt import Prompt

_RETRY_SECONDS = 0.3


class Target(Protocol):
    """A system under test. `open`, `ask` and `close` run on one event loop."""

    async def open(self, report: Callable[[str], None]) -> None:
        """Connects and waits until the system can take requests; `report` gets what it waits for.

        Raises `NotReadyError` when that takes too long.
        """

    def build(self, prompt: Prompt) -> Any:
        """The request as it will be sent; made before the clock starts wherever that is known."""

    async def ask(self, request: Any, exchange: Exchange) -> None:
        """Sends one request and fills in the exchange until its stream ends.

        A failure of the server or the connection ends the exchange with its cause, and is not
        raised. When cancelled it leaves the exchange open, with what had arrived.
        """

    def read(self, exchange: Exchange, text: bool = True) -> Answer:
        """Parses what arrived. Without `text` the answer may leave it out, to be read faster."""

    async def close(self) -> None:
        """Lets go of every connection."""


async def wait_until_ready(
    attempt: Callable[[], Awaitable[str]],
    address: str,
    timeout: float,
    report: Callable[[str], None],
) -> None:
    """Calls `attempt` until it returns no reason for waiting, at most `timeout` seconds.

    Each reason is reported once in a row. Raises `NotReadyError`.
    """
    said = ""
    try:
        async with asyncio.timeout(timeout):
            while reason := await attempt():
                if reason != said:
                    report(f"waiting for the server at {address}: {reason}")
                    said = reason
                await asyncio.sleep(_RETRY_SECONDS)
    except TimeoutError:
        raise NotReadyError(
            f"no ready server at {address} within {timeout:g} s"
            f"{f' ({said})' if said else ''}; is it running, and on this port? "
            "(--connect-timeout waits longer)"
        ) from None
