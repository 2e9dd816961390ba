"""How to reach a server and how to ask it."""

import math
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client.errors import UsageError

KINDS = ("jetstream", "openai", "openai-chat", "in-process")
_OPENAI = ("fast", "loop")
# How answers are read.
_TRANSPORTS = {
    "jetstream": ("fast", "loop", "grpcio"),
    "openai": _OPENAI,
    "openai-chat": _OPENAI,
    "in-process": ("fast",),
}
TRANSPORTS = ("fast", "loop", "grpcio")
ENDPOINTS = {"openai": "/v1/completions", "openai-chat": "/v1/chat/completions"}
_ANY_ADDRESS = {"0.0.0.0", "::", "[::]", ""}
_HOST = re.compile(r"[^\s/@?#\\\x00-\x1f\x7f]*")
_PATH = re.compile(r"/[!-~]*")
_KEY = re.compile(r"[!-~]+")
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[\t -~]*")
# What says how a request is framed, or whom it is for.
_HEADERS = {"connection", "content-length", "transfer-encoding", "upgrade"}
_GRPC_HEADERS = _HEADERS | {"content-type", "host", "te", "user-agent"}
_OF_GRPC = re.compile(r"grpc-|.*-bin$", re.IGNORECASE)
_MOST_HEADERS = 8000  # one frame holds them; most servers take no more


def check_transport(kind: str, transport: str) -> None:
    """Raises `UsageError` for one that this kind of target does not have."""
    if transport not in _TRANSPORTS[kind]:
        allowed = ", ".join(_TRANSPORTS[kind])
        raise UsageError(f"--transport {transport} is not for {kind}; for it: {allowed}")


@dataclass(frozen=True)
class TargetSettings:
    """Where the system under test is and how to ask it.

    `kind`: one of KINDS. `connections` are opened before the clock starts, and more where a server
    allows fewer than `streams` on those. `request_timeout` and
    `connect_timeout` in seconds. `send`: "text" or "tokens". Temperature 0 is greedy; top_k 0 and
    top_p 1 are no limit. `path` of an OpenAI endpoint. `api_key` goes out as a bearer key; it and
    the values of `headers` go into no record and no message. `extra_body` is put into every
    request's JSON body. `transport`: "fast"; "loop", where Python's event loop reads and not
    a thread in C; for jetstream also "grpcio". `cache_dir` keeps what is compiled for the thread.
    `engine` are options of `python -m server` for an engine in this process.
    """

    kind: str = "jetstream"
    server: str = "0.0.0.0"
    port: int = 9000
    tls: bool = False
    ca_file: Path | None = None
    api_key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    transport: str = "fast"
    cache_dir: Path | None = None
    connections: int = 1
    streams: int = 1
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
        check_transport(self.kind, self.transport)
        self._check_address()
        self._check_headers()

    def _check_address(self) -> None:
        try:
            known = bool(_HOST.fullmatch(self.server)) and bool(self.server.encode("idna") or 1)
        except UnicodeError:
            known = False
        if not known:
            raise UsageError(f"server: a host name or an address alone; got {self.server!r}")
        if self.path and not _PATH.fullmatch(self.path):
            raise UsageError(f"path: starts with / and holds no spaces; got {self.path!r}")

    def _check_headers(self) -> None:
        # Nothing here shows a value, or a name that may be a value put in the wrong place.
        if self.api_key is not None and not _KEY.fullmatch(self.api_key):
            raise UsageError("the API key: visible ASCII letters without spaces; this one is not")
        forbidden = _GRPC_HEADERS if self.kind == "jetstream" else _HEADERS
        for number, (name, value) in enumerate(self.headers.items(), 1):
            if not _NAME.fullmatch(name):
                raise UsageError(f"header {number}: its name has letters that no header may have")
            if not _VALUE.fullmatch(value):
                raise UsageError(f"header {name}: a value of one line in ASCII; this one is not")
            if name.lower() in forbidden or (self.kind == "jetstream" and _OF_GRPC.match(name)):
                raise UsageError(f"header {name}: the client writes this one itself; leave it out")
        size = sum(len(name) + len(value) for name, value in self.headers.items())
        if size + len(self.api_key or "") > _MOST_HEADERS:
            raise UsageError(f"headers and API key: at most {_MOST_HEADERS:,} letters in all")

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
