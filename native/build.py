"""Compiles C files with the machine's own compiler and opens what comes of it."""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

COMPILE_SECONDS = 120.0


class CannotBuildError(Exception):
    """This machine cannot compile or open the library; the message says why."""


@dataclass(frozen=True)
class Library:
    """What a library is made of: `sources` are compiled, `headers` only read by them.

    `version` names whatever else the result depends on.
    """

    name: str
    sources: tuple[Path, ...]
    headers: tuple[Path, ...] = ()
    flags: tuple[str, ...] = ()
    version: str = ""

    @property
    def key(self) -> str:
        """Differs when anything differs that the result depends on."""
        texts = [path.read_bytes() for path in (*self.sources, *self.headers)]
        return hashlib.sha256(repr((texts, self.flags, self.version)).encode()).hexdigest()[:16]


def open_library(
    library: Library, cache_dir: Path | None, compiler: str | None = None
) -> ctypes.CDLL:
    """The library, compiled unless `cache_dir` holds it already. Raises `CannotBuildError`.

    `cache_dir` is shared safely between processes; None compiles into a temporary folder.
    `compiler` None looks for cc, then gcc.
    """
    found = _find_compiler(compiler)
    return (
        _temporary(library, found)
        if cache_dir is None
        else _open(_build(library, found, cache_dir))
    )


def _find_compiler(compiler: str | None) -> str:
    names = ("cc", "gcc") if compiler is None else (compiler,)
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        raise CannotBuildError(f"no C compiler: {' or '.join(names)} is not on the PATH")
    return found


def _build(library: Library, compiler: str, folder: Path) -> Path:
    target = folder / f"{library.name}-{library.key}.so"
    if target.exists():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".{target.name}.{os.getpid()}.{threading.get_ident()}"
        command = [compiler, *library.flags, *map(str, library.sources), "-o", str(partial)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS)
        if done.returncode != 0:
            raise CannotBuildError(f"{compiler} failed: {done.stderr.strip()[-500:]}")
        partial.replace(target)  # atomic: another process sees a whole library or none
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotBuildError(f"cannot build in {folder}: {error}") from error
    return target


@functools.cache
def _temporary(library: Library, compiler: str) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:  # the mapping outlives the file
        return _open(_build(library, compiler, Path(folder)))


def _open(path: Path) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise CannotBuildError(f"cannot open {path}: {error}") from error
