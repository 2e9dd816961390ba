"""What an HTTP/2 server may answer to a call, right or wrong, and what must become of the call."""

import struct

from raw_http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PRIORITIZED,
    PUSH,
    RST,
    SETTINGS,
    WINDOW,
    block,
    data,
    ending,
    opening,
)

from client.targets.grpc_wire import framed
from client.targets.http2_frames import frame
from protos import orchestrator_pb2 as pb

Content = pb.DecodeResponse.StreamContent


def u32(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}I", *numbers)


def setting(name: int, value: int) -> bytes:
    return struct.pack(">HI", name, value)


def token(index: int) -> bytes:
    sample = Content.Sample(text="x", token_ids=[index])
    message = pb.DecodeResponse(stream_content=Content(samples=[sample]))
    return framed(message.SerializeToString())


def good(number: int) -> list[bytes]:
    return [opening(number), data(number, token(0)), ending(number)]


def with_continuation(number: int) -> list[bytes]:
    fields = block({"grpc-status": "0", "x-long": "b" * 200})
    return [
        opening(number), data(number, token(0)),
        frame(HEADERS, END_STREAM, number, fields[:10]),
        frame(CONTINUATION, 0, number, fields[10:20]),
        frame(CONTINUATION, END_HEADERS, number, fields[20:]),
    ]  # fmt: skip


def only(number: int, **fields: str) -> list[bytes]:
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    head = {":status": "200", "content-type": "application/grpc"} | named
    return [frame(HEADERS, END_HEADERS | END_STREAM, number, block(head))]


def reset(code: int):
    return lambda number: [
        opening(number), data(number, token(0)), frame(RST, 0, number, u32(code)),
    ]  # fmt: skip


def not_grpc(status: int):
    return lambda number: [
        frame(HEADERS, END_HEADERS | END_STREAM, number, block({":status": str(status)}))
    ]


def broken(*frames: bytes):
    return lambda number: [opening(number), *frames]


DONE = ("completed", "")
LOST, RESET, MALFORMED = "connection lost", "stream reset", "malformed answer"
ALL = {
    "well": (good, DONE),
    "a token a byte": (
        lambda n: [opening(n), *(data(n, bytes([each])) for each in token(0)), ending(n)], DONE,
    ),
    "refused before it began": (
        lambda n: only(n, grpc_status="8", grpc_message="full"), ("failed", "RESOURCE_EXHAUSTED"),
    ),
    "headers in three frames": (with_continuation, DONE),
    "frames that nobody knows": (
        lambda n: [frame(77, 3, n, b"what"), frame(77, 3, 0, b"what"), *good(n)], DONE,
    ),
    "frames of other streams": (
        lambda n: [data(n + 40, token(0)), frame(RST, 0, n + 40, u32(1)), *good(n)], DONE,
    ),
    "more after the end": (lambda n: [*good(n), data(n, token(1)), ending(n)], DONE),
    "a reset after the end": (lambda n: [*good(n), frame(RST, 0, n, u32(0))], DONE),
    "no status": (
        lambda n: [opening(n), data(n, token(0), END_STREAM)], ("failed", RESET),
    ),
    "trailers without a status": (
        lambda n: [opening(n), frame(HEADERS, END_HEADERS | END_STREAM, n, block({"x": "y"}))],
        ("failed", RESET),
    ),
    "a status that nobody knows": (
        lambda n: [opening(n), ending(n, "99")], ("failed", "UNKNOWN"),
    ),
    **{
        f"HTTP {status}": (not_grpc(status), ("failed", f"HTTP {status}"))
        for status in (307, 400, 401, 404, 429, 500, 502, 503)
    },
    **{f"reset {code}": (reset(code), ("failed", RESET)) for code in (0, 1, 2, 3, 11, 12, 13, 99)},
    "reset 7": (reset(7), ("failed", "stream refused")),
    "reset 8": (reset(8), ("failed", "CANCELLED")),
    "compressed": (
        lambda n: [opening(n), data(n, b"\1" + token(0)[1:]), ending(n)], ("failed", MALFORMED),
    ),
    "no protobuf": (
        lambda n: [opening(n), data(n, framed(b"\xff" * 3)), ending(n)], ("failed", MALFORMED),
    ),
    "goes away before it": (
        lambda n: [frame(GOAWAY, 0, 0, u32(0, 0) + b"bye")], ("failed", LOST),
    ),
    "goes away after it": (lambda n: [frame(GOAWAY, 0, 0, u32(n, 0)), *good(n)], DONE),
    "goes away in anger": (
        lambda n: [frame(GOAWAY, 0, 0, u32(0, 11) + b"too many pings"), None], ("failed", LOST),
    ),
    "closes": (lambda n: [opening(n), data(n, token(0)), None], ("failed", LOST)),
    "HTTP/1": (lambda n: [b"HTTP/1.1 400 Bad Request\r\n\r\n"], ("failed", MALFORMED)),
    "no headers at all": (
        broken(frame(HEADERS, END_HEADERS, 1, b"\xff" * 20)), ("failed", MALFORMED),
    ),
    "headers out of nothing": (
        lambda n: [frame(CONTINUATION, END_HEADERS, n, b"")], ("failed", MALFORMED),
    ),
    "a reset without a reason": (lambda n: [frame(RST, 0, n, b"")], ("failed", MALFORMED)),
    "frames of 7 bytes": (
        broken(frame(SETTINGS, 0, 0, setting(5, 7))), ("failed", MALFORMED),
    ),
    "frames of 4 GiB": (
        broken(frame(SETTINGS, 0, 0, setting(5, 2**32 - 1))), ("failed", MALFORMED),
    ),
    "a window of 4 GiB": (
        broken(frame(SETTINGS, 0, 0, setting(4, 2**32 - 1))), ("failed", MALFORMED),
    ),
    "half a setting": (broken(frame(SETTINGS, 0, 0, b"123")), ("failed", MALFORMED)),
}  # fmt: skip
# What only ours can tell, with the reason.
OURS = {
    # grpc takes frames of 4 MiB, and waits for the rest.
    "a frame too long": (lambda n: [opening(n), frame(DATA, 0, n, b"x" * 16_385)], MALFORMED),
    # grpc takes what has an end, and says nothing of the rest.
    "half a message": (lambda n: [opening(n), data(n, token(0)[:-2]), ending(n)], MALFORMED),
    # grpc lets it pass.
    "a push": (lambda n: [opening(n), frame(PUSH, END_HEADERS, n, u32(2))], MALFORMED),
    "more padding than there is room for": (
        lambda n: [opening(n), frame(DATA, PADDED, n, b"\5" + bytes(4))], MALFORMED,
    ),
    "padding without its length": (lambda n: [opening(n), frame(DATA, PADDED, n, b"")], MALFORMED),
    "a window past its limit": (
        lambda n: [opening(n), *[frame(WINDOW, 0, n, u32(2**31 - 1))] * 2], MALFORMED,
    ),
    "the connection's window past its limit": (
        lambda n: [opening(n), *[frame(WINDOW, 0, 0, u32(2**31 - 1))] * 2], MALFORMED,
    ),
    # grpc knows no padding.
    "padded": (
        lambda n: [
            frame(
                HEADERS, END_HEADERS | PADDED | PRIORITIZED, n,
                b"\3" + u32(0) + b"\1" + block({":status": "200"}) + bytes(3),
            ),
            frame(DATA, PADDED, n, b"\2" + token(0) + bytes(2)),
            frame(DATA, PADDED, n, b"\0"),
            frame(DATA, PADDED, n, b"\4" + bytes(4)),
            ending(n),
        ],
        "",
    ),
    # grpc takes the first headers for the last.
    "an early hint": (
        lambda n: [frame(HEADERS, END_HEADERS, n, block({":status": "103"})), *good(n)], "",
    ),
}  # fmt: skip
