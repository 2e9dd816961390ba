"""What the HTTP target sends, and what it wants to know of a server before the first request."""

import asyncio
import json
import time
from pathlib import Path

import pytest
from client_rig import HTTP_SERVER, serving
from http_target_rig import asked, settings_for
from target_rig import asking, prompt, run

from client.errors import NotReadyError

CERTIFICATES = Path(__file__).parents[1] / "api" / "certificates"
KINDS = ["openai", "openai-chat"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_sent(web, kind):
    changes = {
        "temperature": 0.5, "top_k": 3, "top_p": 0.75, "ignore_eos": True,
        "extra_body": {"seed": 7, "temperature": 0.25}, "model": "mine",
    }  # fmt: skip
    (record,) = asked(web.port, [prompt("told é", 9)], kind=kind, **changes)
    said = {
        "openai": {"prompt": "told é"},
        "openai-chat": {"messages": [{"role": "user", "content": "told é"}]},
    }[kind]
    assert json.loads(record.text) == said | {
        "model": "mine", "max_tokens": 9, "stream": True,
        "stream_options": {"include_usage": True}, "temperature": 0.25, "top_p": 0.75,
        "top_k": 3, "ignore_eos": True, "seed": 7,
    }  # fmt: skip


def test_the_first_model_listed_beside_the_endpoint_is_asked(web):
    for path, listed in (
        ("", "/v1/models"),
        ("/some/where/v1/completions", "/some/where/v1/models"),
        ("/generate", "/v1/models"),
    ):
        (record,) = asked(web.port, [prompt("told")], path=path)
        assert json.loads(record.text)["model"] == f"model-at{listed}"


def test_headers_replace_ours_whatever_their_case():
    heard = []

    async def serve(reader, writer):
        heard.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")

    async def opened():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        settings = settings_for(
            server.sockets[0].getsockname()[1], model="m", connections=1, api_key="k",
            headers={"user-AGENT": "us", "X-More": "a: b=c", "authorization": "Basic x"},
        )  # fmt: skip
        await asking(settings, [])
        server.close()

    run(opened())
    names = [line.split(":")[0].lower() for line in heard[0].split("\r\n")[1:-2]]
    assert len(names) == len(set(names))
    assert "user-AGENT: us\r\n" in heard[0]
    assert "X-More: a: b=c\r\n" in heard[0]
    assert "Bearer" not in heard[0]


def test_a_server_that_wants_a_key_says_so_at_once():
    with serving("--key", "right", script=HTTP_SERVER) as keyed:
        for wrong in ({}, {"api_key": "wr0ng-key"}):
            started = time.monotonic()
            with pytest.raises(NotReadyError, match="wants a key") as told:
                asked(keyed.port, [], **wrong)
            assert time.monotonic() - started < 8
            assert "wr0ng" not in str(told.value)
        assert asked(keyed.port, [], api_key="right") == []


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_tls_with_a_certificate_of_ones_own(loop):
    trusted = {"tls": True, "ca_file": CERTIFICATES / "certificate.pem"}
    with serving("--certificates", str(CERTIFICATES), script=HTTP_SERVER) as encrypted:
        prompts = [prompt(each) for each in ("tokens", "halfchunk", "busy", "toend", "cuts")]
        records = asked(encrypted.port, prompts, loop=loop, **trusted)
        causes = [record.cause for record in records]
        assert causes == ["", "connection lost", "HTTP 429", "", ""]
        for wrong in ({"tls": True}, {}):
            with pytest.raises(NotReadyError, match="no ready server"):
                asked(encrypted.port, [], loop=loop, connect_timeout=0.4, **wrong)


def test_a_server_that_lists_nothing_needs_a_name():
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    async def opened(**changes):
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            await asking(settings_for(port, connections=1, **changes), [])
        finally:
            server.close()

    with pytest.raises(NotReadyError, match="--served-model-name"):
        run(opened())
    run(opened(model="mine"))
