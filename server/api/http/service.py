"""The HTTP server: its routes, and what stands before them."""

import asyncio
import importlib.metadata
import logging
import time
from collections.abc import Callable

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from server.api.completions import Completions
from server.api.config import ServerConfig
from server.api.http.answer import Answer
from server.api.http.chats import read_chat
from server.api.http.errors import error_response
from server.api.http.fields import Fields, read_fields
from server.api.http.form import CHAT, COMPLETION, Form
from server.api.http.guards import make_guards
from server.api.http.prompts import read_completion
from server.api.http.question import Question, check_model
from server.api.refusal import Kind, Refusal

_Reader = Callable[[Fields, ServerConfig], Question]
_BACKLOG = 4096  # connections that may wait to be accepted
_BODY_SECONDS = 60.0
_KEEP_ALIVE_SECONDS = 75.0
_GOODBYE_SECONDS = 1.0  # for answers that are not fully sent at shutdown


class HttpService:
    """Serves completions over HTTP, on the event loop it is started in."""

    def __init__(self, completions: Completions) -> None:
        self._completions = completions
        self._config = completions.config
        self._model = completions.config.model_name
        self._created = int(time.time())
        guards = make_guards(self._config.keys, completions.metrics)
        app = web.Application(client_max_size=self._config.max_message_bytes, middlewares=guards)
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._list_models)
        app.router.add_get("/v1/models/{id:.+}", self._show_model)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/version", self._version)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=_wire_logger(),
            handler_cancellation=True,  # a client that goes away gives its request up
            keepalive_timeout=_KEEP_ALIVE_SECONDS,
            shutdown_timeout=_GOODBYE_SECONDS,
        )

    async def start(self, host: str, port: int) -> int:
        """Opens the port and returns it. Raises OSError when it cannot be had."""
        await self._runner.setup()
        certificate = self._config.certificate
        context = certificate.context if certificate is not None else None
        site = web.TCPSite(self._runner, host, port, ssl_context=context, backlog=_BACKLOG)
        try:
            await site.start()
        except OSError:
            await self._runner.cleanup()
            raise
        return self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Closes the port, and shortly after what is still open."""
        await self._runner.cleanup()

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, read_completion, COMPLETION)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, read_chat, CHAT)

    async def _answer(self, request: web.Request, read: _Reader, form: Form) -> web.StreamResponse:
        try:
            fields = read_fields(await self._body(request))
            check_model(fields, self._model)
            question = read(fields, self._config)
        except Refusal as refusal:
            self._completions.metrics.refuse(refusal.cause)
            raise
        return await Answer(self._completions, question, form, self._model).respond(request)

    async def _body(self, request: web.Request) -> bytes:
        most = self._config.max_message_bytes
        too_large = Refusal(
            Kind.TOO_LARGE, f"the body is larger than {most} bytes, this server's most", "too_large"
        )
        if request.content_length is not None and request.content_length > most:
            raise too_large
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                return await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise too_large from error
        except TimeoutError as error:
            raise web.HTTPRequestTimeout(
                reason=f"the body did not come within {_BODY_SECONDS:.0f} s"
            ) from error

    async def _list_models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [self._describe_model()]})

    async def _show_model(self, request: web.Request) -> web.Response:
        asked = request.match_info["id"]
        if asked != self._model:
            check_model(Fields({"model": asked}), self._model)
        return web.json_response(self._describe_model())

    def _describe_model(self) -> dict[str, str | int]:
        return {
            "id": self._model,
            "object": "model",
            "created": self._created,
            "owned_by": "loadstone",
        }

    async def _health(self, request: web.Request) -> web.Response:
        engine = self._completions.engine
        if engine.lost is not None:
            lost = Refusal(Kind.UNAVAILABLE, f"the engine is lost: {engine.lost}", "engine_lost")
            return error_response(lost)
        if engine.draining:
            return error_response(
                Refusal(Kind.UNAVAILABLE, "the server is shutting down", "shutdown")
            )
        return web.json_response({"status": "ok"})

    async def _metrics(self, request: web.Request) -> web.Response:
        page = generate_latest(self._completions.metrics.registry)
        return web.Response(body=page, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": importlib.metadata.version("loadstone")})


def _wire_logger() -> logging.Logger:
    """What goes wrong outside of our handlers, but for bytes that are no HTTP: those are answered,
    and anyone can send them.
    """
    logger = logging.getLogger(__name__)
    logger.addFilter(_is_ours)
    return logger


def _is_ours(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)
