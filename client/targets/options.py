"""The command line of targets."""

import argparse
import json
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from client.errors import UsageError
from client.targets.reading import CACHE, possible_transport
from client.targets.settings import ENDPOINTS, KINDS, TRANSPORTS, TargetSettings

# What other benchmarks call them.
_ALIASES = {
    "vllm": "openai",
    "vllm-chat": "openai-chat",
    "sglang": "openai",
    "sglang-oai": "openai",
    "sglang-oai-chat": "openai-chat",
    "openai-comp": "openai",
}
_HOST = "0.0.0.0"
_PORTS = {"jetstream": 9000, "openai": 8000, "openai-chat": 8000, "in-process": 9000}


def add_target_options(group: argparse._ArgumentGroup) -> None:
    """Adds where the server is and how to reach it; `target_settings` reads it."""
    group.add_argument(
        "--backend", "--target", default="jetstream", metavar="KIND",
        help=f"one of {', '.join(KINDS)} (default: %(default)s); vllm is openai",
    )  # fmt: skip
    group.add_argument(
        "--server", "--host", default=_HOST,
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
        "--header", action="append", default=[], metavar="NAME=VALUE",
        help="sent with each request; may come more than once",
    )  # fmt: skip
    group.add_argument(
        "--transport", default="fast", choices=TRANSPORTS,
        help="loop: Python's event loop reads, not a thread in C; grpcio, for jetstream: grpc.aio, "
        "not our lean gRPC (default: %(default)s)",
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
    _check_belonging(given, kind)
    if kind == "in-process" and given.send == "text":
        given.send = "tokens"  # nothing stands between: there is no text to send
    values: dict[str, Any] = {
        "server": given.server,
        "port": _PORTS[kind] if given.port is None else given.port,
        "tls": given.tls,
        "path": given.endpoint or "",
    } | _from_url(given, kind)
    if given.ca_file is not None and not values["tls"]:
        raise UsageError("--ca-file is for --tls or an https:// --base-url; give one of them")
    return TargetSettings(
        kind=kind,
        ca_file=given.ca_file,
        api_key=_api_key(given.api_key_env),
        headers=dict(_pair(text) for text in given.header),
        transport=possible_transport(kind, given.transport, bool(values["tls"])),
        cache_dir=CACHE,
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


def _check_belonging(given: argparse.Namespace, kind: str) -> None:
    """Options that would do nothing are refused."""
    openai = kind in ENDPOINTS
    for option, value, belongs, where in (
        ("--endpoint", given.endpoint, openai, "openai and openai-chat"),
        ("--extra-body", given.extra_body, openai, "openai and openai-chat"),
        ("--engine", given.engine, kind == "in-process", "in-process"),
        ("--base-url", given.base_url, kind != "in-process", "a server"),
    ):
        if value and not belongs:
            raise UsageError(f"{option} is for --backend {where}, not {kind}")
    if given.send == "tokens" and kind == "openai-chat":
        raise UsageError("--send tokens: a chat is sent as text; --backend openai takes tokens")


def _from_url(given: argparse.Namespace, kind: str) -> dict[str, Any]:
    if given.base_url is None:
        return {}
    if given.port is not None or given.server != _HOST:
        option = "--port" if given.port is not None else "--server"
        raise UsageError(f"--base-url and {option} both say where the server is; give one")
    text = given.base_url
    # Not shown: what stands there is often a password or a key.
    if "@" in text or "?" in text or "#" in text:
        raise UsageError(
            "--base-url: http(s)://host:port[/path] and no more; a key goes into --api-key-env"
        )
    try:
        url = urlsplit(text if "://" in text else f"http://{text}")
        port, host = url.port, url.hostname
    except ValueError as error:
        raise UsageError(f"--base-url: {error}; got {text!r}") from None
    if url.scheme not in ("http", "https") or not host:
        raise UsageError(f"--base-url: http(s)://host:port[/path]; got {text!r}")
    secure = url.scheme == "https" or given.tls
    if secure and text.lower().startswith("http://"):
        raise UsageError(f"--tls: not with {text!r}; write https://")
    default = _PORTS[kind] if kind == "jetstream" else 443 if secure else 80
    found = {"server": host, "port": default if port is None else port, "tls": secure}
    return found | _path(url.path.rstrip("/"), given.endpoint, kind)


def _path(prefix: str, endpoint: str | None, kind: str) -> dict[str, str]:
    if not prefix:
        return {}
    if kind == "jetstream":
        raise UsageError(f"--base-url: gRPC has no path; leave out {prefix!r}")
    if endpoint is None and prefix.endswith(ENDPOINTS[kind]):
        return {"path": prefix}
    rest = endpoint or ENDPOINTS[kind]
    # As OpenAI's own clients have it, a base that ends in /v1 is not given twice.
    return {"path": prefix + (rest.removeprefix("/v1") if prefix.endswith("/v1") else rest)}


def _api_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UsageError(f"--api-key-env: the environment has no {variable}, or it is empty")
    return key


def _pair(text: str) -> tuple[str, str]:
    # NAME=VALUE as vLLM has it, or "NAME: VALUE" as curl has it. Values may be keys: not shown.
    found = re.match(r"\s*([^\s=:]+)\s*[=:](.*)", text, re.DOTALL)
    if found is None:
        raise UsageError(f"--header: NAME=VALUE; got {len(text)} letters that are not of this form")
    return found[1], found[2].strip()


def _object(option: str, text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        found = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{option}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{option}: a JSON object; got {text[:80]!r}")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"JSON has no {name}")
