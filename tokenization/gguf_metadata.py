"""The metadata at the head of a GGUF file, without its tensors.

`gguf.GGUFReader` makes several arrays for every string of the vocabulary: 2 s for SmolLM2's 49152
tokens against 0.1 s here. Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUF_MAGIC, GGUFValueType

from tokenization.errors import TokenizerError

_VERSIONS = (2, 3)
_SCALARS = {
    GGUFValueType.UINT8: "<B",
    GGUFValueType.INT8: "<b",
    GGUFValueType.UINT16: "<H",
    GGUFValueType.INT16: "<h",
    GGUFValueType.UINT32: "<I",
    GGUFValueType.INT32: "<i",
    GGUFValueType.UINT64: "<Q",
    GGUFValueType.INT64: "<q",
    GGUFValueType.FLOAT32: "<f",
    GGUFValueType.FLOAT64: "<d",
    GGUFValueType.BOOL: "<?",
}


def read_gguf_metadata(path: Path) -> dict[str, Any]:
    """Returns the file's keys and values: scalars, strings, and lists of either.

    Raises TokenizerError if it is not a little-endian GGUF file of version 2 or 3, or is cut off.
    """
    with path.open("rb") as file:
        if not file.read(1):
            raise TokenizerError(f"{path} is empty, expected a GGUF file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _Head(data).metadata()
            # A wrong length leads outside the file, into bytes that are no text or no known type.
            except (struct.error, IndexError, UnicodeDecodeError, ValueError) as error:
                raise TokenizerError(f"{path} is not a readable GGUF file: {error}") from error


class _Head:
    """A position in the file that moves on with each value read."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0

    def metadata(self) -> dict[str, Any]:
        magic, version = self._scalar("<I"), self._scalar("<I")
        if magic != GGUF_MAGIC:
            raise ValueError("it does not start with GGUF")
        if version not in _VERSIONS:
            raise ValueError(f"version {version} (or big-endian), expected one of {_VERSIONS}")
        self._scalar("<Q")  # tensors
        count = self._scalar("<Q")
        return dict(self._entry() for _ in range(count))

    def _entry(self) -> tuple[str, Any]:
        key = self._string()
        return key, self._value(GGUFValueType(self._scalar("<I")))

    def _value(self, kind: GGUFValueType) -> Any:
        if kind == GGUFValueType.STRING:
            return self._string()
        if kind == GGUFValueType.ARRAY:
            return self._array()
        return self._scalar(_SCALARS[kind])

    def _array(self) -> list[Any]:
        kind = GGUFValueType(self._scalar("<I"))
        count = self._scalar("<Q")
        if kind in _SCALARS:
            values = np.frombuffer(self._data, np.dtype(_SCALARS[kind]), count, self._at).tolist()
            self._at += count * struct.calcsize(_SCALARS[kind])
            return values
        return [self._value(kind) for _ in range(count)]

    def _string(self) -> str:
        length = self._scalar("<Q")
        text = self._data[self._at : self._at + length]
        if len(text) != length:
            raise ValueError(f"a string of {length} bytes goes past the end of the file")
        self._at += length
        return text.decode()

    def _scalar(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return value
