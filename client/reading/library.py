"""The C part of the reader, compiled where there is a compiler."""

import ctypes
import platform
from pathlib import Path

from native.build import CannotBuildError, Library, open_library

_C = ("reader.c", "columns.c", "chunks.c", "frames.c", "samples.c")
_FOLDER = Path(__file__).parent
_SOURCES = tuple(_FOLDER / name for name in _C)
_HEADERS = tuple(_FOLDER / name for name in ("columns.h", "chunks.h", "frames.h"))
_FLAGS = ("-O2", "-shared", "-fPIC", "-pthread")
_POINTER, _SIZE = ctypes.c_void_p, ctypes.c_size_t
_CALL, _COUNT = ctypes.c_uint32, ctypes.c_uint64
_SIGNATURES: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "reader_open": (_POINTER, (ctypes.c_int,)),
    "reader_close": (None, (_POINTER,)),
    "reader_add": (_POINTER, (_POINTER, ctypes.c_int, _COUNT)),
    "reader_remove": (None, (_POINTER, _POINTER)),
    "reader_expect": (None, (_POINTER, _POINTER)),
    "reader_head": (_SIZE, (_POINTER, _POINTER, _POINTER, _SIZE)),
    "reader_told": (_POINTER, (_POINTER, _POINTER, _POINTER, _POINTER)),
    "reader_call": (ctypes.c_int, (_POINTER, _POINTER, _CALL)),
    "reader_owed": (_COUNT, (_POINTER, _POINTER)),
    "reader_pieces": (_SIZE, (_POINTER, _POINTER, _CALL)),
    "samples_count": (_SIZE, (ctypes.c_char_p, _POINTER, _SIZE, _POINTER)),
    "reader_take": (ctypes.c_int, (_POINTER, _POINTER, _CALL, _COUNT, *(_POINTER,) * 5)),
}


def load_library(cache_dir: Path | None, compiler: str | None = None) -> ctypes.CDLL:
    """The reader, ready to be called; see `open_library`. Raises `CannotBuildError`."""
    if platform.system() != "Linux":
        raise CannotBuildError(f"it is for Linux, this is {platform.system()}")
    library = open_library(Library("reader", _SOURCES, _HEADERS, _FLAGS), cache_dir, compiler)
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
