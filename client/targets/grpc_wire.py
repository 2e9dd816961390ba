"""What gRPC puts on HTTP/2: a header block, framed messages, a status."""

import struct
from collections.abc import Iterable, Mapping

import hpack

_CODES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
    "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
    "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
_NAMES = {str(number): name for number, name in enumerate(_CODES)}
# Says that the server need not remember our headers: asked of us by some, and allowed by all.
_NO_TABLE = b"\x20"


def code_name(text: str) -> str:
    """The name of a `grpc-status`; gRPC has it that one it does not know is UNKNOWN."""
    return _NAMES.get(text, "UNKNOWN")


def request_headers(
    authority: str, path: str, secure: bool, timeout: float, metadata: Mapping[str, str]
) -> bytes:
    """The header block of a call. It adds nothing to the compression's state: it can be reused."""
    milliseconds = min(max(int(timeout * 1e3), 1), 99_999_999)  # eight digits is gRPC's limit
    fields = {
        ":method": "POST",
        ":scheme": "https" if secure else "http",
        ":path": path,
        ":authority": authority,
        "te": "trailers",
        "content-type": "application/grpc",
        "user-agent": "loadstone",
        "grpc-timeout": f"{milliseconds}m",
    } | {name.lower(): value for name, value in metadata.items()}
    fresh = hpack.Encoder()
    return _NO_TABLE + fresh.encode(
        [hpack.NeverIndexedHeaderTuple(*pair) for pair in fields.items()]
    )


def framed(message: bytes) -> bytes:
    """A message as gRPC sends it, uncompressed."""
    return struct.pack(">BI", 0, len(message)) + message


def messages(
    arrivals: Iterable[tuple[float, bytes]],
) -> tuple[list[tuple[float, bytes]], str]:
    """(time of the last byte, message) of each message, however frames cut them.

    With them what is wrong with the rest: "" when every byte belongs to a whole message.
    """
    found: list[tuple[float, bytes]] = []
    held: list[bytes] = []  # parts of a message that is not whole yet, of `size` bytes so far
    size, wanted = 0, 5
    for arrived, payload in arrivals:
        # Nearly always: a frame is a message.
        if not size and payload[:1] == b"\0" and int.from_bytes(payload[1:5]) == len(payload) - 5:
            found.append((arrived, payload[5:]))
            continue
        held.append(payload)
        size += len(payload)
        if size < wanted:
            continue
        data = b"".join(held)
        at, wanted = 0, 5
        while size - at >= 5:
            compressed, length = struct.unpack_from(">BI", data, at)
            if compressed:
                return found, "a compressed message, which was not asked for"
            if size - at < 5 + length:
                wanted = 5 + length
                break
            found.append((arrived, data[at + 5 : at + 5 + length]))
            at += 5 + length
        held, size = [data[at:]], size - at
    return found, f"{size} bytes of a message that never became whole" if size else ""
