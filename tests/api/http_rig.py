"""HTTP clients for tests: OpenAI's own, and bodies sent as they are."""

import http.client
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai

from tests.api.served import BYTES, EOS, PATIENCE, VOCAB, ServerThread, serving
from tests.scheduler.small_engine import SmallEngine, echo
from tokenization import Tokenizer
from tokenization.chat import ChatTemplate

CERTIFICATES = Path(__file__).parent / "certificates"
CHAT_BYTES = replace(
    BYTES, chat=ChatTemplate("{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}")
)
MODEL = "tiny"


@dataclass
class Web:
    """A server's HTTP port."""

    thread: ServerThread

    @property
    def url(self) -> str:
        return self.thread.server.http_url

    def openai(self, key: str = "none", **settings: Any) -> openai.OpenAI:
        """The unmodified client."""
        settings = {"max_retries": 0, "timeout": PATIENCE} | settings
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, **settings)

    def send(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: dict[str, str] | None = None,
        context: ssl.SSLContext | None = None,
    ) -> "Answered":
        """One request on a connection of its own."""
        place = urlsplit(self.url)
        if place.scheme == "https":
            line: http.client.HTTPConnection = http.client.HTTPSConnection(
                place.netloc, timeout=PATIENCE, context=context
            )
        else:
            line = http.client.HTTPConnection(place.netloc, timeout=PATIENCE)
        try:
            line.request(method, path, body, headers or {})
            answer = line.getresponse()
            return Answered(answer.status, dict(answer.headers), answer.read())
        finally:
            line.close()

    def ask(self, path: str, **fields: Any) -> "Answered":
        """A JSON body to an endpoint."""
        return self.send("POST", f"/v1/{path}", json.dumps(fields).encode())


@dataclass
class Answered:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error, of which the shape is checked."""
        (name,) = self.json
        assert name == "error"
        assert self.json["error"].keys() == {"message", "type", "param", "code"}
        return self.json["error"]

    @property
    def events(self) -> list[str]:
        """The data of server-sent events."""
        *events, rest = self.body.decode().split("\n\n")
        assert rest == ""
        assert all(event.startswith("data: ") for event in events)
        return [event.removeprefix("data: ") for event in events]


@contextmanager
def web(
    engine: SmallEngine | None = None, tokenizer: Tokenizer | None = CHAT_BYTES, **settings: Any
) -> Iterator[Web]:
    """A server with an HTTP port."""
    engine = engine or SmallEngine(vocab=VOCAB, eos_ids=frozenset({EOS}), choose=echo)
    with serving(engine, tokenizer, **{"http_port": 0, "model_name": MODEL} | settings) as (_, t):
        yield Web(t)
