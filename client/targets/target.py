"""What a load plan needs of a system under test."""

from collections.abc import Callable
from typing import Protocol

from client.targets.exchange import Answer, Exchange
from client.workloads.prompt import Prompt


class Target(Protocol):
    """A system under test. All methods but `read` run on one event loop."""

    async def open(self, report: Callable[[str], None]) -> None:
        """Connects and waits until the system can take requests; `report` gets what it waits for.

        Raises `NotReadyError` when that takes too long.
        """

    async def ask(self, prompt: Prompt, exchange: Exchange) -> None:
        """Sends one request and fills in the exchange until its stream ends.

        A failure of the server or the connection ends the exchange with its cause, and is not
        raised. When cancelled it leaves the exchange open, with what had arrived.
        """

    def read(self, exchange: Exchange) -> Answer:
        """Parses what arrived."""

    async def close(self) -> None:
        """Lets go of every connection."""
