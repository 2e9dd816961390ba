"""An OpenAI chat server that says something else each time, remembers what it was asked, and has
only so many slots.

Run as a process of its own: `python scripted_chat.py --slots 2 --seconds 0.1`; prints its port when
it listens. GET /asked gives what it was asked, in order, as JSON.
"""

import argparse
import asyncio
import json
import time
from typing import Any

from aiohttp import web


class ScriptedChat:
    """A request waits for a slot and holds it `seconds`; a last message with "refuse" is one."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._seconds = given.seconds
        self._slots = asyncio.Semaphore(given.slots)
        self._asked: list[dict[str, Any]] = []

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "scripted"}]})

    async def asked(self, request: web.Request) -> web.Response:
        return web.json_response(self._asked)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        told = body | {"came": time.monotonic(), "answer": f"answer {len(self._asked)}"}
        self._asked.append(told)
        if "refuse" in body["messages"][-1]["content"]:
            return web.json_response({"error": {"message": "I would not"}}, status=500)
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        async with self._slots:
            await asyncio.sleep(self._seconds)
        await response.write(_event({"role": "assistant", "content": ""}))
        # In two parts: the client puts them together.
        await response.write(_event({"content": told["answer"][:4]}))
        await response.write(_event({"content": told["answer"][4:]}, "length"))
        await response.write(b"data: [DONE]\n\n")
        told["left"] = time.monotonic()
        return response


def _event(delta: dict[str, str], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


async def _serve(given: argparse.Namespace) -> None:
    scripted = ScriptedChat(given)
    app = web.Application()
    app.add_routes([
        web.get("/v1/models", scripted.models),
        web.get("/asked", scripted.asked),
        web.post("/v1/chat/completions", scripted.chat),
    ])  # fmt: skip
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    # A test that dies leaves no server behind.
    await asyncio.sleep(120)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--slots", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=0.01)
    asyncio.run(_serve(parser.parse_args()))
