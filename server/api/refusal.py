"""Answers other than a completion."""

import grpc

from server.scheduler import Cause, EngineLost, Failure, QueueFull, Refused


class Refusal(Exception):
    """Ends a call with a status. `cause` is a short name for the metrics."""

    def __init__(self, status: grpc.StatusCode, message: str, cause: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.cause = cause


def invalid(message: str) -> Refusal:
    """The request asks for something that can never be served as it is."""
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, message, "invalid")


def not_admitted(error: Refused) -> Refusal:
    """The scheduler did not take the request in."""
    if isinstance(error, QueueFull):
        return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error), "queue_full")
    cause = "engine_lost" if isinstance(error, EngineLost) else "shutdown"
    return Refusal(grpc.StatusCode.UNAVAILABLE, str(error), cause)


def failed(failure: Failure) -> Refusal:
    """A request that was taken in failed later."""
    return Refusal(_STATUS[failure.cause], failure.message, failure.cause.value)


_STATUS = {
    Cause.CANCELLED: grpc.StatusCode.CANCELLED,
    Cause.DEADLINE: grpc.StatusCode.DEADLINE_EXCEEDED,
    Cause.REJECTED: grpc.StatusCode.INTERNAL,
    Cause.ENGINE_LOST: grpc.StatusCode.INTERNAL,
    Cause.SHUTDOWN: grpc.StatusCode.UNAVAILABLE,
}
