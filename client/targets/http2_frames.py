"""Frames of HTTP/2 on the wire (RFC 9113, sections 4 and 6): their head of 9 bytes, and cutting."""

import struct

DATA, HEADERS, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = (
    0, 1, 3, 4, 5, 6, 7, 8, 9,
)  # fmt: skip
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
LARGEST = 2**31 - 1  # number of a stream, and size of a window in bytes
LARGEST_FRAME = 16_384  # by default, and by us
_HEADER = struct.Struct(">HBBBI")  # length in 16 + 8 bits, type, flags, stream


def frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    """One HTTP/2 frame."""
    length = len(payload)
    return _HEADER.pack(length >> 8, length & 255, kind, flags, number) + payload


def read_frames(data: bytes, at: int = 0) -> tuple[list[tuple[int, int, int, bytes]], int]:
    """(type, flags, stream, payload) of each whole frame from `at` on, and where the next starts.

    Raises ValueError for a frame longer than was allowed to the other side.
    """
    frames, at, fault = cut(data, at)
    if fault:
        raise ValueError(fault)
    return frames, at


def cut(data: bytes, at: int = 0) -> tuple[list[tuple[int, int, int, bytes]], int, str]:
    """As `read_frames`, and what is wrong with the frame after the last."""
    frames: list[tuple[int, int, int, bytes]] = []
    while len(data) - at >= 9:
        high, low, kind, flags, number = _HEADER.unpack_from(data, at)
        length = high << 8 | low
        if length > LARGEST_FRAME:
            return frames, at, f"a frame of {length} bytes"
        if len(data) - at < 9 + length:
            break
        frames.append((kind, flags, number & LARGEST, data[at + 9 : at + 9 + length]))
        at += 9 + length
    return frames, at, ""
