"""A server that speaks OpenAI's completions or chat completions over HTTP."""

import json
from collections.abc import Callable
from typing import Any

from client.errors import NotReadyError
from client.targets.exchange import OK, Answer, Exchange
from client.targets.http1 import HttpAddress, HttpPool, connect_on_loop
from client.targets.openai_answer import read_events, read_failure
from client.targets.reading import open_reading
from client.targets.settings import ENDPOINTS, TargetSettings
from client.targets.target import wait_until_ready
from client.workloads.prompt import Prompt

_PROBE_SECONDS = 5.0


class OpenAITarget:
    """Streams every answer. The model is the one named, else the first the server lists."""

    def __init__(self, settings: TargetSettings) -> None:
        self._settings = settings
        self._model = settings.model
        self._path = settings.path or ENDPOINTS[settings.kind]
        self._models_path = _beside(self._path)
        address = HttpAddress(settings.host, settings.port, settings.ssl_context("http/1.1"))
        self._reading, self._no_reading = open_reading(settings)
        connect = self._reading.connect if self._reading else connect_on_loop
        self._pool = HttpPool(address, settings.connect_timeout, connect)
        self._head = self._headers()

    async def open(self, report: Callable[[str], None]) -> None:
        """Waits until the server lists its models, then opens connections; see `Target.open`."""
        settings = self._settings
        if self._no_reading:
            report(self._no_reading)
        if settings.health_check:
            await wait_until_ready(self._ready, settings.address, settings.connect_timeout, report)
        if self._model is None:
            raise NotReadyError(
                f"the server at {settings.address} lists no model at {self._models_path}; name one "
                "with --served-model-name"
            )

        async def connect() -> str:
            try:
                await self._pool.fill(settings.connections)
            except OSError as error:
                what = str(error) or "no answer"
                return f"cannot open {settings.connections} connections: {what}"
            return ""

        await wait_until_ready(connect, settings.address, settings.connect_timeout, report)

    def build(self, prompt: Prompt) -> bytes:
        """The whole HTTP request."""
        settings = self._settings
        body: dict[str, Any] = {"model": self._model, "max_tokens": prompt.max_tokens}
        if settings.kind == "openai-chat":
            body["messages"] = [{"role": role, "content": text} for role, text in prompt.chat]
        else:
            tokens = settings.send == "tokens"
            body["prompt"] = list(prompt.token_ids) if tokens else prompt.text
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        body |= {"temperature": settings.temperature, "top_p": settings.top_p}
        if settings.top_k:
            body["top_k"] = settings.top_k
        if settings.ignore_eos:
            body["ignore_eos"] = True
        if prompt.seed is not None:
            body["seed"] = prompt.seed
        return self._request("POST", self._path, json.dumps(body | dict(settings.extra_body)))

    async def ask(self, request: bytes, exchange: Exchange) -> None:
        """One request; see `Target.ask`."""
        await self._pool.ask(request, exchange, self._settings.request_timeout)

    def read(self, exchange: Exchange, text: bool = True) -> Answer:
        """Parses the events; see `Target.read`."""
        status = exchange.status
        if status is not None and status.startswith("HTTP "):
            detail = read_failure(exchange.came) or exchange.detail
            return Answer((), failure=(status, detail))
        return read_events(exchange.came, whole=status == OK, text=text)

    async def close(self) -> None:
        """Drops the connections; the server sees its clients go."""
        self._pool.close()
        if self._reading is not None:
            await self._reading.close()

    async def _ready(self) -> str:
        exchange = Exchange()
        await self._pool.ask(self._request("GET", self._models_path), exchange, _PROBE_SECONDS)
        body = b"".join(content for _, content in exchange.came)
        if exchange.status in ("HTTP 401", "HTTP 403"):
            raise NotReadyError(
                f"the server at {self._settings.address} wants a key, or another one; "
                "--api-key-env names the variable that holds it"
            )
        if self._model is not None and exchange.status in ("HTTP 404", "HTTP 405", "HTTP 500"):
            return ""  # it answers; some servers list no models, or fail when they look for them
        if exchange.status != OK:
            return f"{exchange.status} {read_failure(exchange.came) or exchange.detail}".strip()
        self._model = self._model or _first_model(body)
        return ""

    def _headers(self) -> str:
        settings = self._settings
        lines = {
            "Host": settings.address,
            "User-Agent": "loadstone",
            "Content-Type": "application/json",
            "Accept": "text/event-stream, application/json",
        }
        if settings.api_key:
            lines["Authorization"] = f"Bearer {settings.api_key}"
        given = {name.lower() for name in settings.headers}
        lines = {name: value for name, value in lines.items() if name.lower() not in given}
        lines |= settings.headers
        return "".join(f"{name}: {value}\r\n" for name, value in lines.items())

    def _request(self, method: str, path: str, body: str = "") -> bytes:
        content = body.encode()
        head = f"{method} {path} HTTP/1.1\r\n{self._head}Content-Length: {len(content)}\r\n\r\n"
        return head.encode() + content


def _beside(path: str) -> str:
    """Where the models are listed: beside the endpoint, also behind a prefix."""
    for ending in ("/chat/completions", "/completions"):
        if path.endswith(ending):
            return path.removesuffix(ending) + "/models"
    return "/v1/models"


def _first_model(body: bytes) -> str | None:
    try:
        return str(json.loads(body)["data"][0]["id"])
    except (ValueError, LookupError, TypeError):
        return None
