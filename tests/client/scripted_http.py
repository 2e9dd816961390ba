"""An HTTP server that does what the first word of the prompt says (http_scripts.py).

It writes to the socket itself, so that it can do everything that a server should not. Run as a
process of its own: `python scripted_http.py`; prints its port when it listens.
"""

import argparse
import asyncio
import json
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

from http_asked import Asked
from http_scripts import SCRIPTS, tokens


class Server:
    """`connections` counts what was ever opened; asked for at /connections."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._given = given
        self._connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            while await self._answer(reader, writer):
                pass
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        idle = self._given.keep_alive
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), idle)).decode()
        (method, path, _), *lines = (line.split(" ", 2) for line in head.strip().split("\r\n"))
        headers = {name.lower().rstrip(":"): " ".join(value) for name, *value in lines}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if method == "POST":
            asked = Asked(path, json.loads(body), writer)
            return await SCRIPTS.get(asked.script, tokens)(asked)
        if path == "/connections":
            found: Any = self._connections
        elif self._given.key and headers.get("authorization") != f"Bearer {self._given.key}":
            writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
            return True
        elif path.endswith("/models"):
            found = {"data": [{"id": f"model-at{path}"}]}
        else:
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return True
        answer = json.dumps(found)
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer)}\r\n\r\n{answer}".encode())
        return True


async def _serve(given: argparse.Namespace) -> None:
    context = None
    if given.certificates:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*(given.certificates / n for n in ("certificate.pem", "key.pem")))
    server = await asyncio.start_server(Server(given).serve, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    # A test that dies leaves no server behind.
    await asyncio.sleep(120)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--key", help="that GET wants")
    parser.add_argument("--keep-alive", type=float, help="seconds a connection may be idle")
    parser.add_argument("--certificates", type=Path, help="folder; serve with TLS")
    asyncio.run(_serve(parser.parse_args()))
