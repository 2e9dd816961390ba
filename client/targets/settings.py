"""How to reach a server and how to ask it."""

import math
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client.errors import UsageError

KINDS = ("jetstream", "openai", "openai-chat", "in-process")
TRANSPORTS = ("fast", "grpcio")
_ANY_ADDRESS = {"0.0.0.0", "::", "[::]", ""}


@dataclass(frozen=True)
class TargetSettings:
    """Where the system under test is and how to ask it.

    `kind`: one of KINDS. `connections` are opened before the clock starts. `request_timeout` and
    `connect_timeout` in seconds. `send`: "text" or "tokens". Temperature 0 is greedy; top_k 0 and
    top_p 1 are no limit. `path` of an OpenAI endpoint. `api_key` goes out as a bearer key and into
    no record. `extra_body` is put into every request's JSON body. `engine` are options of
    `python -m server` for an engine in this process.
    """

    kind: str = "jetstream"
    server: str = "0.0.0.0"
    port: int = 9000
    tls: bool = False
    ca_file: Path | None = None
    api_key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    transport: str = "fast"
    connections: int = 4
    request_timeout: float = 600.0
    connect_timeout: float = 120.0
    health_check: bool = True
    path: str = ""
    model: str | None = None
    send: str = "text"
    ignore_eos: bool = False
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    engine: str = ""

    def __post_init__(self) -> None:
        rules = (
            ("kind", self.kind in KINDS, ", ".join(KINDS)),
            ("transport", self.transport in TRANSPORTS, ", ".join(TRANSPORTS)),
            ("port", 1 <= self.port <= 65535, "1 to 65535"),
            ("connections", self.connections >= 1, "1 or more"),
            ("request_timeout", 0 < self.request_timeout < math.inf, "seconds above 0"),
            ("connect_timeout", 0 < self.connect_timeout < math.inf, "seconds above 0"),
            ("send", self.send in ("text", "tokens"), "text or tokens"),
            ("temperature", 0 <= self.temperature < math.inf, "0 (greedy) or more"),
            ("top_k", self.top_k >= 0, "0 (no limit) or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0, up to 1 (no limit)"),
        )
        for name, held, allowed in rules:
            if not held:
                raise UsageError(f"{name}: {allowed}; got {getattr(self, name)!r}")
        for name, value in self.headers.items():
            if any(letter in name + value for letter in "\r\n\0"):
                raise UsageError(f"header {name!r}: a name and a value of one line each")

    @property
    def host(self) -> str:
        """The host to connect to. The any-address, which a server listens on, is this host."""
        host = "localhost" if self.server in _ANY_ADDRESS else self.server
        return host[1:-1] if host.startswith("[") else host

    @property
    def address(self) -> str:
        """host:port, or that it is this process."""
        if self.kind == "in-process":
            return "this process"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def ssl_context(self, *protocols: str) -> ssl.SSLContext | None:
        """What encrypts the connections, None without TLS. Raises `UsageError`."""
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"cannot read the certificates in {self.ca_file}: {error}") from error
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context
