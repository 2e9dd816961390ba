"""Answers other than a completion."""

from enum import Enum

from server.scheduler import Cause, EngineLost, Failure, QueueFull, Refused


class Kind(Enum):
    """What sort of refusal it is; each wire has its own status for it."""

    INVALID = "invalid"
    UNAUTHENTICATED = "unauthenticated"
    NOT_FOUND = "not_found"
    TOO_LARGE = "too_large"
    QUEUE_FULL = "queue_full"
    UNAVAILABLE = "unavailable"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    FAILED = "failed"


class Refusal(Exception):
    """Ends a call. `cause` is a short name for the metrics, `param` the field that was wrong."""

    def __init__(self, kind: Kind, message: str, cause: str, param: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.cause = cause
        self.param = param


def invalid(message: str, param: str | None = None) -> Refusal:
    """The request asks for something that can never be served as it is."""
    return Refusal(Kind.INVALID, message, "invalid", param)


def not_admitted(error: Refused) -> Refusal:
    """The scheduler did not take the request in."""
    if isinstance(error, QueueFull):
        return Refusal(Kind.QUEUE_FULL, str(error), "queue_full")
    cause = "engine_lost" if isinstance(error, EngineLost) else "shutdown"
    return Refusal(Kind.UNAVAILABLE, str(error), cause)


def failed(failure: Failure) -> Refusal:
    """A request that was taken in failed later."""
    return Refusal(_KINDS[failure.cause], failure.message, failure.cause.value)


_KINDS = {
    Cause.CANCELLED: Kind.CANCELLED,
    Cause.DEADLINE: Kind.DEADLINE,
    Cause.REJECTED: Kind.FAILED,
    Cause.ENGINE_LOST: Kind.FAILED,
    Cause.SHUTDOWN: Kind.UNAVAILABLE,
}
