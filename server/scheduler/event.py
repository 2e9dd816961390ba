"""What the scheduler tells about a request."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from server.engine.protocol import Finish, Token
from server.scheduler.request import Request


class Cause(Enum):
    """Why a request ended without finishing."""

    CANCELLED = "cancelled"  # its owner gave it up
    DEADLINE = "deadline"
    REJECTED = "rejected"  # the engine refused this request; others go on
    ENGINE_LOST = "engine_lost"
    SHUTDOWN = "shutdown"


@dataclass(frozen=True, slots=True)
class Failure:
    """How a request failed; `message` is for its owner to read."""

    cause: Cause
    message: str


@dataclass(frozen=True, slots=True)
class Event:
    """News of one request: tokens in order, and with the last of its events how it ended."""

    request: Request
    tokens: Sequence[Token]
    end: Finish | Failure | None = None
