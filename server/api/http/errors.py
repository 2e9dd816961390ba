"""Errors as OpenAI's clients read them."""

import json

from aiohttp import web

from server.api.refusal import Kind, Refusal

# HTTP status and OpenAI's `type` of an error.
_STATUS = {
    Kind.INVALID: (400, "invalid_request_error"),
    Kind.UNAUTHENTICATED: (401, "authentication_error"),
    Kind.NOT_FOUND: (404, "invalid_request_error"),
    Kind.TOO_LARGE: (413, "invalid_request_error"),
    Kind.QUEUE_FULL: (429, "rate_limit_error"),
    Kind.UNAVAILABLE: (503, "service_unavailable_error"),
    Kind.CANCELLED: (499, "cancelled_error"),
    Kind.DEADLINE: (504, "timeout_error"),
    Kind.FAILED: (500, "server_error"),
}
_CODES = {
    Kind.UNAUTHENTICATED: "invalid_api_key",
    Kind.QUEUE_FULL: "rate_limit_exceeded",
}
RETRY_SECONDS = 1


def error_text(refusal: Refusal) -> str:
    """The JSON of a refusal."""
    status, kind = _STATUS[refusal.kind]
    return _json(refusal.message, kind, refusal.param, _code(refusal, status))


def error_response(refusal: Refusal) -> web.Response:
    """The answer that ends a request which was not begun to be answered."""
    status, _ = _STATUS[refusal.kind]
    headers = {}
    if refusal.kind is Kind.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = "Bearer"
    if status in (429, 503):
        headers["Retry-After"] = str(RETRY_SECONDS)
    return web.Response(
        status=status,
        text=error_text(refusal),
        content_type="application/json",
        headers=headers,
    )


def plain_error(error: web.HTTPException, path: str, method: str) -> web.Response:
    """The same for what aiohttp itself refuses, such as a path that is not served."""
    message = {
        404: f"there is no {path} here; see /v1/models, /v1/completions, /v1/chat/completions",
        405: f"{method} is not allowed for {path}; allowed: {error.headers.get('Allow', '')}",
    }.get(error.status, error.reason)
    allow = error.headers.get("Allow")
    return web.Response(
        status=error.status,
        text=_json(message, "invalid_request_error", None, str(error.status)),
        content_type="application/json",
        headers={"Allow": allow} if allow else None,
    )


def _code(refusal: Refusal, status: int) -> str | None:
    if refusal.kind is Kind.NOT_FOUND:
        return "model_not_found" if refusal.param == "model" else "not_found"
    if refusal.kind is Kind.INVALID:
        return None
    return _CODES.get(refusal.kind, refusal.cause)


def _json(message: str, kind: str, param: str | None, code: str | None) -> str:
    error = {"message": message, "type": kind, "param": param, "code": code}
    return json.dumps({"error": error}, separators=(",", ":"))
