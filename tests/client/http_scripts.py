"""What the scripted HTTP server does, right and wrong, by the name that a prompt begins with."""

import asyncio
import gzip
import json
import socket
import struct
from collections.abc import Awaitable, Callable

from http_asked import CHUNKED, PIECES, Asked, sse, whole

_JSON = "Content-Type: application/json\r\n"
_TO_THE_END = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
_HTML = b"<html><body>\nBad gateway\n</body></html>\n"


async def tokens(asked: Asked) -> bool:
    opening = [{"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}]
    events = [*(opening if asked.chat else []), *asked.texts(), *asked.ending()]
    return await asked.chunks((sse(event) for event in events), pause=0.002)


async def cuts(asked: Asked) -> bool:
    """Chunks of 5 bytes, in pieces of 3: in characters, in `data:`, in the size of a chunk."""
    body = whole(asked)
    parts = [body[at : at + 5] for at in range(0, len(body), 5)]
    wire = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    await asked.write(CHUNKED)
    for at in range(0, len(wire), 3):
        await asked.write(wire[at : at + 3])
        await asyncio.sleep(0)
    return True


async def several(asked: Asked) -> bool:
    return await asked.chunks([whole(asked)])


async def crlf(asked: Asked) -> bool:
    events = [*asked.texts(), *asked.ending()]
    return await asked.chunks(sse(event, end="\r\n") for event in events)


async def comments(asked: Asked) -> bool:
    parts = [b"\xef\xbb\xbf: hello\n\n", b"retry: 10\n\n"]
    for number, event in enumerate(asked.texts()):
        parts += [b": still here\n\n", b"id: %d\nevent: message\nx-of-ours: 1\n" % number]
        parts += [sse(event), b"data:\n\n"]
    return await asked.chunks([*parts, *(sse(event) for event in asked.ending())])


async def nodone(asked: Asked) -> bool:
    events = [*asked.texts(), *asked.ending()[:1]]
    return await asked.chunks([b"".join(map(sse, events)).rstrip(b"\n")])


async def nousage(asked: Asked) -> bool:
    return await asked.chunks(sse(event) for event in [*asked.texts(), "[DONE]"])


async def usageeach(asked: Asked) -> bool:
    events = [
        event | {"usage": asked.usage(number)} for number, event in enumerate(asked.texts(), 1)
    ]
    return await asked.chunks(sse(event) for event in [*events, "[DONE]"])


async def usagenull(asked: Asked) -> bool:
    events = [event | {"usage": None} for event in asked.texts()]
    return await asked.chunks(sse(event) for event in [*events, "[DONE]"])


async def emptytext(asked: Asked) -> bool:
    """Every second token is half a character, which makes no text yet."""
    events = asked.texts()
    for event in events[::2]:
        event.update(asked.choice(""))
    return await asked.chunks(sse(event) for event in [*events, *asked.ending()])


async def ids(asked: Asked) -> bool:
    for number, event in enumerate(events := asked.texts()):
        event["choices"][0]["token_ids"] = [number, number + 100]
    return await asked.chunks(sse(event) for event in [*events, "[DONE]"])


async def reasoning(asked: Asked) -> bool:
    """Thoughts under both their names, then an answer."""
    thought = {"reasoning_content": "hm", "reasoning": "hm"}
    said = {"delta": thought} if asked.chat else thought
    thoughts = [{"choices": [{"index": 0, "finish_reason": None} | said]}] * 2
    return await asked.chunks(sse(event) for event in [*thoughts, *asked.texts(), "[DONE]"])


async def timed(asked: Asked) -> bool:
    last = {"choices": [], "timing": {"queue_seconds": 0.25, "prefill_seconds": 0.5}}
    foreign = {"choices": [], "timing": {"total": 3}}
    return await asked.chunks(
        sse(event) for event in [foreign, *asked.texts(), last, *asked.ending()]
    )


async def errorevent(asked: Asked) -> bool:
    error = {"error": {"message": "out of memory", "code": 500}}
    return await asked.chunks(sse(event) for event in [*asked.texts(2), error, "[DONE]"])


async def errorobject(asked: Asked) -> bool:
    error = {"object": "error", "message": "out of memory", "code": 500}
    return await asked.chunks(sse(event) for event in [*asked.texts(2), error, "[DONE]"])


async def errorline(asked: Asked) -> bool:
    """An error that is no event."""
    parts = [sse(event) for event in asked.texts(2)]
    return await asked.chunks([*parts, b'{"error": {"message": "out of memory"}}\n'])


async def cutoff(asked: Asked) -> bool:
    return await asked.chunks(sse(event) for event in asked.texts(2))


async def nothing(asked: Asked) -> bool:
    return await asked.chunks([b": wait\n\n", sse("[DONE]")])


async def busy(asked: Asked) -> bool:
    body = json.dumps({"error": {"message": "slow down", "code": "busy"}}).encode()
    return await asked.document("429 Too Many Requests", body, _JSON)


async def failing(asked: Asked) -> bool:
    return await asked.document("500 Internal Server Error", _HTML)


async def stranger(asked: Asked) -> bool:
    return await asked.document("401 Unauthorized", b'{"detail": "who are you?"}', _JSON)


async def elsewhere(asked: Asked) -> bool:
    return await asked.document("307 Temporary Redirect", b"", "Location: /v2/completions\r\n")


async def emptied(asked: Asked) -> bool:
    await asked.write("HTTP/1.1 204 No Content\r\n\r\n")
    return True


async def document(asked: Asked, indent: int | None = None) -> bool:
    """The whole answer at once, as without streaming."""
    text = "".join(PIECES[index % 4] for index in range(asked.tokens))
    said = {"message": {"role": "assistant", "content": text}} if asked.chat else {"text": text}
    answer = {"choices": [{"index": 0, "finish_reason": "stop"} | said]}
    answer["usage"] = asked.usage(asked.tokens)
    return await asked.document("200 OK", json.dumps(answer, indent=indent).encode(), _JSON)


async def pretty(asked: Asked) -> bool:
    return await document(asked, indent=2)


async def page(asked: Asked) -> bool:
    return await asked.document("200 OK", _HTML, "Content-Type: text/html\r\n")


async def toend(asked: Asked) -> bool:
    await asked.write(_TO_THE_END)
    await asked.write(whole(asked))
    return False


async def toendcut(asked: Asked) -> bool:
    await asked.write(_TO_THE_END)
    await asked.write(b"".join(map(sse, asked.texts(2))) + b'data: {"choi')
    return False


async def halfchunk(asked: Asked) -> bool:
    await asked.write(CHUNKED)
    for event in asked.texts(2):
        await asked.chunk(sse(event))
    await asked.write(b'ff\r\ndata: {"choi')
    return False


async def shortened(asked: Asked) -> bool:
    await asked.write("HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
    await asked.write(b"".join(map(sse, asked.texts(2))))
    return False


async def slammed(asked: Asked) -> bool:
    """A reset in the middle of a stream."""
    await asked.write(CHUNKED)
    for event in asked.texts(2):
        await asked.chunk(sse(event))
    await asyncio.sleep(0.1)
    at_once = struct.pack("ii", 1, 0)
    asked.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
    asked.writer.transport.abort()
    return False


async def hangup(asked: Asked) -> bool:
    return False


async def garbage(asked: Asked) -> bool:
    await asked.write(bytes(range(255, 0, -1)))
    return True


async def badchunk(asked: Asked) -> bool:
    await asked.write(CHUNKED)
    for event in asked.texts(2):
        await asked.chunk(sse(event))
    await asked.write(b"zz\r\nwhat\r\n")
    return True


async def badevent(asked: Asked) -> bool:
    events = [*asked.texts(2), "{not json", *asked.texts(1), "[DONE]"]
    return await asked.chunks(sse(event) for event in events)


async def badline(asked: Asked) -> bool:
    parts = [sse(event) for event in asked.texts()]
    return await asked.chunks([*parts[:2], b"\x00\xff what\n", *parts[2:]])


async def badids(asked: Asked) -> bool:
    events = [asked.choice("a", token_ids=["a", None]), *asked.texts()]
    return await asked.chunks(sse(event) for event in events)


async def deep(asked: Asked) -> bool:
    return await asked.chunks([sse("[" * 100_000)])


async def silent(asked: Asked) -> bool:
    await asyncio.sleep(60)
    return False


async def headersonly(asked: Asked) -> bool:
    await asked.write(CHUNKED)
    return await silent(asked)


async def stuck(asked: Asked) -> bool:
    await asked.write(CHUNKED)
    for event in asked.texts(2):
        await asked.chunk(sse(event))
    await asked.write(b'ff\r\ndata: {"choi')
    return await silent(asked)


async def closing(asked: Asked) -> bool:
    """Says nothing of it, and closes the connection after the answer."""
    await tokens(asked)
    return False


async def continued(asked: Asked) -> bool:
    await asked.write("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
    await asyncio.sleep(0.02)
    return await tokens(asked)


async def switched(asked: Asked) -> bool:
    await asked.write("HTTP/1.1 101 Switching\r\nUpgrade: foo\r\nConnection: upgrade\r\n\r\nfoo")
    return True


async def drip(asked: Asked) -> bool:
    """A byte at a time."""
    body = whole(asked)
    answer = CHUNKED.encode() + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    for at in range(len(answer)):
        await asked.write(answer[at : at + 1])
        await asyncio.sleep(0)
    return True


async def zipped(asked: Asked) -> bool:
    body = gzip.compress(whole(asked))
    return await asked.document("200 OK", body, "Content-Encoding: gzip\r\n")


async def endless(asked: Asked) -> bool:
    await asked.write(CHUNKED)
    while True:
        await asked.chunk(b"x" * 4096)
        await asyncio.sleep(0.01)


async def twice(asked: Asked) -> bool:
    """A second answer, which nobody asked for, in the same packet and after it."""
    more = b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"choices":'
    await asked.write(_TO_THE_END.replace("Connection: close", "Transfer-Encoding: chunked"))
    body = whole(asked)
    await asked.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) + more)
    await asyncio.sleep(0.05)
    await asked.write(b" 1234567}")
    return True


async def told(asked: Asked) -> bool:
    """The request's body, as text."""
    event = asked.choice(json.dumps(asked.body, sort_keys=True), "stop")
    return await asked.chunks(sse(each) for each in [event, "[DONE]"])


Script = Callable[[Asked], Awaitable[bool]]
SCRIPTS: dict[str, Script] = {
    each.__name__: each
    for each in (
        tokens, cuts, several, crlf, comments, nodone, nousage, usageeach, usagenull, emptytext,
        ids, reasoning, timed, errorevent, errorobject, errorline, cutoff, nothing, busy, failing,
        stranger, elsewhere, emptied, document, pretty, page, toend, toendcut, halfchunk,
        shortened, slammed, hangup, garbage, badchunk, badevent, badline, badids, deep, silent,
        headersonly, stuck, closing, continued, switched, drip, zipped, endless, twice, told,
    )
}  # fmt: skip
