"""A request to the scripted HTTP server, and the ways to answer it down to the last byte."""

import asyncio
import json
from collections.abc import Iterable
from typing import Any

PIECES = ("a", "é", "漢", "😀b")
CHUNKED = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Asked:
    """One request, and the socket it came from. A script returns whether the socket stays open."""

    def __init__(self, path: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        self.chat = path.endswith("/chat/completions")
        self.tokens = body["max_tokens"]
        self.body = body
        self.writer = writer
        prompt = body["messages"][-1]["content"] if self.chat else body["prompt"]
        self.script = prompt.split(" ")[0]

    async def write(self, data: bytes | str) -> None:
        self.writer.write(data.encode() if isinstance(data, str) else data)
        await self.writer.drain()

    async def chunk(self, data: bytes) -> None:
        await self.write(b"%x\r\n%s\r\n" % (len(data), data))

    async def chunks(self, parts: Iterable[bytes], pause: float = 0.0) -> bool:
        """A whole chunked answer."""
        await self.write(CHUNKED)
        for part in parts:
            await self.chunk(part)
            await asyncio.sleep(pause)
        await self.write("0\r\n\r\n")
        return True

    async def document(self, status: str, body: bytes, more: str = "") -> bool:
        """A whole answer of known length."""
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
        await self.write(head.encode() + body)
        return True

    def choice(self, text: str | None, finish: str | None = None, **more: Any) -> dict[str, Any]:
        """An event with a choice; the text in the manner of the endpoint."""
        said = {"delta": {"content": text}} if self.chat else {"text": text}
        return {"choices": [{"index": 0, "finish_reason": finish} | said | more]}

    def usage(self, tokens: int) -> dict[str, Any]:
        return {"prompt_tokens": 3, "completion_tokens": tokens}

    def texts(self, count: int | None = None) -> list[dict[str, Any]]:
        """An event a token; the last with its reason if it is the last."""
        count = self.tokens if count is None else count
        return [
            self.choice(PIECES[index % 4], "length" if index == self.tokens - 1 else None)
            for index in range(count)
        ]

    def ending(self) -> list[dict[str, Any] | str]:
        return [{"choices": [], "usage": self.usage(self.tokens)}, "[DONE]"]


def sse(event: dict[str, Any] | str, end: str = "\n") -> bytes:
    """An event on the wire, its text not escaped."""
    data = event if isinstance(event, str) else json.dumps(event, ensure_ascii=False)
    return f"data: {data}{end}{end}".encode()


def whole(asked: Asked) -> bytes:
    return b"".join(sse(event) for event in [*asked.texts(), *asked.ending()])
