"""The command line of targets."""

import argparse
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from client.errors import UsageError
from client.targets.settings import KINDS, TRANSPORTS, TargetSettings

# What other benchmarks call them.
_ALIASES = {
    "vllm": "openai",
    "vllm-chat": "openai-chat",
    "sglang": "openai",
    "sglang-oai": "openai",
    "sglang-oai-chat": "openai-chat",
    "openai-comp": "openai",
}
_PORTS = {"jetstream": 9000, "openai": 8000, "openai-chat": 8000, "in-process": 9000}


def add_target_options(group: argparse._ArgumentGroup) -> None:
    """Adds where the server is and how to reach it; `target_settings` reads it."""
    group.add_argument(
        "--backend", "--target", default="jetstream", metavar="KIND",
        help=f"one of {', '.join(KINDS)} (default: %(default)s); vllm is openai",
    )  # fmt: skip
    group.add_argument(
        "--server", "--host", default="0.0.0.0",
        help="host; 0.0.0.0 is this host (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--port", type=int, help="default: 9000 for jetstream, 8000 for openai and openai-chat"
    )
    group.add_argument("--base-url", metavar="URL", help="instead: http(s)://host:port[/path]")
    group.add_argument(
        "--endpoint", metavar="PATH", help="default: /v1/completions or /v1/chat/completions"
    )
    group.add_argument("--tls", action="store_true", help="encrypt")
    group.add_argument("--ca-file", type=Path, help="certificates to trust (default: the system's)")
    group.add_argument(
        "--api-key-env", metavar="NAME", help="environment variable that holds the bearer key"
    )
    group.add_argument(
        "--header", action="append", default=[], metavar="NAME=VALUE", help="sent with each request"
    )
    group.add_argument(
        "--transport", default="fast", choices=TRANSPORTS,
        help="for jetstream: our own lean gRPC, or grpc.aio (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--connect-timeout", "--ready-check-timeout-sec", type=float, default=120.0,
        help="seconds to wait until the server is ready (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--no-health-check", dest="health_check", action="store_false",
        help="only connect; do not ask whether it is ready",
    )  # fmt: skip
    group.add_argument(
        "--connections", "--channels", type=int,
        help="opened before the clock starts (default: what the load will need)",
    )  # fmt: skip
    group.add_argument(
        "--engine", default="", metavar="OPTIONS",
        help="for in-process: options of `python -m server` in one string",
    )  # fmt: skip


def add_request_options(group: argparse._ArgumentGroup) -> None:
    """Adds how tokens are generated."""
    group.add_argument(
        "--request-timeout", type=float, default=600.0,
        help="seconds a request (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--send", default="text", choices=("text", "tokens"),
        help="form of the prompt (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--served-model-name", metavar="NAME",
        help="model to ask an OpenAI server for (default: the first it lists)",
    )  # fmt: skip
    group.add_argument(
        "--ignore-eos", action="store_true",
        help="generate all tokens asked for (JetStream itself does not know this)",
    )  # fmt: skip
    group.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
    group.add_argument("--top-k", type=int, default=0, help="0 is no limit")
    group.add_argument("--top-p", type=float, default=1.0, help="1 is no limit")
    group.add_argument(
        "--extra-body", metavar="JSON", help="an object put into each OpenAI request"
    )


def target_settings(given: argparse.Namespace) -> TargetSettings:
    """The settings the options ask for. Raises `UsageError` for those that contradict."""
    kind = _ALIASES.get(given.backend, given.backend)
    if kind not in KINDS:
        known = ", ".join([*KINDS, *_ALIASES])
        raise UsageError(f"--backend: one of {known}; got {given.backend!r}")
    if kind == "in-process" and given.send == "text":
        given.send = "tokens"  # nothing stands between: there is no text to send
    values: dict[str, Any] = {
        "server": given.server,
        "port": _PORTS[kind] if given.port is None else given.port,
        "tls": given.tls,
        "path": given.endpoint or "",
    } | _from_url(given, kind)
    if given.transport != "fast" and kind != "jetstream":
        raise UsageError(f"--transport {given.transport} is for --backend jetstream, not {kind}")
    if given.ca_file is not None and not values["tls"]:
        raise UsageError("--ca-file is for --tls or an https:// --base-url; give one of them")
    return TargetSettings(
        kind=kind,
        ca_file=given.ca_file,
        api_key=_api_key(given.api_key_env),
        headers=dict(_pair(text) for text in given.header),
        transport=given.transport,
        connections=1 if given.connections is None else given.connections,
        request_timeout=given.request_timeout,
        connect_timeout=given.connect_timeout,
        health_check=given.health_check,
        model=given.served_model_name,
        send=given.send,
        ignore_eos=given.ignore_eos,
        temperature=given.temperature,
        top_k=given.top_k,
        top_p=given.top_p,
        extra_body=_object("--extra-body", given.extra_body),
        engine=given.engine,
        **values,
    )


def _from_url(given: argparse.Namespace, kind: str) -> dict[str, Any]:
    if given.base_url is None:
        return {}
    if given.port is not None:
        raise UsageError("--base-url and --port both name the port; give one")
    url = urlsplit(given.base_url if "://" in given.base_url else f"http://{given.base_url}")
    try:
        port = url.port
    except ValueError as error:
        raise UsageError(f"--base-url: {error}; got {given.base_url!r}") from None
    if url.scheme not in ("http", "https") or not url.hostname:
        raise UsageError(f"--base-url: http(s)://host:port[/path]; got {given.base_url!r}")
    secure = url.scheme == "https"
    found: dict[str, Any] = {
        "server": url.hostname,
        "port": port or (443 if secure else 80),
        "tls": secure or given.tls,
    }
    prefix = url.path.rstrip("/")
    if prefix and kind != "jetstream":
        rest = given.endpoint or (
            "/v1/chat/completions" if kind == "openai-chat" else "/v1/completions"
        )
        # As OpenAI's own clients have it, a base that ends in /v1 is not given twice.
        found["path"] = prefix + (rest.removeprefix("/v1") if prefix.endswith("/v1") else rest)
    return found


def _api_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        raise UsageError(f"--api-key-env: the environment has no {variable}, or it is empty")
    return key


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"--header: NAME=VALUE; got {text!r}")
    return name.strip(), value.strip()


def _object(option: str, text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{option}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{option}: a JSON object; got {text}")
    return found
